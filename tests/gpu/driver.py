"""Drives the kernels of a built library through its plain C interface, without MXNet.

A backend keeps the arrays: Guarded (host memory between guard bytes, for the emulator and for CPU
kernels), Torch or Cupy (a GPU's memory)::

    library = Library('build/emulated/libd2l_emulated.so')
    call = Call(library, Guarded(), 'masked_softmax', [X, valid_len], target='cuda')
    y, = call.forward()
    dx, dlen = call.backward([dy])

Outputs, gradients and the workspace are full of NaNs before each run, so that a hole shows.
"""
import ctypes

import numpy as np

MAX_DIMS = 12
ABSENT = -2
DTYPES = {'float32': 0, 'float64': 1, 'float16': 2, 'uint8': 3, 'int32': 4, 'int8': 5, 'int64': 6}
NAMES = {flag: name for name, flag in DTYPES.items()}


class _Shape(ctypes.Structure):
    _fields_ = [('ndim', ctypes.c_int32), ('dim', ctypes.c_int64 * MAX_DIMS)]


class _Tensor(ctypes.Structure):
    _fields_ = [('data', ctypes.c_void_p), ('dtype', ctypes.c_int32), ('shape', _Shape)]


class _Attr(ctypes.Structure):
    _fields_ = [('key', ctypes.c_char_p), ('value', ctypes.c_char_p)]


class KernelError(RuntimeError):
    """The rules refused the arrays, a kernel failed, or memory outside the arrays was written."""


def _spec(array):
    """Shape and dtype of an array of numpy, PyTorch or CuPy; of None, those of an absent input."""
    if array is None:
        return (), None
    return tuple(array.shape), np.dtype(str(array.dtype).replace('torch.', ''))


class Library:
    """A built operator library; indices: (operator, target) -> number of its table."""

    def __init__(self, path):
        self.c = ctypes.CDLL(str(path))
        self.c.d2l_op_name.restype = self.c.d2l_op_target.restype = ctypes.c_char_p
        self.indices = {}
        while self.c.d2l_op_name(len(self.indices)) is not None:
            i = len(self.indices)
            self.indices[self.c.d2l_op_name(i).decode(), self.c.d2l_op_target(i).decode()] = i

    def why(self):
        """The emulator's account of the last failure, '' without an emulator."""
        if not hasattr(self.c, 'd2l_emulator_message'):
            return ''
        self.c.d2l_emulator_message.restype = ctypes.c_char_p
        return ': ' + self.c.d2l_emulator_message().decode()


class Guarded:
    """Host memory between guard bytes, shifted by some elements from its alignment of 64 bytes.

    Under the address sanitizer the guards may not be read either.
    """
    # Large enough for numpy to give the memory back to malloc, which lets it be read again.
    guard = 512

    def __init__(self, shift=0):
        self.shift = shift
        self.stream = None
        process = ctypes.CDLL(None)
        self._poison = getattr(process, '__asan_poison_memory_region', None)
        self._unpoison = getattr(process, '__asan_unpoison_memory_region', None)

    def empty(self, shape, dtype, shift=None):
        shift = self.shift if shift is None else shift
        dtype = np.dtype(dtype)
        count = int(np.prod(shape, dtype=np.int64))
        nbytes = count * dtype.itemsize
        raw = np.full(nbytes + 2 * self.guard + 64, 0xff, np.uint8)
        start = -raw.ctypes.data % 64 + self.guard + shift * dtype.itemsize
        buffer = raw[start:start + nbytes].view(dtype).reshape(shape)
        self._set_guards(raw, start, nbytes, self._poison)
        return raw, start, buffer

    def _set_guards(self, raw, start, nbytes, mark):
        if mark is not None:
            end = start + nbytes
            mark(ctypes.c_void_p(raw.ctypes.data), ctypes.c_size_t(start))
            mark(ctypes.c_void_p(raw.ctypes.data + end), ctypes.c_size_t(len(raw) - end))

    def upload(self, array):
        buffer = self.empty(array.shape, array.dtype)
        buffer[2][...] = array
        return buffer

    def download(self, buffer):
        raw, start, array = buffer
        self._set_guards(raw, start, array.nbytes, self._unpoison)
        if (raw[:start] != 0xff).any() or (raw[start + array.nbytes:] != 0xff).any():
            raise KernelError('a write outside an array of shape {}'.format(array.shape))
        copy = array.copy()
        self._set_guards(raw, start, array.nbytes, self._poison)
        return copy

    @staticmethod
    def pointer(buffer):
        return buffer[2].ctypes.data


class Torch:
    """Memory of PyTorch: a CUDA device, or the host for a try of the harness."""

    def __init__(self, device='cuda', shift=0):
        import torch
        self.torch, self.device, self.shift = torch, device, shift

    @property
    def stream(self):
        return self.torch.cuda.current_stream().cuda_stream if self.device == 'cuda' else None

    def empty(self, shape, dtype, shift=None):
        shift = self.shift if shift is None else shift
        dtype = getattr(self.torch, np.dtype(dtype).name)
        count = int(np.prod(shape, dtype=np.int64))
        whole = self.torch.empty(count + shift, dtype=dtype, device=self.device)
        whole.view(self.torch.uint8).fill_(0xff)
        return whole[shift:].view(tuple(shape))

    def upload(self, array):
        tensor = self.empty(array.shape, array.dtype)
        tensor.copy_(self.torch.from_numpy(np.ascontiguousarray(array)))
        return tensor

    def download(self, tensor):
        return tensor.cpu().numpy().copy()

    @staticmethod
    def pointer(tensor):
        return tensor.data_ptr()


