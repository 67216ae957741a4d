"""Operators that change lists of arrays in place, such as the steps of optimizers.

Such an operator is a function of lists of arrays, then of single ones, then of attributes; its
body does the same with MXNet's own operators, array by array::

    @update('weights', 'grads')
    def multi_step(weights, grads, lrs=0.01):
        ...

The public function calls the kernel of the same name, once for all arrays, and the body where there
is no library or none for the device.  It is imperative, and nothing of it is recorded: there are no
symbols and no gradients.  An attribute may be a list, of a number for each array.

``multi_step.bind(weights, grads)`` is a function of the attributes, and of single arrays where they
are others than at first, for many calls with the same lists: it does not look at them again.
"""
import ctypes
import functools
import inspect

import mxnet as mx
from mxnet import autograd
from mxnet import base as _base
from mxnet.ndarray import NDArray
from mxnet.ndarray.sparse import BaseSparseNDArray

from d2l.ops import _library, _native
from d2l.ops._operator import _HAS_GPU, _bind
from d2l.ops._push import Push

_DENSE = {NDArray, mx.np.ndarray}


def update(*lists, single=()):
    """Decorator: the first arguments are lists of arrays, those of single one array each.

    They may default to None where the kernel does without them.  The public function returns what
    the body does; of the kernel, it is the first output, as a NumPy array.
    """
    def decorate(body):
        return _build(body, lists, tuple(single))
    return decorate


def _build(body, lists, single):
    name, inputs = body.__name__, lists + single
    signature = inspect.signature(body)
    parameters = list(signature.parameters.values())
    defaults = {p.name: p.default for p in parameters[len(inputs):]}
    optional = {p.name for p in parameters[:len(inputs)] if p.default is None}
    if tuple(p.name for p in parameters[:len(inputs)]) != inputs:
        raise TypeError('{}: the first arguments must be {}'.format(name, ', '.join(inputs)))

    def bind(*args):
        args += (None,) * (len(inputs) - len(args))
        _check(name, lists, inputs, optional, args)
        on_cpu = not _HAS_GPU or args[0][0].context.device_type != 'gpu'
        arrays, kernel = args[:len(lists)], None

        def run(singles, attrs):
            nonlocal kernel
            lib = _library.library()
            if lib is None or not (on_cpu or lib.runs_on('gpu')):
                return body(*arrays, *singles, **attrs)
            if kernel is None or kernel.lib is not lib:
                kernel = _Kernel(lib, name, arrays, on_cpu)
            return kernel(singles, attrs)

        def bound(**attrs):
            singles = args[len(lists):]
            if single and not attrs.keys().isdisjoint(single):
                singles = [attrs.pop(key, value) for key, value in zip(single, singles)]
                _check(name, lists, inputs, optional, [*arrays, *singles])
            if not defaults.keys() >= attrs.keys():
                _bind(name, signature, args, attrs)
            attrs = {**defaults, **attrs}
            if autograd.is_recording():
                with autograd.pause():
                    return run(singles, attrs)
            return run(singles, attrs)
        return bound

    def call(*args, **kwargs):
        if len(args) != len(inputs) or not defaults.keys() >= kwargs.keys():
            values = _bind(name, signature, args, kwargs)
            args, kwargs = values[:len(inputs)], dict(zip(defaults, values[len(inputs):]))
        return bind(*args)(**kwargs)

    functools.update_wrapper(call, body)
    call.body, call.kernel, call.inputs, call.defaults = body, name, inputs, defaults
    call.lists, call.bind = lists, bind
    return call


def _check(name, lists, inputs, optional, args):
    """Refuse what is no list of dense arrays, or a list of another length than the first."""
    for argument, value in zip(inputs, args):
        if value is None and argument in optional:
            continue
        if argument in lists:
            is_list = isinstance(value, (list, tuple))
            if not is_list or not value:
                raise TypeError('{}: {} must be a list of at least one array, got {}'.format(
                    name, argument, value if is_list else type(value).__name__))
            if len(value) != len(args[0]):
                raise ValueError('{}: {} must have as many arrays as {}, {}, got {}'.format(
                    name, argument, inputs[0], len(args[0]), len(value)))
        kinds = set(map(type, value)) if argument in lists else {type(value)}
        for kind in kinds - _DENSE:
            if not issubclass(kind, NDArray) or issubclass(kind, BaseSparseNDArray):
                raise TypeError('{}: {} must be {}, got {}'.format(
                    name, argument, 'dense arrays' if argument in lists else 'a dense array',
                    kind.__name__))


def numbers(value, count):
    """A number for each of count arrays, from one for all of them or a list."""
    return list(value) if isinstance(value, (list, tuple)) else [value] * count


def classic(*lists):
    """The same arrays as MXNet's legacy operators take them; None stays."""
    return [None if arrays is None else [a.as_nd_ndarray() for a in arrays] for arrays in lists]


def text(value):
    """An attribute as the kernel reads it: a list of equal numbers is that number."""
    if not isinstance(value, (list, tuple)):
        return value
    if value and value.count(value[0]) == len(value):
        return value[0]
    return ','.join(repr(float(v)) for v in value)


class _Kernel:
    """A kernel and the arrays of its calls, which differ in attributes and in the single ones."""

    def __init__(self, lib, name, lists, on_cpu):
        self.lib, self._on_cpu, self._count = lib, on_cpu, len(lists[0])
        self._arrays = [a for group in lists if group is not None for a in group]
        self._handles = _base.c_handle_array(self._arrays)
        self._op, self._name = ctypes.c_void_p(lib.handle(name)), name
        self._lists, self._push, self._was_called = lists, None, False

    def __call__(self, singles, attrs):
        values = {key: str(text(value)) for key, value in attrs.items()}
        values.update(_native.given([*self._lists, *singles]), num_weights=str(self._count))
        output = None
        if self._was_called and self._on_cpu:  # to prepare it takes longer than one call
            self._push = self._push or Push(self.lib, self._name, self._lists)
            output = self._push(values, singles)
        self._was_called = True
        return self._invoke(values, singles) if output is None else output

    def _invoke(self, values, singles):
        """By MXNet's operator, which takes any arrays."""
        handles = self._handles
        if any(a is not None for a in singles):
            handles = _base.c_handle_array([*self._arrays, *(a for a in singles if a is not None)])
        if self._on_cpu:
            # 17 characters for each array, see d2l_chunks.
            chunks = ctypes.create_string_buffer(17 * self._count + 1)
            self.lib.c.d2l_chunks(self._handles, self._count, chunks)
            values['__chunks__'] = chunks.value.decode()
        count, outputs = ctypes.c_int(0), ctypes.POINTER(_base.NDArrayHandle)()
        stypes = ctypes.POINTER(ctypes.c_int)()
        _base.check_call(_base._LIB.MXImperativeInvokeEx(
            self._op, len(handles), handles, ctypes.byref(count), ctypes.byref(outputs),
            len(values), _base.c_str_array(values.keys()), _base.c_str_array(values.values()),
            ctypes.byref(stypes)))
        return mx.np.ndarray(ctypes.cast(outputs[0], _base.NDArrayHandle))
