"""Where the operator library lies, and plain C functions in it that need no MXNet."""
import ctypes
import functools
import os


def library_path():
    """What ``D2L_OPS_LIBRARY`` names, or ``libd2l_ops.so`` in d2l/ops."""
    return os.path.abspath(os.environ.get('D2L_OPS_LIBRARY') or os.path.join(
        os.path.dirname(os.path.abspath(__file__)), os.pardir, 'ops', 'libd2l_ops.so'))


def function(name, restype=ctypes.c_int, kind=ctypes.CDLL):
    """A C function of the library; None where that is absent, switched off or an older one.

    ``kind`` is ``ctypes.PyDLL`` for a function that is to hold the GIL.
    """
    if os.environ.get('D2L_OPS') == '0':
        return None
    found = getattr(_load(library_path(), kind), name, None)
    if found is not None:
        found.restype = restype
    return found


@functools.lru_cache(maxsize=None)
def _load(path, kind):
    try:
        return kind(path)
    except OSError:
        return None