class Cupy:
    """GPU memory of CuPy, where PyTorch is missing."""

    def __init__(self, shift=0):
        import cupy
        self.cupy, self.shift = cupy, shift

    @property
    def stream(self):
        return self.cupy.cuda.get_current_stream().ptr

    def empty(self, shape, dtype, shift=None):
        shift = self.shift if shift is None else shift
        count = int(np.prod(shape, dtype=np.int64))
        whole = self.cupy.empty(count + shift, dtype)
        whole.view(self.cupy.uint8).fill(0xff)
        return whole[shift:].reshape(shape)

    def upload(self, array):
        buffer = self.empty(array.shape, array.dtype)
        buffer.set(np.ascontiguousarray(array))
        return buffer

    def download(self, buffer):
        return buffer.get()

    @staticmethod
    def pointer(buffer):
        return buffer.data.ptr


class Call:
    """An operator with its inputs in a backend's memory.

    Parameters
    ----------
    library, backend : Library, and Guarded, Torch or Cupy
    name, target : the operator, and 'cuda' or an instruction set
    inputs : list of numpy arrays, or of arrays of Torch or Cupy that are used as they are
        The arrays of a list one after the other; None for what is absent (see attribute "given").
    attrs : dict of attributes
    """

    def __init__(self, library, backend, name, inputs, attrs=(), target='cuda'):
        self.library, self.backend, self.name = library, backend, name
        self.index = library.indices[name, target]
        self.attrs = [_Attr(k.encode(), str(v).encode()) for k, v in dict(attrs).items()]
        self.attrs = (_Attr * max(1, len(self.attrs)))(*self.attrs), len(self.attrs)
        self._message = ctypes.create_string_buffer(512)
        self.sources = inputs
        self.inputs = [self._place(a) for a in inputs]
        self.input_specs = [_spec(a) for a in inputs]
        ins = self._tensors([s + (b,) for s, b in zip(self.input_specs, self.inputs)])
        num_in, required, num_out = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
        library.c.d2l_op_tensors(self.index, ctypes.byref(num_in), ctypes.byref(required),
                                 ctypes.byref(num_out))
        outs = (_Tensor * num_out.value)()
        self.workspace_bytes = (ctypes.c_int64 * 2)()
        self._check(library.c.d2l_infer(self.index, *self.attrs, ins, len(inputs), outs,
                                        self.workspace_bytes, self._message,
                                        len(self._message)))
        self.specs = [(tuple(t.shape.dim[:t.shape.ndim]), np.dtype(NAMES[t.dtype])) for t in outs]
        self._ins = ins
        self.outputs = None

    def _place(self, array):
        return self.backend.upload(array) if isinstance(array, np.ndarray) else array

    def _tensors(self, items):
        tensors = (_Tensor * len(items))()
        for tensor, (shape, dtype, buffer) in zip(tensors, items):
            tensor.dtype = ABSENT if dtype is None else DTYPES[np.dtype(dtype).name]
            tensor.shape.ndim = ABSENT if dtype is None else len(shape)
            tensor.shape.dim[:len(shape)] = shape
            tensor.data = self.backend.pointer(buffer) if buffer is not None else None
        return tensors

    def _check(self, failed):
        if failed:
            text = self._message.value.decode()
            raise KernelError(text + (self.library.why() if 'CUDA error' in text else ''))

    def prepare(self, backward, grad_outputs=()):
        """A function of no arguments that launches the kernels, and the buffers it writes.

        Those of the last prepare(False) are the outputs that backward gets.
        """
        if not backward:
            self.outputs = [self.backend.empty(*spec) for spec in self.specs]
            written = self.outputs
            padded = grads_out = grads_in = None
        else:
            padded = list(grad_outputs) + [None] * (len(self.specs) - len(grad_outputs))
            padded = [None if g is None else self._place(g) for g in padded]
            grads_out = self._tensors([s + (g,) for s, g in zip(self.specs, padded)])
            written = [self.backend.empty(*spec) for spec in self.input_specs]
            grads_in = self._tensors([s + (b,) for s, b in zip(self.input_specs, written)])
        outs = self._tensors([s + (b,) for s, b in zip(self.specs, self.outputs)])
        space = self.backend.empty((max(1, self.workspace_bytes[backward]),), np.uint8, shift=0)
        pointer = self.backend.pointer(space) if self.workspace_bytes[backward] else None

        def launch():
            self._check(self.library.c.d2l_run(
                self.index, *self.attrs, grads_out, self._ins, outs, grads_in,
                ctypes.c_void_p(pointer), ctypes.c_void_p(self.backend.stream), self._message,
                len(self._message)))
        launch.workspace, launch.kept = space, padded  # their memory lives as long as launch
        return launch, written

    def _run(self, backward, grad_outputs=()):
        launch, written = self.prepare(backward, grad_outputs)
        launch()
        results = [self.backend.download(b) for b in written]
        self.backend.download(launch.workspace)
        for source, buffer in zip(self.sources, self.inputs):
            if source is not buffer and self.backend.download(buffer).tobytes() != source.tobytes():
                raise KernelError('{} has changed one of its inputs'.format(self.name))
        return results

    def forward(self):
        """The outputs, as numpy arrays."""
        return self._run(False)

    def backward(self, grad_outputs):
        """The gradients of the inputs, given those of the first outputs; after forward()."""
        return self._run(True, grad_outputs)

    def update(self):
        """The inputs after a call that changes them, None for absent ones, and the outputs."""
        launch, written = self.prepare(False)
        launch()
        results = [self.backend.download(b) for b in written]
        self.backend.download(launch.workspace)
        return [None if b is None else self.backend.download(b) for b in self.inputs], results
