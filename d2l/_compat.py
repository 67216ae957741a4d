"""Everything that has to happen before ``import mxnet``, in one place.

MXNet 1.9.1 was built before today's NumPy and today's processors.  ``prepare()`` puts a finder in
front of ``sys.meta_path``; it costs next to nothing and imports neither MXNet nor NumPy.  When
MXNet is really imported, the finder

* shows MXNet's modules (and those of gluoncv and gluonnlp) the NumPy names that NumPy has removed
  since, and leaves the NumPy of everybody else as it is (see ``_numpy_names.py``);
* lets MXNet use all the cores this process may use (its own choice is half the processors);
* moves the bundled OpenBLAS off kernels without AVX, on processors that it does not know;
* hands matrix products to a newer OpenBLAS, where one is installed (see ``_blas.py``);
* keeps the memory of large arrays in the process (see ``_malloc.py``);
* sets ``MXNET_EXEC_INPLACE_GRAD_SUM_CAP``, without which static graphs with a tensor that feeds
  nine or more extension operators compute wrong gradients;
* explains a missing, doubled, shadowed or different MXNet.

Variables: ``D2L_COMPAT=0`` switches all of this off.  What the user has set always wins:
``OMP_NUM_THREADS`` (also rules forked workers) or ``MXNET_OMP_MAX_THREADS`` (they keep to one
thread), ``OPENBLAS_CORETYPE`` (rules every OpenBLAS), ``MXNET_EXEC_INPLACE_GRAD_SUM_CAP``,
``D2L_BLAS``, ``D2L_MALLOC``.  ``report()`` tells what was done.
"""
import os
import sys
import warnings

MXNET_VERSION = '1.9.1'
DISTRIBUTION = 'd2l-gluon'
INSTALL_HINT = (f'pip install mxnet=={MXNET_VERSION} for a machine without a GPU, '
                f'mxnet-cu112=={MXNET_VERSION} or its like for one with CUDA 11.2')

_PACKAGES = ('mxnet', 'gluoncv', 'gluonnlp')
GRAD_SUM_CAP = 'MXNET_EXEC_INPLACE_GRAD_SUM_CAP'
_THREAD_VARIABLES = ('OMP_NUM_THREADS', 'MXNET_OMP_MAX_THREADS')
_CORE_VARIABLE = 'OPENBLAS_CORETYPE'
_HERE = os.path.dirname(os.path.abspath(__file__))
_NUMPY_NAMES = 'd2l._numpy_names'

_report = {'enabled': True, 'prepared': False, 'mxnet_imported': None, 'numpy': None,
           'threads': None, 'blas': None, 'products': None, 'malloc': None,
           'grad_sum_cap': None, 'warnings': []}


def prepare():
    """Make the ``import mxnet`` that follows work well.  A second call does nothing."""
    if os.environ.get('D2L_COMPAT') == '0':
        _report['enabled'] = False
        return
    if any(getattr(finder, 'is_d2l_compat', False) for finder in sys.meta_path):
        return
    sys.meta_path.insert(0, _Finder())
    _report['prepared'] = True
    others = other_d2l(os.path.dirname(_HERE))
    if others:
        _warn(double_d2l_text(others))
    if 'mxnet.base' in sys.modules:
        _report['mxnet_imported'] = 'before d2l'
        _set_grad_sum_cap()
        _keep_large_blocks()
        _redirect_products()
        _warn_what_is_lost()
        if hasattr(sys.modules.get('mxnet'), '__version__'):
            _warn_of_version(sys.modules['mxnet'])


def report():
    """What was done, as a dict of plain values (see the keys in ``d2l env --json``)."""
    import copy
    return copy.deepcopy(_report)


def _warn(message):
    _report['warnings'].append(message)
    warnings.warn(message, RuntimeWarning, stacklevel=3)


# --- The finder: where the import of MXNet is met -------------------------------------------------

class _Finder:
    """Asks the other finders for the modules of MXNet and its kin, and wraps how they are run."""

    is_d2l_compat = True

    def find_spec(self, fullname, path=None, target=None):
        if fullname.partition('.')[0] not in _PACKAGES:
            return None
        spec = None
        for finder in sys.meta_path:
            find_spec = None if finder is self else getattr(finder, 'find_spec', None)
            spec = find_spec and find_spec(fullname, path, target)
            if spec is not None:
                break
        if fullname == 'mxnet':
            _explain_absence(spec)
        if spec is not None:
            _wrap(spec)
        return spec


def _wrap(spec):
    """Let ``spec`` run its module through one of the two functions below.

    The attribute goes on this one loader, which importlib made for this one module, so the
    loader keeps its type: inspect, pkgutil and importlib.resources notice nothing.
    """
    from importlib import machinery
    kinds = (machinery.SourceFileLoader, machinery.SourcelessFileLoader)
    if isinstance(spec.loader, kinds):
        run, wrapped = spec.loader.exec_module, _run_mxnet if spec.name == 'mxnet' else _run_scoped
        spec.loader.exec_module = lambda module: wrapped(run, module)


