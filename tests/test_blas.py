"""Both sides of every condition in d2l/_blas.py, mostly in fresh processes with a fake OpenBLAS.

The fake's products are all sevens, so that a result tells which library has computed it.  What
the real one computes is in test_blas_products.py.
"""
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from d2l import _blas

ROOT = Path(__file__).resolve().parents[1]
NAMES = [f'cblas_{name}' for name in ('cgemm', 'dgemm', 'dsyrk', 'dtrmm', 'sgemm', 'ssyrk',
                                      'strmm', 'zgemm')]
FAKE = '''
    #include <stdlib.h>
    int calls = 0;
    void scipy_cblas_sgemm(int order, int ta, int tb, int m, int n, int k, float alpha,
                           const float* a, int lda, const float* b, int ldb, float beta, float* c,
                           int ldc) {
        __atomic_fetch_add(&calls, 1, __ATOMIC_RELAXED);
        int rows = order == 101 ? m : n, columns = order == 101 ? n : m;
        for (int i = 0; i < rows; ++i) for (int j = 0; j < columns; ++j) c[i * ldc + j] = 7;
    }
    void scipy_cblas_dgemm() {}  void scipy_cblas_cgemm() {}  void scipy_cblas_zgemm() {}
    void scipy_cblas_ssyrk() {}  void scipy_cblas_dsyrk() {}  void scipy_cblas_strmm() {}
    #ifndef LACKS_DTRMM
    void scipy_cblas_dtrmm() {}
    #endif
    static int threads;
    __attribute__((constructor)) static void load(void) {
        const char* wish = getenv("OPENBLAS_NUM_THREADS");
        threads = wish ? atoi(wish) : 2;
    }
    int scipy_openblas_get_num_threads(void) { return threads; }
    char* scipy_openblas_get_corename(void) { return "Fake"; }
    char* scipy_openblas_get_config(void) { return "OpenBLAS 9 Fake"; }
'''
# A library that calls a BLAS, as libmxnet does, and that BLAS, whose products are all ones.
CALLER = '''
    void cblas_sgemm(int, int, int, int, int, int, float, const float*, int, const float*, int,
                     float, float*, int);
    float product(void) {
        float a = 3, b = 5, c = 0;
        cblas_sgemm(101, 111, 111, 1, 1, 1, 1, &a, 1, &b, 1, 0, &c, 1);
        return c;
    }
'''
BUNDLED = '''
    void cblas_sgemm(int order, int ta, int tb, int m, int n, int k, float alpha, const float* a,
                     int lda, const float* b, int ldb, float beta, float* c, int ldc) { *c = 1; }
'''
# redirect() of a caller that has computed a product before, as libmxnet may have.
REDIRECT = '''
    import ctypes, os, sys
    from d2l import _blas
    caller = ctypes.CDLL({caller!r})
    caller.product.restype = ctypes.c_float
    before = caller.product()
    {first}
    environment = dict(os.environ)
    report = _blas.redirect(caller)
    assert dict(os.environ) == environment
    print(before, caller.product(), report['products'], report['set_by'], report['why_bundled'],
          report['warning'], sep='|')
    {last}
'''


def compile_c(text, path, *options):
    compiler = shutil.which('g++') or shutil.which('cc')
    if compiler is None:
        pytest.skip('no compiler')
    path.parent.mkdir(parents=True, exist_ok=True)
    source = path.with_suffix('.c')
    source.write_text(textwrap.dedent(text))
    subprocess.check_call([compiler, '-w', '-xc', '-shared', '-fPIC', str(source), '-xnone', '-o',
                           str(path), f'-Wl,-soname,{path.name}',
                           f'-Wl,-rpath,{path.parent}', *map(str, options)])
    return path


