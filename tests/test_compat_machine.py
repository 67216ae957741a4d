"""What d2l/_compat.py chooses for the machine: threads, BLAS kernel, the cap on gradient sums.

Fresh processes import a small stand-in for MXNet; libopenblas.so.0 is a few lines of C.
"""
import functools
import shutil
import subprocess

import pytest

from d2l import _compat
from tests.stand_in import Site


@pytest.fixture
def site(tmp_path):
    """With an MXNet that notes the environment in which its library is loaded."""
    return Site(tmp_path).write({'mxnet/__init__.py': """
        from . import base
        __version__ = '1.9.1'
    """, 'mxnet/base.py': """
        import ctypes, os
        threads = os.environ.get('MXNET_OMP_MAX_THREADS')
        coretype = os.environ.get('OPENBLAS_CORETYPE')
        blas = os.path.join(os.path.dirname(__file__), 'libopenblas.so.0')
        if os.path.exists(blas):
            ctypes.CDLL(blas)
    """})


@pytest.fixture(scope='module')
def openblas(tmp_path_factory):
    """Compiles a libopenblas.so.0 that chooses ``core`` by itself and obeys the variable."""
    compiler = shutil.which('g++') or shutil.which('cc')
    if compiler is None:
        pytest.skip('no compiler')

    @functools.lru_cache(maxsize=None)
    def build(core):
        folder = tmp_path_factory.mktemp('openblas')
        (folder / 'blas.c').write_text('''
            #include <stdlib.h>
            #include <string.h>
            static char core[32];
            __attribute__((constructor)) static void choose(void) {
                const char *wish = getenv("OPENBLAS_CORETYPE");
                strncpy(core, wish ? wish : "%s", 31);
            }
            char *openblas_get_corename(void) { return core; }
        ''' % core)
        library = folder / 'libopenblas.so.0'
        subprocess.check_call([compiler, '-x', 'c', '-shared', '-fPIC', '-Wl,-soname,' +
                               library.name, '-o', str(library), str(folder / 'blas.c')])
        return library
    return build


# --- Threads --------------------------------------------------------------------------------------

THREADS = '''
    import os, d2l, mxnet
    print(mxnet.base.threads, os.environ.get('MXNET_OMP_MAX_THREADS'),
          d2l._compat.report()['threads']['set_by'], os.environ.get('OMP_NUM_THREADS'))
'''


def test_threads_are_set_for_the_import_only(site):
    cores = _compat.usable_cores()
    assert site.run(THREADS)[0] == f'{cores} None d2l None'


def test_threads_that_the_user_chose(site):
    assert site.run(THREADS, OMP_NUM_THREADS='7')[0] == 'None None user 7'
    assert site.run(THREADS, MXNET_OMP_MAX_THREADS='7')[0] == '7 7 user None'


def test_thread_variable_goes_away_after_a_failed_import(site):
    site.write({'mxnet/__init__.py': 'raise OSError("libcudart.so.10.1: cannot open")'})
    out, _ = site.run('''
        import os, d2l
        try:
            import mxnet
        except OSError as error:
            print(error, os.environ.get('MXNET_OMP_MAX_THREADS'))
    ''')
    assert out == 'libcudart.so.10.1: cannot open None'


def machine(root, siblings=None, files=None):
    """A file system that describes processors and control groups."""
    for number, text in (siblings or {}).items():
        path = root / f'sys/devices/system/cpu/cpu{number}/topology/thread_siblings_list'
        path.parent.mkdir(parents=True)
        path.write_text(text + '\n')
    for name, text in (files or {}).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text + '\n')
    return str(root)


