"""Lets glibc keep the memory of large arrays from one operator to the next.

MXNet's CPU arrays come from malloc and go back at once.  As glibc is set up, it returns large
blocks to the system, which hands out new pages, each cleared and mapped at its first touch: that
takes longer than most operators (a training step of layer_norm, 4096 x 1024: 23 ms, and 6 without
it).  So: one heap, no blocks outside it, and its free end stays, up to a limit.

What the user has set wins: ``D2L_MALLOC=0`` leaves glibc alone, and so does any of its own
variables (MALLOC_ARENA_MAX and its kind, or GLIBC_TUNABLES with glibc.malloc).  Another allocator,
such as jemalloc by LD_PRELOAD, is not touched.
"""
import ctypes
import os

VARIABLE = 'D2L_MALLOC'
# <malloc.h>
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -2, -3, -4, -8
_TOP_PAD_BYTES = 64 << 20
_MOST_BYTES = 1 << 30


def keep_large_blocks(memory_bytes=None):
    """Set up glibc's malloc for large arrays.

    Returns what ``d2l env`` shows, a dict: ``kept_bytes``, how much free memory at the end of the
    heap the process keeps (an eighth of the machine's memory, 1 GiB at most), or None where
    nothing was changed, and ``set_by``, 'd2l', 'user' or 'libc' (one without these settings).
    """
    if os.environ.get(VARIABLE) == '0' or _user_has_set():
        return {'kept_bytes': None, 'set_by': 'user'}
    mallopt = getattr(ctypes.CDLL(None), 'mallopt', None)
    if mallopt is None:
        return {'kept_bytes': None, 'set_by': 'libc'}
    kept = min(_MOST_BYTES, (memory_bytes or _memory_bytes()) // 8)
    for option, value in ((_ARENA_MAX, 1), (_TRIM_THRESHOLD, kept),
                          (_TOP_PAD, min(_TOP_PAD_BYTES, kept))):
        mallopt(option, value)
    # Older versions refuse a threshold above 32 MiB; without any block outside the heap there is no
    # question of it.
    if not mallopt(_MMAP_THRESHOLD, kept):
        mallopt(_MMAP_MAX, 0)
    return {'kept_bytes': kept, 'set_by': 'd2l'}


def _user_has_set():
    # Those that only look for errors, as MALLOC_CHECK_ does, have nothing to do with it.
    names = ('MALLOC_ARENA_MAX', 'MALLOC_MMAP_THRESHOLD_', 'MALLOC_TRIM_THRESHOLD_',
             'MALLOC_TOP_PAD_', 'MALLOC_MMAP_MAX_')
    return (any(name in os.environ for name in names)
            or 'glibc.malloc' in os.environ.get('GLIBC_TUNABLES', ''))


def _memory_bytes():
    return os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
