"""Memory in which the sanitizers see one step too far, for the calls of sanitized.py."""
import ctypes

import numpy as np


class Heap:
    """Blocks from malloc, which the address sanitizer fences.

    With shift, an array begins so many elements after its block and its alignment is no better
    than that of an element.  What lies before it, like memory not yet written, is all ones: NaN.
    """

    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    libc.malloc.argtypes = [ctypes.c_size_t]
    libc.posix_memalign.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]

    def __init__(self, shift=0):
        self.shift = shift
        self._blocks, self._fences = [], []

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        for block in self._blocks:
            self.libc.free(block)

    def empty(self, shape, dtype):
        """The address of an array; none for one without elements, unless it is shifted."""
        dtype = np.dtype(dtype)
        size, fence = int(np.prod(shape)) * dtype.itemsize, self.shift * dtype.itemsize
        if size + fence == 0:
            return None
        block = self.libc.malloc(size + fence)
        ctypes.memset(block, 0xff, size + fence)
        self._blocks.append(block)
        self._fences.append((block, fence))
        return block + fence

    def put(self, array):
        array = np.ascontiguousarray(array).reshape(array.shape)
        address = self.empty(array.shape, array.dtype)
        if array.size:
            ctypes.memmove(address, array.ctypes.data, array.nbytes)
        return address

    def workspace(self, size):
        if size == 0:
            return None
        block = ctypes.c_void_p()
        assert self.libc.posix_memalign(ctypes.byref(block), 64, size) == 0
        self._blocks.append(block.value)
        return ctypes.memset(block.value, 0xff, size)

    def check_fences(self):
        for block, fence in self._fences:
            assert ctypes.string_at(block, fence) == b'\xff' * fence, 'a write before an array'


def array_at(address, shape, dtype):
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.frombuffer(ctypes.string_at(address, size) if size else b'', dtype).reshape(shape)