@pytest.fixture(scope='module')
def workshop(tmp_path_factory):
    """A folder with the package of the fake and callers of a BLAS."""
    if not os.path.isfile(_blas.LIBRARY):
        pytest.fail('libd2l_blas.so is not built: make build')
    folder = tmp_path_factory.mktemp('blas')
    for name, options in (('whole', ()), ('partial', ['-DLACKS_DTRMM'])):
        package = folder / name / 'scipy_openblas32'
        compile_c(FAKE, package / 'lib' / 'libscipy_openblas.so', *options)
        (package / '__init__.py').write_text('raise ImportError("it must not be imported")')
    bundled = compile_c(BUNDLED, folder / 'libbundled.so')
    compile_c(CALLER, folder / 'lazy.so', bundled, '-Wl,-z,lazy', '-Wl,-z,relro')
    compile_c(CALLER, folder / 'now.so', bundled, '-Wl,-z,now', '-Wl,-z,relro')
    compile_c('float product(void) { return 1; }', folder / 'none.so')
    return folder


def python(code, *path, **variables):
    """What ``code`` prints in a fresh process, and its standard error."""
    kept = {name: value for name, value in os.environ.items()
            if not name.startswith(('D2L_', 'OPENBLAS_', 'OMP_', 'MXNET_'))}
    environ = dict(kept, PYTHONPATH=os.pathsep.join(map(str, [*path, ROOT])), **variables)
    done = subprocess.run([sys.executable, '-c', textwrap.dedent(code)], text=True, timeout=120,
                          capture_output=True, env=environ)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip(), done.stderr


def redirect(workshop, package='whole', caller='lazy.so', first='', last='', **variables):
    """(product before, after, 'modern' or 'bundled', set by whom, why bundled, warning)."""
    # Without site-packages, where the real package may be installed.
    code = REDIRECT.format(caller=str(workshop / caller), first=first, last=last)
    code = 'import sys; sys.path = [p for p in sys.path if "site-packages" not in p]\n' + \
        textwrap.dedent(code)
    out, _ = python(code, workshop / (package or 'no package'), **variables)
    return out.splitlines()[0].split('|') + out.splitlines()[1:]


def test_products_go_to_the_other_library(workshop):
    assert redirect(workshop) == ['1.0', '7.0', 'modern', 'd2l', 'None', 'None']
    assert redirect(workshop, D2L_BLAS='modern') == ['1.0', '7.0', 'modern', 'user', 'None', 'None']
    assert redirect(workshop, LD_BIND_NOW='1')[:3] == ['1.0', '7.0', 'modern']


def test_the_report_names_what_was_done(workshop):
    found = redirect(workshop, last='print(report["functions"], report["core"], '
                                    'report["config"], report["path"] == _blas.find_library())')
    assert found[6] == "['cblas_sgemm'] Fake OpenBLAS 9 Fake True"


def test_switched_off(workshop):
    assert redirect(workshop, D2L_BLAS='bundled') == [
        '1.0', '1.0', 'bundled', 'user', 'D2L_BLAS=bundled', 'None']


def test_an_unknown_value_is_named_and_changes_nothing(workshop):
    found = redirect(workshop, D2L_BLAS='fast')
    assert found[1:3] == ['7.0', 'modern']
    assert found[5] == "D2L_BLAS must be 'modern' or 'bundled', got 'fast'"
    assert redirect(workshop, D2L_BLAS='')[1:4] == ['7.0', 'modern', 'd2l']


@pytest.mark.parametrize('wish', [None, 'modern'])
@pytest.mark.parametrize('why, options', [
    ('scipy-openblas32 is not installed', {'package': None}),
    ('libscipy_openblas.so has no scipy_cblas_dtrmm', {'package': 'partial'}),
    ('libscipy_openblas.so is in use with threads of its own',
     {'first': 'ctypes.CDLL(_blas.find_library())'}),
    ('is not built', {'first': '_blas.LIBRARY = "/nowhere.so"'}),
    ('cannot be loaded', {'first': '_blas.LIBRARY = _blas.__file__'}),
    ('cannot be loaded', {'first': '_blas.LIBRARY = {caller!r}'}),
    ('the calls of this MXNet cannot be redirected (-z now)', {'caller': 'now.so'}),
    ('this MXNet calls no BLAS', {'caller': 'none.so'}),
    ('libbundled.so is loaded before', {'first': 'ctypes.CDLL({bundled!r}, os.RTLD_GLOBAL)'}),
])
def test_where_it_cannot_be_done(workshop, why, options, wish):
    names = {'caller': str(workshop / 'none.so'), 'bundled': str(workshop / 'libbundled.so')}
    options = {name: value and value.format(**names) for name, value in options.items()}
    found = redirect(workshop, **options, **({'D2L_BLAS': wish} if wish else {}))
    assert found[0] == found[1] and found[2] == 'bundled' and why in found[4]
    if wish:
        assert found[5].startswith('D2L_BLAS=modern is set, but') and why in found[5]
    else:
        assert found[5] == 'None'


