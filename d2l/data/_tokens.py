"""How often words occur, counted by the operator library."""
import ctypes

from d2l.utils import _native


def count_sorted(lines):
    """The different words in a list of lists of str: (words, counts), two lists.

    In falling count, equally frequent words in their own order; each is the first of the equal
    ones.  None where there is no library, or something else than list and str themselves: their
    subclasses may compare as they like.
    """
    count = _native.function('d2l_count_tokens', ctypes.c_int64, ctypes.PyDLL)
    if count is None or type(lines) is not list:
        return None
    words, counts = [], []
    lines, *kinds = map(ctypes.py_object, (lines, list, str))
    # The hash of a str differs from process to process, as Python's own tables need it.
    seed = ctypes.c_int64(hash('seed'))
    found = count(lines, *kinds, seed, ctypes.py_object(words), ctypes.py_object(counts))
    return None if found < 0 else (words, counts)
