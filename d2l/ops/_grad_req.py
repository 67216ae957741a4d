"""Keeps grad_req='add' right for extension operators.

MXNet 1.9.1 knows for every gradient whether to write it or to add to it, and drops that note when
the operator is an extension: the kernel always writes.  The note only matters where an operator's
input is a variable whose gradient the user asked to be added up.  Such a variable passes through
a native reshape first, which copies nothing forward and does add backward.

Everything else must not pay for that, so the variables are told apart: every ``attach_grad`` and
every Parameter ends in one C function, which is watched here.  Inside a graph MXNet adds
gradients up by native operators, as long as MXNET_EXEC_INPLACE_GRAD_SUM_CAP is large; d2l._compat
sees to that.
"""
import ctypes
import functools
import gc

import mxnet as mx
from mxnet import autograd
from mxnet import base as _base
from mxnet.ndarray import NDArray

_ADD = 3  # MXNet's number for grad_req='add'
_MAX_NOTES = 1 << 16

_LIB = _base._LIB


class _State:
    notes = {}           # address of a gradient's memory -> MXNet's request number
    any_add = False      # while it is False, no variable needs to be looked at


def gate(array):
    """The array itself, or a reshape of it if gradients are added up in it."""
    if not _State.any_add or not _adds(array):
        return array
    if array.size == 0:
        return array.copy()
    shape = array.shape
    handle = _base.NDArrayHandle()
    _base.check_call(_LIB.MXNDArrayReshape64(
        array.handle, len(shape), (ctypes.c_int64 * len(shape))(*shape), False,
        ctypes.byref(handle)))
    return type(array)(handle=handle, writable=array.writable)


def _adds(array):
    gradient = _base.NDArrayHandle()
    _base.check_call(_LIB.MXNDArrayGetGrad(array.handle, ctypes.byref(gradient)))
    if not gradient.value:
        return False
    request = _State.notes.get(_address(gradient), _ADD)  # not noted: be careful
    _base.check_call(_LIB.MXNDArrayFree(gradient))
    return request == _ADD


def _address(handle):
    memory = ctypes.c_void_p()
    _base.check_call(_LIB.MXNDArrayGetData(handle, ctypes.byref(memory)))
    return memory.value


def install():
    """Watch the four ways in which gradients are asked for; once for a process."""
    if getattr(_LIB.MXAutogradMarkVariables, 'watched', False):
        return
    _LIB.MXAutogradMarkVariables = _watched_mark(_LIB.MXAutogradMarkVariables)
    mx.ndarray.CachedOp.__call__ = _gated_call(mx.ndarray.CachedOp.__call__)
    for method in ('bind', 'simple_bind'):
        setattr(mx.sym.Symbol, method, _checked_bind(getattr(mx.sym.Symbol, method)))
    # Variables from before are not in the notes.
    _State.any_add = any(issubclass(type(o), NDArray) and o.grad is not None
                         for o in gc.get_objects())


def _watched_mark(mark):
    def watched(count, variables, requests, gradients):
        status = mark(count, variables, requests, gradients)
        if len(_State.notes) > _MAX_NOTES:
            _State.notes.clear()
            _State.any_add = True
        for i in range(count if status == 0 else 0):
            # The engine allocates memory when it runs the operator that fills it; asking for the
            # address before that would allocate a second time.
            gradient = ctypes.c_void_p(gradients[i])
            _base.check_call(_LIB.MXNDArrayWaitToRead(gradient))
            _State.notes[_address(gradient)] = requests[i]
            _State.any_add |= requests[i] == _ADD
        return status
    watched.watched = True
    return watched


def _gated_call(call):
    """A hybridized block is one operator of the graph around it."""
    @functools.wraps(call)
    def gated(self, *args, **kwargs):
        if _State.any_add and autograd.is_recording():
            args = [gate(a) for a in args]
        return call(self, *args, **kwargs)
    return gated


def _checked_bind(bind):
    """Executors write into the user's gradients directly; there is no place for a gate."""
    @functools.wraps(bind)
    def checked(self, *args, **kwargs):
        position = {'bind': 3, 'simple_bind': 1}[bind.__name__]
        requests = kwargs.get('grad_req', args[position] if len(args) > position else 'write')
        if isinstance(requests, dict):
            requests = list(requests.values())
        if 'add' in requests and '_npx_d2l_' in self.tojson():
            raise ValueError("grad_req must not be 'add' for an executor whose graph has d2l's "
                             'operators; hybridize a Gluon block instead, or bind with '
                             "'write' and add the gradients up")
        return bind(self, *args, **kwargs)
    return checked
