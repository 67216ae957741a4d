"""The library's plain C interface (src/operators/common/c_api.h) on memory addresses.

It runs a kernel of any target on any memory, without MXNet: for tests of every instruction set
and thread count, for sanitizers and for the GPU harness.
"""
import ctypes

MAX_DIMS = 12
_ABSENT = -2
DTYPES = {'float32': 0, 'float64': 1, 'float16': 2, 'uint8': 3, 'int32': 4, 'int8': 5, 'int64': 6}
NAMES = {number: name for name, number in DTYPES.items()}


class _Shape(ctypes.Structure):
    _fields_ = [('ndim', ctypes.c_int32), ('dim', ctypes.c_int64 * MAX_DIMS)]


class Tensor(ctypes.Structure):
    """d2l::Tensor: address, dtype and shape; -1 stands for what is not known."""

    _fields_ = [('data', ctypes.c_void_p), ('dtype', ctypes.c_int32), ('_shape', _Shape)]

    @classmethod
    def of(cls, address, dtype, shape):
        dims = (ctypes.c_int64 * MAX_DIMS)(*shape)
        return cls(address, DTYPES[str(dtype)], _Shape(len(shape), dims))

    @classmethod
    def absent(cls):
        """In the place of an optional input that a call does without."""
        return cls(None, _ABSENT, _Shape(_ABSENT))

    @property
    def shape(self):
        return tuple(self._shape.dim[:self._shape.ndim])

    @property
    def dtype_name(self):
        return NAMES[self.dtype]


class _Attr(ctypes.Structure):
    _fields_ = [('key', ctypes.c_char_p), ('value', ctypes.c_char_p)]


class NativeError(Exception):
    """A rule or a kernel refused a call; the text is the library's."""


def tensors(library, index):
    """How many inputs, how many of them required, and how many outputs a kernel has."""
    counts = [ctypes.c_int() for _ in range(3)]
    library.d2l_op_tensors(index, *map(ctypes.byref, counts))
    return tuple(count.value for count in counts)


def given(inputs):
    """The attribute that says which inputs a call has: {} if it has all of them."""
    if all(value is not None for value in inputs):
        return {}
    return {'given': ''.join('01'[value is not None] for value in inputs)}


class Kernel:
    """One operator built for one target ('v2', 'v3', 'v4' or 'cuda')."""

    def __init__(self, library, op, target):
        self._library = library
        library.d2l_op_name.restype = library.d2l_op_target.restype = ctypes.c_char_p
        index, name = 0, library.d2l_op_name(0)
        while name is not None and (name.decode(),
                                    library.d2l_op_target(index).decode()) != (op, target):
            index, name = index + 1, library.d2l_op_name(index + 1)
        if name is None:
            raise NativeError('{} was not built for {}'.format(op, target))
        self.index = index
        self.num_inputs, self.num_required, self.num_outputs = tensors(library, index)
        self.updates = bool(library.d2l_op_updates(index))

    def infer(self, inputs, **attrs):
        """Run the rules: (inputs with what was unknown filled in, outputs, workspace bytes).

        None stands for an optional input that is not there, and for each array of an optional
        list; ``attrs`` then has what ``given`` of this module returns.
        """
        inputs = [Tensor.absent() if t is None else t for t in inputs]
        inputs = (Tensor * len(inputs))(*inputs)
        outputs = (Tensor * self.num_outputs)()
        workspace = (ctypes.c_int64 * 2)()
        self._call(self._library.d2l_infer, attrs, inputs, len(inputs), outputs, workspace)
        return list(inputs), list(outputs), tuple(workspace)

    def run(self, grad_outputs, inputs, outputs, grad_inputs, workspace=None, stream=None, **attrs):
        """Forward if the gradients are None, else backward; tensors as infer accepted them."""
        def array(tensors):
            if tensors is None:
                return None
            return (Tensor * len(tensors))(*[Tensor.absent() if t is None else t
                                             for t in tensors])
        self._call(self._library.d2l_run, attrs, array(grad_outputs), array(inputs),
                   array(outputs), array(grad_inputs), ctypes.c_void_p(workspace),
                   ctypes.c_void_p(stream))

    def _call(self, function, attrs, *args):
        pairs = (_Attr * max(1, len(attrs)))(*(
            _Attr(key.encode(), str(value).encode()) for key, value in attrs.items()))
        text = ctypes.create_string_buffer(512)
        if function(self.index, pairs, len(attrs), *args, text, len(text)):
            raise NativeError(text.value.decode())
