"""A small stand-in for MXNet, and fresh processes that import it, to test what d2l does then.

It has the habits that matter: names that NumPy has removed, read at import and later.
"""
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy

ROOT = Path(__file__).resolve().parents[1]
OURS = ('OMP_NUM_THREADS', 'MXNET_OMP_MAX_THREADS', 'OPENBLAS_CORETYPE',
        'MXNET_EXEC_INPLACE_GRAD_SUM_CAP', 'MXNET_LIBRARY_PATH', 'D2L_COMPAT')
NUMPY_LACKS_BOOL = 'bool' not in vars(numpy)
# An installed d2l has put a hook into Python's start (src/import_hook.py).
WITHOUT_HOOK = ('import sys; sys.meta_path[:] = [finder for finder in sys.meta_path '
                "if type(finder).__name__ != 'D2LFirst']\n")

STAND_IN = {
    'mxnet/__init__.py': '''
        from . import base
        from . import util
        __version__ = '1.9.1'
    ''',
    'mxnet/base.py': '''
        import numpy as np
        def later():
            return np.bool
    ''',
    'mxnet/util.py': '''
        import numpy as np
        import numpy.random as rnd
        from numpy import bool as from_import
        import outsider
        bool_type = np.bool
        def later():
            import numpy
            return numpy.float
    ''',
    'mxnet/contrib.py': '''
        import numpy as np
        int_type = np.int
    ''',
    'gluoncv.py': '''
        import numpy as np
        float_type = np.float
    ''',
    'outsider.py': '''
        import numpy as np
        has_bool = 'bool' in vars(np)
    ''',
}


class Site:
    """A folder of modules, and fresh Python processes that see it before everything else."""

    def __init__(self, folder):
        self.folder = folder

    def write(self, files):
        for name, text in files.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(text))
        return self

    def run(self, code, *options, path=(ROOT,), **variables):
        """What ``code`` prints, stripped, and its standard error."""
        environ = {name: value for name, value in os.environ.items() if name not in OURS}
        code = WITHOUT_HOOK + textwrap.dedent(code)
        environ.update(variables, PYTHONWARNINGS='default::RuntimeWarning',
                       PYTHONPATH=os.pathsep.join(map(str, (self.folder,) + tuple(path))))
        done = subprocess.run([sys.executable, *options, '-c', code], text=True,
                              capture_output=True, env=environ, cwd=str(self.folder), timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip(), done.stderr
