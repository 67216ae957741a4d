"""Hands MXNet's matrix products to a newer OpenBLAS than its own.

The OpenBLAS 0.3.13 in MXNet's wheels has no kernels for AVX-512.  PyPI's ``scipy-openblas32``
carries a current one; where it is installed, ``libd2l_blas.so`` (src/blas) redirects the products
that libmxnet calls to it: cblas_[sdcz]gemm, cblas_[sd]syrk and cblas_[sd]trmm.  Everything else,
such as solves, decompositions and inner products, stays with MXNet's OpenBLAS and its threads
(see src/blas/blas.cc).  The calls of other libraries, NumPy's for example, are not touched.

The threads are MXNet's, as many as it may use: OMP_NUM_THREADS and MXNET_OMP_MAX_THREADS hold,
and OPENBLAS_NUM_THREADS, which MXNet's own OpenBLAS overlooks, can lower their number.
``D2L_BLAS=bundled`` leaves the products where they were; ``D2L_BLAS=modern`` is the default and
says that a warning is wanted where it is not possible.
"""
import ctypes
import glob
import os
from importlib import util

VARIABLE = 'D2L_BLAS'
PACKAGE = 'scipy-openblas32'
LIBRARY = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'ops', 'libd2l_blas.so')

_THREADS_VARIABLE = 'OPENBLAS_NUM_THREADS'
_MAX_THREADS = 64


def redirect(mxnet_library):
    """Redirect the products of a loaded libmxnet, a ``ctypes.CDLL``, where that is possible.

    Returns what ``d2l env`` shows, a dict: ``products``, 'modern' or 'bundled'; ``set_by``, 'user'
    or 'd2l'; ``why_bundled``, a text or None; ``warning``, a text that the user should see or None;
    and of the other OpenBLAS, or None, its ``path``, ``core`` (the kernels in use), ``config``
    and the ``functions`` that go to it.  A second call does nothing new.
    """
    wish = os.environ.get(VARIABLE) or None
    report = {'products': 'bundled', 'set_by': 'user' if wish else 'd2l', 'why_bundled': None,
              'warning': None, 'path': None, 'core': None, 'config': None, 'functions': None}
    if wish == 'bundled':
        report['why_bundled'] = f'{VARIABLE}=bundled'
        return report
    if wish not in (None, 'modern'):
        report['warning'] = f"{VARIABLE} must be 'modern' or 'bundled', got {wish!r}"
    path = find_library()
    report['why_bundled'] = problem = _redirect(mxnet_library, path)
    if problem is None:
        report.update(products='modern', path=path, functions=functions(), **_facts(path))
    elif wish == 'modern':
        report['warning'] = (f"{VARIABLE}=modern is set, but MXNet's matrix products stay with its "
                             f'own OpenBLAS: {problem}')
    return report


def find_library():
    """The path of the OpenBLAS of scipy-openblas32; None where the package is not installed.

    Its module is not imported: that would give all of its names to every library in the process.
    """
    spec = util.find_spec('scipy_openblas32')
    for folder in (spec and spec.submodule_search_locations) or ():
        for path in sorted(glob.glob(os.path.join(folder, 'lib', 'libscipy_openblas*.so'))):
            return path
    return None


def functions():
    """The sorted names of libmxnet's imports that now go to the other OpenBLAS."""
    library = _open_own()
    found, name = [], library and library.d2l_blas_bound(0)
    while name:
        found.append(name.decode())
        name = library.d2l_blas_bound(len(found))
    return sorted(found)


def restore():
    """Give the products back to MXNet's own OpenBLAS.  ``redirect`` takes them again."""
    library = _open_own()
    if library is not None:
        library.d2l_blas_unbind()


def _open_own():
    if not os.path.isfile(LIBRARY):
        return None
    library = ctypes.CDLL(LIBRARY)
    for name in ('d2l_blas_open', 'd2l_blas_bind', 'd2l_blas_bound'):
        getattr(library, name).restype = ctypes.c_char_p
    library.d2l_blas_unbind.restype = None
    return library


def _redirect(mxnet_library, path):
    """What stands in the way, or None if the products are redirected."""
    if path is None:
        return f'{PACKAGE} is not installed'
    try:
        library = _open_own()
    except (OSError, AttributeError) as error:
        return f'{LIBRARY} cannot be loaded: {error}'
    if library is None:
        return f'{LIBRARY} is not built'
    threads = os.environ.get(_THREADS_VARIABLE, '')
    if threads.isdigit() and int(threads) > 0:
        library.d2l_blas_set_max_threads(min(int(threads), _MAX_THREADS))
    problem = _open_other(library, path)
    problem = problem or library.d2l_blas_bind(ctypes.c_void_p(mxnet_library._handle))
    return problem and problem.decode()


def _open_other(library, path):
    """Load the other OpenBLAS without threads of its own: those of MXNet call it."""
    before = os.environ.get(_THREADS_VARIABLE)
    os.environ[_THREADS_VARIABLE] = '1'
    try:
        return library.d2l_blas_open(path.encode())
    finally:
        if before is None:
            del os.environ[_THREADS_VARIABLE]
        else:
            os.environ[_THREADS_VARIABLE] = before


def _facts(path):
    library = ctypes.CDLL(path)
    facts = {}
    for key in ('core', 'config'):
        function = getattr(library, f'scipy_openblas_get_{key}{"name" if key == "core" else ""}')
        function.restype = ctypes.c_char_p
        facts[key] = function().decode()
    return facts