def _run_scoped(run, module):
    scoped = _scoped_builtins()
    if scoped is not None:
        module.__dict__['__builtins__'] = scoped
    run(module)
    if scoped is not None:
        _scoped_builtins.module.mend(module)


def _run_mxnet(run, module):
    folder = os.path.dirname(os.path.abspath(module.__file__))
    _require_distutils()
    _warn_if_doubled(folder)
    _set_grad_sum_cap()
    _keep_large_blocks()
    loaded = 'mxnet.base' in sys.modules
    if loaded and not hasattr(module, 'base'):
        # What an import that failed half-way has left behind still refers to the bare NumPy.
        for name in [name for name in sys.modules if name.startswith('mxnet.')]:
            del sys.modules[name]
    if loaded:
        _run_scoped(run, module)
    else:
        _choose_blas_core(folder)
        threads = _choose_threads()
        try:
            _run_scoped(run, module)
        finally:
            if threads['set_by'] == 'd2l':
                os.environ.pop(threads['variable'], None)
        _report['mxnet_imported'] = 'after d2l'
    _redirect_products()
    _warn_of_version(module)


# --- Explanations ---------------------------------------------------------------------------------

def _explain_absence(spec):
    """Raise a helpful ImportError if a module of d2l is about to fail in ``import mxnet``."""
    origin = getattr(spec, 'origin', None)
    if spec is not None and spec.loader is not None and origin not in (None, 'namespace'):
        if os.path.dirname(os.path.abspath(origin)) == _HERE and _importing_module():
            raise ImportError(f'`import mxnet` found {origin}, a module of d2l, because the folder '
                              f'{_HERE} is on sys.path. Start the program from another folder: '
                              '`python -m d2l.NAME` instead of `python d2l/NAME.py`',
                              name='mxnet', path=origin)
        return
    importer = _importing_module()
    if importer is None or importer.partition('.')[0] != 'd2l':
        return
    if spec is None:
        raise ModuleNotFoundError(f'd2l needs MXNet {MXNET_VERSION}, which is not installed. '
                                  f'{INSTALL_HINT}', name='mxnet')
    where = ', '.join(spec.submodule_search_locations or ())
    raise ImportError(f'MXNet is broken: {where} has no __init__.py. Probably one MXNet was '
                      'uninstalled from under another. Remove the folder, then: '
                      f'{INSTALL_HINT}', name='mxnet', path=where)


def _importing_module():
    """The name of the module whose import statement is being served; None for a mere probe.

    ``importlib.util.find_spec('mxnet')`` must keep answering None, so only the path through
    ``_find_and_load_unlocked`` counts.  Frames of d2l's own are passed over: import statements of
    gluoncv, say, run through a function of ``_numpy_names.py``.
    """
    frame = sys._getframe(1)
    loading = False
    while frame is not None:
        name = frame.f_globals.get('__name__', '')
        if name.startswith(('importlib', '_frozen_importlib', 'd2l_import_hook')):
            loading = loading or frame.f_code.co_name == '_find_and_load_unlocked'
        elif name not in (__name__, _NUMPY_NAMES):
            return name if loading else None
        frame = frame.f_back
    return None


def _require_distutils():
    from importlib.util import find_spec
    if sys.version_info >= (3, 12) and find_spec('distutils') is None:
        try:
            import setuptools  # noqa: F401  supplies distutils where its .pth file was not read
        except ImportError:
            pass
        if find_spec('distutils') is None:
            raise ModuleNotFoundError(
                'MXNet imports distutils, which Python 3.12 has removed; setuptools supplies it: '
                "pip install 'setuptools<81'", name='distutils')


def mxnet_distributions(folder):
    """['mxnet 1.9.1', ...]: the distributions of MXNet recorded in a site-packages folder.

    The folder is listed instead of asking importlib.metadata: only those beside the package can
    have written into it, and a listing takes a hundredth of the time.
    """
    return _distributions(folder, ('mxnet', 'mxnet-mkl', 'mxnet-native', 'mxnet-cu'))


def other_d2l(folder):
    """The distributions called plain ``d2l`` (the book's own package) recorded in a folder."""
    return _distributions(folder, ('d2l',))


def _distributions(folder, names):
    found = set()
    for entry in os.listdir(folder) if os.path.isdir(folder) else ():
        stem, extension = os.path.splitext(entry)
        name, _, version = stem.replace('_', '-').rpartition('-')
        if extension == '.dist-info' and name.lower().rstrip('0123456789') in names:
            found.add(f'{name} {version}')
    return sorted(found)


