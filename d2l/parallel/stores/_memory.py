"""The memory of MXNet arrays, for libraries that read and write it."""
import ctypes

import numpy as np
from mxnet.base import _LIB, check_call


def memory(array):
    """A NumPy view of a flat array in the host's memory.

    Waits until MXNet's engine has no reader or writer of the array left, and raises what went wrong
    in them.  From then on the memory is the caller's until it gives MXNet the next operation on the
    array; the array must live as long as the view.
    """
    array.wait_to_read()
    check_call(_LIB.MXNDArrayWaitToWrite(array.handle))
    pointer = ctypes.c_void_p()
    check_call(_LIB.MXNDArrayGetData(array.handle, ctypes.byref(pointer)))
    dtype = np.dtype(array.dtype)
    raw = ctypes.c_char * (array.size * dtype.itemsize)
    return np.frombuffer(raw.from_address(pointer.value), dtype)