def test_given_back_and_taken_again(workshop):
    found = redirect(workshop, last='''
    _blas.restore()
    print(caller.product(), _blas.functions())
    print(_blas.redirect(caller)['products'], _blas.redirect(caller)['products'],
          caller.product(), _blas.functions())
    _blas.restore()
    print(caller.product())''')
    assert found[6:] == ['1.0 []', "modern modern 7.0 ['cblas_sgemm']", '1.0']


def test_nothing_to_give_back_where_nothing_is_built(workshop):
    assert redirect(workshop, first='_blas.LIBRARY = "/nowhere.so"', last='''
    _blas.restore()
    print(_blas.functions())''')[6] == '[]'


@pytest.mark.parametrize('chosen', [None, '5', '999', 'many', '0'])
def test_the_variable_of_threads_is_as_it_was(workshop, chosen):
    """REDIRECT compares the environment; the library has seen 1, else it would be refused."""
    variables = {} if chosen is None else {'OPENBLAS_NUM_THREADS': chosen}
    assert redirect(workshop, **variables)[2] == 'modern'


def test_two_libraries_in_the_package(tmp_path, monkeypatch):
    folder = tmp_path / 'scipy_openblas32' / 'lib'
    folder.mkdir(parents=True)
    (folder.parent / '__init__.py').touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ('libscipy_openblas.so', 'libscipy_openblas.so.0', 'libother.so'):
        (folder / name).touch()
    assert _blas.find_library() == str(folder / 'libscipy_openblas.so')


# --- Threads --------------------------------------------------------------------------------------

@pytest.fixture(scope='module')
def calls(workshop):
    """How many calls of the fake one product of 256x256x256 becomes."""
    caller = compile_c('''
        #include <omp.h>
        void cblas_sgemm(int, int, int, int, int, int, float, const float*, int, const float*, int,
                         float, float*, int);
        static float a[512 * 512], b[512 * 512], c[512 * 512];
        static void multiply(int n) {
            cblas_sgemm(101, 111, 111, n, n, n, 1, a, n, b, n, 0, c, n);
        }
        float product(void) { multiply(1); return 0; }
        void alone(int n, int threads) { omp_set_num_threads(threads); multiply(n); }
        void inside(int n, int threads) {
            omp_set_num_threads(threads);
            #pragma omp parallel num_threads(2)
            #pragma omp master
            multiply(n);
        }
    ''', workshop / 'openmp.so', workshop / 'libbundled.so', '-fopenmp', '-Wl,-z,lazy')

    def count(how, n=256, threads=4, last='', **variables):
        return int(redirect(workshop, caller=caller.name, last=f'''
    calls = ctypes.c_int.in_dll(ctypes.CDLL(report['path']), 'calls')
    def count(function, *arguments):
        before = calls.value
        function(*arguments)
        return calls.value - before
    {last or f'print(count(caller.{how}, {n}, {threads}))'}''', **variables)[6])
    return count


@pytest.mark.parametrize('threads', [1, 2, 3, 4])
def test_a_product_uses_the_threads_of_its_caller(calls, threads):
    assert calls('alone', threads=threads) == threads


