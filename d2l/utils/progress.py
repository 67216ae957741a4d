"""Progress bars for work that takes more than a few seconds.

They are shown on a terminal and in a notebook.  The environment variable ``D2L_PROGRESS``, read
at every call, decides otherwise: 1 always shows them, 0 never does.
"""
import os
import sys

from d2l.utils.notebook import notebook_shell

# Less work than this many files or lines is done before a bar could be read.
_FEW = 1000


def shows_progress():
    """Whether progress bars are shown here and now."""
    wish = os.environ.get('D2L_PROGRESS', '').strip()
    if wish:
        return wish != '0'
    return notebook_shell() is not None or bool(getattr(sys.stderr, 'isatty', bool)())


def bytes_bar(desc, total, done=0):
    """A bar that counts bytes: a context whose ``update(count)`` moves it on.

    ``total`` is None where it is not known; ``done`` bytes were there before.
    """
    from tqdm import tqdm

    return tqdm(total=total, initial=done, desc=desc, unit='B', unit_scale=True,
                unit_divisor=1024, file=sys.stderr, disable=not shows_progress())


def progress(items, desc, few=_FEW):
    """The ``items`` of a sequence one by one under a bar; no bar for ``few`` of them or less."""
    if len(items) <= few or not shows_progress():
        return iter(items)
    from tqdm import tqdm

    return iter(tqdm(items, desc=desc, file=sys.stderr))