@pytest.mark.parametrize('allowed, siblings, cores', [
    ({0, 1, 2, 3}, {}, 4),                                                     # nothing is known
    ({0, 1, 2, 3}, {0: '0', 1: '1', 2: '2', 3: '3'}, 4),
    ({0, 1, 2, 3}, {0: '0,2', 1: '1,3', 2: '0,2', 3: '1,3'}, 2),               # hyper-threads
    ({0, 2}, {0: '0,2', 1: '1,3', 2: '0,2', 3: '1,3'}, 1),                     # one core's two
    ({0, 1}, {0: '0,2', 1: '1,3', 2: '0,2', 3: '1,3'}, 2),
    ({3}, {3: '1,3'}, 1),
])
def test_physical_cores_of_the_allowed_processors(tmp_path, monkeypatch, allowed, siblings, cores):
    monkeypatch.setattr(_compat, 'allowed_processors', lambda: allowed)
    assert _compat.usable_cores(machine(tmp_path, siblings)) == cores


V1 = '4:memory:/m\n3:cpu,cpuacct:/docker/abc'


@pytest.mark.parametrize('files, cores', [
    ({'proc/self/cgroup': '0::/', 'sys/fs/cgroup/cpu.max': 'max 100000'}, 8),
    ({'proc/self/cgroup': '0::/', 'sys/fs/cgroup/cpu.max': '300000 100000'}, 3),
    ({'proc/self/cgroup': '0::/', 'sys/fs/cgroup/cpu.max': '350000 100000'}, 3),
    ({'proc/self/cgroup': '0::/', 'sys/fs/cgroup/cpu.max': '50000 100000'}, 1),
    ({'proc/self/cgroup': '0::/a/b', 'sys/fs/cgroup/a/cpu.max': '200000 100000',
      'sys/fs/cgroup/a/b/cpu.max': 'max 100000'}, 2),                         # the parent's limit
    ({'proc/self/cgroup': '0::/a', 'sys/fs/cgroup/b/cpu.max': '100000 100000'}, 8),
    ({'proc/self/cgroup': '1:cpu:/\n0::/', 'sys/fs/cgroup/unified/cpu.max': '100000 100000'}, 1),
    ({'proc/self/cgroup': V1, 'sys/fs/cgroup/cpu/docker/abc/cpu.cfs_quota_us': '400000',
      'sys/fs/cgroup/cpu/docker/abc/cpu.cfs_period_us': '100000'}, 4),
    ({'proc/self/cgroup': V1, 'sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us': '400000',
      'sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us': '200000'}, 2),           # a container's root
    ({'proc/self/cgroup': V1, 'sys/fs/cgroup/cpu/cpu.cfs_quota_us': '-1',
      'sys/fs/cgroup/cpu/cpu.cfs_period_us': '100000'}, 8),
    ({'proc/self/cgroup': '0::/', 'sys/fs/cgroup/cpu.max': '900000 100000'}, 8),
    ({'proc/self/cgroup': '0::/', 'sys/fs/cgroup/cpu.max': 'nonsense'}, 8),
    ({}, 8),
])
def test_quota_of_control_groups(tmp_path, monkeypatch, files, cores):
    monkeypatch.setattr(_compat, 'allowed_processors', lambda: set(range(8)))
    assert _compat.usable_cores(machine(tmp_path, files=files)) == cores


def test_affinity_of_this_process_is_respected(site):
    code = 'import os, d2l; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); '
    assert site.run(code + 'print(d2l._compat.usable_cores())')[0] == '1'


# --- The gradient cap -----------------------------------------------------------------------------

@pytest.mark.parametrize('chosen, value', [({}, '100000'),
                                           ({'MXNET_EXEC_INPLACE_GRAD_SUM_CAP': '4'}, '4')])
def test_gradient_cap_stays_set(site, chosen, value):
    out, _ = site.run('''
        import os, d2l
        before = os.environ.get('MXNET_EXEC_INPLACE_GRAD_SUM_CAP')
        import mxnet
        print(before, os.environ.get('MXNET_EXEC_INPLACE_GRAD_SUM_CAP'),
              d2l._compat.report()['grad_sum_cap']['set_by'])
    ''', **chosen)
    assert out == (f'{value} {value} user' if chosen else f'None {value} d2l')