def test_threads_have_a_limit(calls):
    assert calls('alone', threads=4, OPENBLAS_NUM_THREADS='2') == 2
    assert calls('alone', threads=1, OPENBLAS_NUM_THREADS='2') == 1
    assert calls('alone', n=512, threads=99, OPENBLAS_NUM_THREADS='999') == 64


def test_small_products_keep_to_their_thread(calls):
    assert calls('alone', n=64) == 1
    assert calls('alone', n=128) == 4


def test_inside_a_parallel_region_a_product_keeps_to_its_thread(calls):
    assert calls('inside') == 1


def test_the_thread_that_forked_works_alone(calls):
    """OpenMP's threads of the parent are gone; a thread that the child starts has its own."""
    last = '''
    import threading
    counts = [count(caller.alone, 256, 4)]
    read, write = os.pipe()
    if os.fork() == 0:
        counts.append(count(caller.alone, 256, 4))
        thread = threading.Thread(target=lambda: counts.append(count(caller.alone, 256, 4)))
        thread.start()
        thread.join()
        os.write(write, ''.join(map(str, counts)).encode())
        os._exit(0)
    os.wait()
    print(os.read(read, 9).decode(), count(caller.alone, 256, 4), sep='')'''
    assert calls('', last=last) == 4144


# --- With MXNet -----------------------------------------------------------------------------------

WITH_MXNET = '''
    import os, sys
    sys.path.insert(0, {package!r})
    {imports}
    from mxnet import np, npx
    npx.set_np()
    product = np.dot(np.ones((3, 4)), np.ones((4, 2)))
    report = d2l._compat.report()['products'] or {{}}
    print(sorted(set(product.asnumpy().ravel().tolist())), report.get('products'),
          report.get('functions'), d2l._compat.report()['warnings'], sep='|')
'''


def with_mxnet(workshop, package='whole', imports='import d2l', **variables):
    code = WITH_MXNET.format(package=str(workshop / package), imports=imports)
    out, errors = python(code, **variables)
    return out.split('|') + [errors]


def test_mxnet_calls_the_other_library(workshop):
    values, products, functions, warnings, _ = with_mxnet(workshop)
    assert (values, products, functions, warnings) == ('[7.0]', 'modern', str(NAMES), '[]')


@pytest.mark.slow
def test_mxnet_keeps_its_own(workshop):
    for variables in ({'D2L_BLAS': 'bundled'}, {'D2L_COMPAT': '0'}):
        imports = 'import numpy; numpy.bool = bool; import d2l'  # which D2L_COMPAT=0 leaves out
        assert with_mxnet(workshop, imports=imports, **variables)[0] == '[4.0]', variables


def test_mxnet_that_is_imported_first(workshop):
    imports = 'import numpy; numpy.bool = bool; import mxnet, warnings\n' \
              '    with warnings.catch_warnings(record=True): import d2l'
    assert with_mxnet(workshop, imports=imports)[:3] == ['[7.0]', 'modern', str(NAMES)]


@pytest.mark.slow
def test_a_wish_that_cannot_be_met_is_a_warning(workshop):
    found = with_mxnet(workshop, package='partial', D2L_BLAS='modern')
    assert found[:3] == ['[4.0]', 'bundled', 'None']
    assert 'has no scipy_cblas_dtrmm' in found[3] and 'RuntimeWarning: D2L_BLAS' in found[4]
    found = with_mxnet(workshop, package='partial')
    assert found[:2] == ['[4.0]', 'bundled'] and found[3] == '[]' and 'D2L_BLAS' not in found[4]


@pytest.mark.slow
def test_the_command_shows_it(workshop):
    code = '''
        import sys
        sys.path.insert(0, {!r})
        from d2l.cli import main
        main(['env'])
    '''
    out = python(code.format(str(workshop / 'whole')))[0]
    assert 'products OpenBLAS 9 Fake, for cblas_cgemm, cblas_dgemm' in ' '.join(out.split())
    out = python(code.format(str(workshop / 'whole')), D2L_BLAS='bundled')[0]
    assert "MXNet's own OpenBLAS (D2L_BLAS=bundled)" in out and 'D2L_BLAS        bundled' in out
