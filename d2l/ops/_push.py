"""Pushes updates to MXNet's engine directly (src/operators/mxnet/push.cc)."""
import ctypes
import weakref

import mxnet as mx
import numpy
from mxnet import base as _base

from d2l.ops import _native
from d2l.ops._native import Tensor


class _Context(ctypes.Structure):
    """mxnet::Context."""

    _fields_ = [('dev_type', ctypes.c_int32), ('dev_id', ctypes.c_int32)]


class Push:
    """An operator that changes lists of arrays on a CPU, for many calls with the same ones.

    A call goes past MXNet's operators, which copy all arrays several times.
    """

    def __init__(self, lib, name, lists):
        self._c, self._update = lib.c, ctypes.c_void_p()
        self._kernel = _native.Kernel(lib.c, name, lib.isa)
        count = len(lists[0])
        arrays = [a for group in lists for a in ([None] * count if group is None else group)]
        context = lists[0][0].context
        self._context = _Context(context.device_typeid, context.device_id)
        self._by_context = ctypes.byref(self._context)
        self._handles = _handles(arrays)
        self._tensors = _tensors(arrays)
        self._text = ctypes.create_string_buffer(512)

    def __call__(self, values, singles):
        """Make a call with attributes, a dict of str, and single arrays, which may be None.

        Returns the output; None where MXNet's operator has to do it: for parts of arrays, one array
        in two places, memory that is not there yet, and what the rules refuse at first.
        """
        if self._tensors is None:
            return None
        kinds = [None if a is None else (a.dtype, a.shape) for a in singles]
        if not self._update.value or kinds != self._kinds:
            if not self._prepare(values, singles, kinds):
                return None
        output = mx.np.ndarray(self._new_output())
        status = self._c.d2l_update_push(
            self._update, _base.c_str_array(values.keys()), _base.c_str_array(values.values()),
            len(values), self._handles, self._extra, _handles([*singles, output]), len(singles),
            self._by_context, self._text, len(self._text))
        if status == 0:
            return output
        if status == 1:
            raise _base.MXNetError(self._text.value.decode())
        if status == 3:
            _base.check_call(-1)
        self._drop()
        return None

    def _prepare(self, values, singles, kinds):
        extra = _tensors(singles)
        if extra is None:
            return False
        try:
            _, (self._output,), _ = self._kernel.infer([*self._tensors, *extra], **values)
        except _native.NativeError:
            return False
        self._extra, self._kinds = (Tensor * (len(singles) + 1))(*extra, self._output), kinds
        if not self._update.value:
            self._update.value = self._c.d2l_update_new(
                self._kernel.index, self._tensors, self._handles, len(self._tensors))
            if self._update.value:
                self._drop = weakref.finalize(self, _free, self._c, self._update)
        return bool(self._update.value)

    def _new_output(self):
        """A handle of an array whose memory is there."""
        shape, handle = self._output.shape, _base.NDArrayHandle()
        _base.check_call(_base._LIB.MXNDArrayCreateEx(
            (ctypes.c_uint * len(shape))(*shape), len(shape), self._context.dev_type,
            self._context.dev_id, 0, self._output.dtype, ctypes.byref(handle)))
        return handle


def _free(library, update):
    library.d2l_update_free(update)
    update.value = None


def _handles(arrays):
    return (ctypes.c_void_p * len(arrays))(*(None if a is None else a.handle for a in arrays))


def _tensors(arrays):
    """Tensors without addresses; None if there is an array that no kernel takes."""
    found = []
    for a in arrays:
        if a is None:
            found.append(Tensor.absent())
            continue
        dtype, shape = numpy.dtype(a.dtype).name, a.shape
        if dtype not in _native.DTYPES or len(shape) > _native.MAX_DIMS:
            return None
        found.append(Tensor.of(None, dtype, shape))
    return (Tensor * len(found))(*found)