# --- BLAS -----------------------------------------------------------------------------------------

BLAS = '''
    import os, d2l
    flags = {flags}
    d2l._compat.processor_flags = lambda: flags
    {first}
    import mxnet
    blas = d2l._compat.report()['blas']
    print(d2l._compat.loaded_openblas_core(), blas['detected'], blas['core'], blas['set_by'],
          mxnet.base.coretype, os.environ.get('OPENBLAS_CORETYPE'))
'''


@pytest.mark.parametrize('core, flags, variables, expected', [
    ('Prescott', {'avx2', 'fma'}, {}, 'Haswell Prescott Haswell d2l None None'),
    ('Barcelona', {'avx2', 'fma'}, {}, 'Haswell Barcelona Haswell d2l None None'),
    ('Zen', {'avx2', 'fma'}, {}, 'Zen Zen Zen openblas None None'),
    ('Prescott', {'avx'}, {}, 'Prescott Prescott Prescott openblas None None'),
    ('Prescott', {'avx2', 'fma'}, {'OPENBLAS_CORETYPE': 'Nehalem'},
     'Nehalem None None user Nehalem Nehalem'),
])
def test_blas_kernel(site, openblas, core, flags, variables, expected):
    shutil.copy(str(openblas(core)), str(site.folder / 'mxnet'))
    assert site.run(BLAS.format(flags=flags, first=''), **variables)[0] == expected


def test_blas_that_is_loaded_already_is_left_alone(site, openblas):
    """An OpenBLAS of the same name, from LD_PRELOAD for example, is what libmxnet will use."""
    shutil.copy(str(openblas('Zen')), str(site.folder / 'mxnet'))
    first = f'import ctypes; ctypes.CDLL({str(openblas("Prescott"))!r})'
    out, _ = site.run(BLAS.format(flags={'avx2', 'fma'}, first=first))
    assert out == 'Prescott None Prescott openblas None None'


def test_no_blas_beside_mxnet(site):
    out, _ = site.run(BLAS.format(flags={'avx2', 'fma'}, first=''))
    assert out == 'None None None openblas None None'


def test_processor_flags(tmp_path):
    path = tmp_path / 'cpuinfo'
    path.write_text('processor : 0\nflags\t\t: fpu avx2 fma\n\nprocessor : 1\nflags : none\n')
    assert {'avx2', 'fma'} <= _compat.processor_flags(str(path))
    assert 'none' not in _compat.processor_flags(str(path))
    assert _compat.processor_flags(str(tmp_path / 'absent')) == set()


@pytest.mark.parametrize('core, lost', [('Barcelona', True), ('Haswell', False)])
def test_names_a_blas_kernel_that_is_lost(site, openblas, core, lost):
    if not _compat.processor_flags() >= {'avx2', 'fma'}:
        pytest.skip('a processor without AVX2 loses nothing')
    load = f'import ctypes; ctypes.CDLL({str(openblas(core))!r})'
    _, err = site.run(f'import mxnet; {load}; import d2l', OMP_NUM_THREADS='4')
    assert (f'OpenBLAS runs {core}' in err) == lost


@pytest.mark.skipif(_compat.usable_cores() < 2, reason='needs two cores')
def test_real_mxnet_uses_every_core(tmp_path):
    """The first product starts OpenMP's helper threads; on two processors MXNet alone has none."""
    out, _ = Site(tmp_path).run('''
        import os, d2l
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
        import mxnet as mx
        mx.nd.ones((1,)).wait_to_read()
        before = len(os.listdir('/proc/self/task'))
        a = mx.nd.ones((512, 512))
        mx.nd.dot(a, a).wait_to_read()
        print(len(os.listdir('/proc/self/task')) - before, d2l._compat.usable_cores())
    ''')
    helpers, cores = map(int, out.split())
    assert helpers == cores - 1