def double_d2l_text(others):
    return (f'{", ".join(others)} is installed in the same place as {DISTRIBUTION}, {_HERE}: files '
            'of one have replaced files of the other. Repair: '
            f'pip uninstall -y d2l {DISTRIBUTION}, then install {DISTRIBUTION} again')


def _warn_if_doubled(folder):
    names = mxnet_distributions(os.path.dirname(folder))
    if len(names) > 1:
        bare = ' '.join(name.split()[0] for name in names)
        _warn(f'{len(names)} distributions of MXNet share {folder}: {", ".join(names)}. Files of '
              f'one replace files of the other. Repair: pip uninstall -y {bare}, then install one: '
              f'{INSTALL_HINT}')


def _warn_of_version(mxnet):
    version = getattr(mxnet, '__version__', 'without a version')
    if version != MXNET_VERSION:
        _warn(f'd2l is made for MXNet {MXNET_VERSION} and found MXNet {version} in '
              f'{os.path.dirname(mxnet.__file__)}: its operators will not load. {INSTALL_HINT}')


def _warn_what_is_lost():
    """MXNet's library is loaded: name what can no longer be chosen in this process."""
    lost = []
    cores, default = usable_cores(), max(len(allowed_processors()) // 2, 1)
    if cores > default and not any(name in os.environ for name in _THREAD_VARIABLES):
        lost.append(f'threads: MXNet uses {default} where {cores} cores are free to use')
    core = loaded_openblas_core()
    if core not in (None, *AVX_CORES) and processor_flags() >= AVX2:
        lost.append(f'the BLAS kernel: OpenBLAS runs {core}, without AVX, several times slower')
    if lost:
        _warn(f'mxnet was imported before d2l, too late to choose {"; and ".join(lost)}. Put '
              '`import d2l` before the first import of mxnet')


# --- NumPy's removed names ------------------------------------------------------------------------

def _scoped_builtins():
    """The builtins of MXNet's modules, or None if this NumPy has every name."""
    if _report['numpy'] is None:
        try:
            import numpy
        except ImportError:
            return None
        module = _scoped_builtins.module = _names_module()
        names = module.removed_names(numpy)
        _scoped_builtins.value = module.builtins_with(numpy, names) if names else None
        _report['numpy'] = {'version': numpy.__version__, 'names': sorted(names)}
    return _scoped_builtins.value


def _names_module():
    """The module beside this one, also where this one is run without the package around it."""
    if __package__:
        from d2l import _numpy_names
        return _numpy_names
    from importlib import util
    path = os.path.join(_HERE, '_numpy_names.py')
    spec = util.spec_from_file_location(_NUMPY_NAMES, path)
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# --- Threads --------------------------------------------------------------------------------------

def _choose_threads():
    """Tell libmxnet, which reads the variable while it is loaded, to use every usable core.

    MXNET_OMP_MAX_THREADS and not OMP_NUM_THREADS: with the latter MXNet keeps all threads in
    forked DataLoader workers, which is slow and can hang in libgomp; with the former they keep
    to one.  The caller takes the variable away after the import, for a child process may be bound
    to other cores and has to count for itself.
    """
    user = next((name for name in _THREAD_VARIABLES if name in os.environ), None)
    variable = user or 'MXNET_OMP_MAX_THREADS'
    cores = usable_cores()
    value = os.environ.setdefault(variable, str(cores))
    _report['threads'] = {'usable_cores': cores, 'set_by': 'user' if user else 'd2l',
                          'variable': variable, 'value': value}
    return _report['threads']


def _set_grad_sum_cap():
    # MXNet reads it at the first backward pass, so it has to stay set.
    if _report['grad_sum_cap'] is None:
        user = GRAD_SUM_CAP in os.environ
        value = os.environ.setdefault(GRAD_SUM_CAP, '100000')
        _report['grad_sum_cap'] = {'value': value, 'set_by': 'user' if user else 'd2l'}


def _keep_large_blocks():
    # This file also works without the package around it.
    if __package__ and _report['malloc'] is None:
        from d2l import _malloc
        _report['malloc'] = _malloc.keep_large_blocks()


def usable_cores(root='/'):
    """How many cores this process can keep busy, at least 1.

    The smallest of: the physical cores among the processors it may run on (two hyper-threads of a
    core share its multipliers, so a second thread there adds waiting but no speed), and the
    whole processors its control groups grant (threads beyond that wait for each other at every
    barrier).  ``root`` is the file system's root, another one in tests.
    """
    siblings = os.path.join(root, 'sys/devices/system/cpu/cpu{}/topology/thread_siblings_list')
    cores = {_read(siblings.format(number)) or number for number in allowed_processors()}
    quota = _cgroup_quota(root)
    return max(1, len(cores) if quota is None else min(len(cores), int(quota)))


def allowed_processors():
    """The processors this process may run on; all, where the system cannot say."""
    if hasattr(os, 'sched_getaffinity'):
        return os.sched_getaffinity(0)
    return range(os.cpu_count() or 1)


def _cgroup_quota(root):
    """Processors granted by the control groups of this process, version 1 or 2, or None."""
    quotas = []
    for line in _read(os.path.join(root, 'proc/self/cgroup')).splitlines():
        _, controllers, path = line.split(':', 2)
        if controllers and 'cpu' not in controllers.split(','):
            continue
        # The limit of any ancestor holds.  In a container the path may be the host's while the
        # mount shows the container's own group: folders that are not there are passed over.
        parts = [part for part in path.split('/') if part]
        for mount in ('cpu', controllers) if controllers else ('', 'unified'):
            quotas += [_quota(os.path.join(root, 'sys/fs/cgroup', mount, *parts[:depth]))
                       for depth in range(len(parts) + 1)]
    return min((quota for quota in quotas if quota), default=None)


def _quota(folder):
    """Version 2 has 'max 100000' or '150000 100000' in one file, version 1 (-1 or more) in two."""
    words = _read(os.path.join(folder, 'cpu.max')).split() or [
        _read(os.path.join(folder, f'cpu.cfs_{name}_us')) for name in ('quota', 'period')]
    numbers = [int(word) for word in words if word.isdigit()]
    return numbers[0] / numbers[1] if len(numbers) == 2 and numbers[1] else None


def _read(path):
    try:
        with open(path) as file:
            return file.read().strip()
    except (OSError, ValueError):
        return ''


# --- BLAS -----------------------------------------------------------------------------------------
#
# The OpenBLAS 0.3.13 that comes with MXNet knows the processors of its time.  Zen 5 gets its
# Barcelona kernels; Tiger, Rocket, Alder and Raptor Lake and Sapphire, Emerald and Granite
# Rapids get Prescott's: SSE3, where AVX2 would do two to four times as much.  OPENBLAS_CORETYPE
# overrules it, but also every other OpenBLAS, and slows a modern one down.  So: load the library
# (10 ms), ask what it chose, and only if that is a kernel without AVX on a processor with AVX2,
# unload it and load it again while the variable is set.  libmxnet then finds it loaded.

_OPENBLAS = 'libopenblas.so.0'
AVX2 = {'avx2', 'fma'}
AVX_CORES = ('Sandybridge', 'Bulldozer', 'Piledriver', 'Steamroller', 'Excavator', 'Haswell',
              'Zen', 'SkylakeX', 'Cooperlake')


def _choose_blas_core(folder):
    """Load the OpenBLAS of MXNet in ``folder`` with the right kernels."""
    user = _CORE_VARIABLE in os.environ
    # A library of this name that is loaded already is the one that libmxnet will use.
    loaded = loaded_openblas_core()
    blas = _report['blas'] = {'detected': None, 'core': loaded,
                              'set_by': 'user' if user else 'openblas'}
    path = os.path.join(os.path.dirname(os.environ.get('MXNET_LIBRARY_PATH', '')) or folder,
                        _OPENBLAS)
    if user or loaded or not os.path.isfile(path):
        return
    import _ctypes
    import ctypes
    try:
        library = ctypes.CDLL(path)
    except OSError:
        return  # libmxnet will fail for the same reason, with MXNet's own message
    blas['core'] = blas['detected'] = _core_of(library)
    if blas['core'] in (None, *AVX_CORES) or not processor_flags() >= AVX2:
        return
    _ctypes.dlclose(library._handle)
    os.environ[_CORE_VARIABLE] = 'Haswell'
    try:
        blas['core'] = _core_of(ctypes.CDLL(path))
    finally:
        del os.environ[_CORE_VARIABLE]
    if blas['core'] != blas['detected']:
        blas['set_by'] = 'd2l'


def _redirect_products():
    library = getattr(sys.modules['mxnet.base'], '_LIB', None)
    if library is None or not __package__ or _report['products'] is not None:
        return
    from d2l import _blas
    _report['products'] = _blas.redirect(library)
    if _report['products']['warning']:
        _warn(_report['products']['warning'])


def loaded_openblas_core():
    """The kernel family of the loaded library that MXNet calls; None if none is loaded."""
    import ctypes
    try:
        return _core_of(ctypes.CDLL(_OPENBLAS, mode=os.RTLD_NOLOAD | os.RTLD_LAZY))
    except OSError:
        return None


def _core_of(library):
    import ctypes
    corename = getattr(library, 'openblas_get_corename', None)
    if corename is None:
        return None
    corename.restype = ctypes.c_char_p
    return corename().decode()


def processor_flags(path='/proc/cpuinfo'):
    """The instruction sets of the processor as Linux names them; empty where it does not say."""
    try:
        with open(path) as file:
            return set(next((line.split() for line in file if line.startswith('flags')), ()))
    except OSError:
        return set()
