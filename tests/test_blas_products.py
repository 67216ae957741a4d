"""What MXNet's matrix products compute when scipy-openblas32 computes them, against float64.

First the functions of libd2l_blas.so themselves, whole and cut over threads, with every flag; then
MXNet's operators in fresh processes, in several of MXNet's threads and after fork().
"""
import ctypes
import itertools
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from d2l import _blas

ROOT = Path(__file__).resolve().parents[1]
ROW, COLUMN = 101, 102
NO_TRANS, TRANS, CONJ_TRANS = 111, 112, 113
UPPER, LOWER, NON_UNIT, UNIT, LEFT, RIGHT = 121, 122, 131, 132, 141, 142
DTYPES = {'s': 'float32', 'd': 'float64', 'c': 'complex64', 'z': 'complex128'}
TRUTH = {'s': 'float64', 'd': 'float64', 'c': 'complex128', 'z': 'complex128'}

pytestmark = pytest.mark.skipif(_blas.find_library() is None,
                                reason=f'{_blas.PACKAGE} is not installed')


@pytest.fixture(scope='module')
def library():
    if not os.path.isfile(_blas.LIBRARY):
        pytest.fail('libd2l_blas.so is not built: make build')
    own = _blas._open_own()
    assert _blas._open_other(own, _blas.find_library()) is None
    own.d2l_blas_function.restype = ctypes.c_void_p
    return own


@pytest.fixture(params=[1, 2, 7], ids=lambda n: f'{n} threads')
def threads(request):
    """How many threads the calls of a test may use."""
    openmp = ctypes.CDLL('libgomp.so.1')
    before = openmp.omp_get_max_threads()
    openmp.omp_set_num_threads(request.param)
    yield request.param
    openmp.omp_set_num_threads(before)


class Matrix:
    """A random rows x columns matrix in memory that is wider than it, in an order of CBLAS."""

    def __init__(self, rows, columns, letter, order, spare=3, seed=0):
        rng = np.random.RandomState(seed)
        shape = (rows, columns + spare) if order == ROW else (columns, rows + spare)
        values = rng.uniform(-1, 1, shape)
        if letter in 'cz':
            values = values + 1j * rng.uniform(-1, 1, shape)
        self.memory = values.astype(DTYPES[letter])
        whole = self.memory if order == ROW else self.memory.T
        self.values, self.spare = whole[:rows, :columns], whole[rows:] if order == COLUMN \
            else whole[:, columns:]
        self.ld, self.pointer = self.memory.shape[1], self.memory.ctypes.data_as(ctypes.c_void_p)


def call(library, name, *arguments):
    """Call our function; integers, pointers, and alpha and beta as ('s', 2.0)."""
    converted = []
    for argument in arguments:
        if isinstance(argument, tuple):
            letter, value = argument
            kind = {'s': ctypes.c_float, 'd': ctypes.c_double}.get(letter)
            argument = kind(value) if kind else np.array(value, DTYPES[letter]).ctypes.data_as(
                ctypes.c_void_p)
        converted.append(argument if not isinstance(argument, int) else ctypes.c_int(argument))
    function = ctypes.CFUNCTYPE(None, *map(type, converted))(
        library.d2l_blas_function(name.encode()))
    function(*converted)


def op(values, trans):
    return {NO_TRANS: values, TRANS: values.T, CONJ_TRANS: values.conj().T}[trans]


def assert_near(got, want, terms):
    """Rounding errors of a sum of ``terms`` products of numbers below 1."""
    assert np.isfinite(got).all()
    assert abs(got - want).max() <= 4 * terms * np.finfo(got.dtype).eps, abs(got - want).max()


@pytest.mark.parametrize('m, n, k', [(150, 130, 100), (1, 3000, 200), (3000, 1, 200),
                                     (17, 33, 1500), (5, 6, 7)])
@pytest.mark.parametrize('letter', 'sdcz')
def test_gemm(library, threads, letter, m, n, k):
    if letter in 'cz' and max(m, n) > 200:
        pytest.skip('the slow truth of complex numbers; they are cut as the real ones')
    transposed = (NO_TRANS, TRANS, CONJ_TRANS) if letter in 'cz' else (NO_TRANS, TRANS)
    for order, ta, tb in itertools.product((ROW, COLUMN), transposed, transposed):
        a = Matrix(*((m, k) if ta == NO_TRANS else (k, m)), letter, order, seed=1)
        b = Matrix(*((k, n) if tb == NO_TRANS else (n, k)), letter, order, seed=2)
        for alpha, beta in ((1, 0), (0.5, -2)):
            c = Matrix(m, n, letter, order, seed=3)
            if beta == 0:
                c.values[:] = np.nan  # and must not be read
            spare = c.spare.copy()
            want = alpha * (op(a.values, ta).astype(TRUTH[letter]) @ op(b.values, tb))
            if beta:
                want += beta * c.values
            call(library, f'cblas_{letter}gemm', order, ta, tb, m, n, k, (letter, alpha),
                 a.pointer, a.ld, b.pointer, b.ld, (letter, beta), c.pointer, c.ld)
            assert_near(c.values, want, k + 2)
            assert (c.spare == spare).all()


@pytest.mark.parametrize('n, k', [(200, 150), (33, 3000), (16, 9000), (5, 4)])
@pytest.mark.parametrize('letter', 'sd')
def test_syrk(library, threads, letter, n, k):
    for order, uplo, trans in itertools.product((ROW, COLUMN), (UPPER, LOWER), (NO_TRANS, TRANS)):
        a = Matrix(*((n, k) if trans == NO_TRANS else (k, n)), letter, order, seed=1)
        c = Matrix(n, n, letter, order, seed=2)
        memory = c.memory.copy()
        half = np.triu if uplo == UPPER else np.tril
        square = op(a.values, trans).astype(TRUTH[letter])
        want = half(1.5 * square @ square.T - 0.5 * c.values)
        call(library, f'cblas_{letter}syrk', order, uplo, trans, n, k, (letter, 1.5), a.pointer,
             a.ld, (letter, -0.5), c.pointer, c.ld)
        assert_near(half(c.values), want, 2 * k)
        c.values[half(np.ones((n, n))) > 0] = 0
        whole = memory if order == ROW else memory.T
        whole[:n, :n][half(np.ones((n, n))) > 0] = 0
        assert (c.memory == memory).all(), 'something else was written'


@pytest.mark.parametrize('m, n', [(120, 150), (17, 2500), (2500, 17), (5, 4)])
@pytest.mark.parametrize('letter', 'sd')
def test_trmm(library, threads, letter, m, n):
    flags = ((ROW, COLUMN), (LEFT, RIGHT), (UPPER, LOWER), (NO_TRANS, TRANS), (NON_UNIT, UNIT))
    for order, side, uplo, trans, diag in itertools.product(*flags):
        if side == LEFT and m > 2000 or side == RIGHT and n > 2000:
            continue
        size = m if side == LEFT else n
        a, b = Matrix(size, size, letter, order, seed=1), Matrix(m, n, letter, order, seed=2)
        spare = b.spare.copy()
        triangle = (np.triu if uplo == UPPER else np.tril)(a.values).astype(TRUTH[letter])
        if diag == UNIT:
            np.fill_diagonal(triangle, 1)
        factors = [op(triangle, trans), b.values]
        want = -2 * np.dot(*(factors if side == LEFT else factors[::-1]))
        call(library, f'cblas_{letter}trmm', order, side, uplo, trans, diag, m, n, (letter, -2),
             a.pointer, a.ld, b.pointer, b.ld)
        assert_near(b.values, want, 2 * size)
        assert (b.spare == spare).all()


@pytest.mark.parametrize('m, n, k', [(0, 5, 5), (5, 0, 5), (5, 5, 0), (0, 0, 0)])
def test_nothing_to_multiply(library, m, n, k):
    a, b, c = (Matrix(9, 9, 's', ROW) for _ in range(3))
    before = c.memory.copy()
    call(library, 'cblas_sgemm', ROW, NO_TRANS, NO_TRANS, m, n, k, ('s', 1), a.pointer, a.ld,
         b.pointer, b.ld, ('s', 2), c.pointer, c.ld)
    before[:m, :n] *= 2
    assert (c.memory == before).all()


# --- MXNet's operators ----------------------------------------------------------------------------

def python(code, **variables):
    """What ``code`` prints in a fresh process with MXNet in NumPy mode."""
    kept = {name: value for name, value in os.environ.items()
            if not name.startswith(('D2L_', 'OPENBLAS_', 'OMP_', 'MXNET_'))}
    head = '''
        import json, os, sys
        import d2l
        import mxnet as mx
        import numpy as onp
        from mxnet import gluon, np, npx
        npx.set_np()
        rng = onp.random.RandomState(0)
    '''
    paths = [str(ROOT)] + [p for p in [os.environ.get('PYTHONPATH')] if p]
    done = subprocess.run([sys.executable, '-W', 'ignore', '-c',
                           textwrap.dedent(head) + textwrap.dedent(code)], text=True, timeout=120,
                          capture_output=True,
                          env=dict(kept, PYTHONPATH=os.pathsep.join(paths), **variables))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


# Every function that libmxnet imports from a BLAS or LAPACK is called by one of these.
OPERATORS = '''
    report = d2l._compat.report()['products']
    la = mx.nd.linalg
    errors = {}

    def check(name, got, want):
        got = got.asnumpy() if hasattr(got, 'asnumpy') else got
        eps = onp.finfo(name.split()[-1]).eps
        errors[name] = float(abs(got - want).max() / abs(want).max() / eps)

    for dtype in ('float32', 'float64'):
        a64, b64 = rng.standard_normal((2, 120, 120))
        a64, b64 = a64.astype(dtype).astype('f8'), b64.astype(dtype).astype('f8')
        s64 = a64 @ a64.T / 120 + onp.eye(120)
        a, b, s = (np.array(x, dtype=dtype) for x in (a64, b64, s64))
        A, B, S = (x.as_nd_ndarray() for x in (a, b, s))
        s64 = s.asnumpy().astype('f8')
        t = a64.reshape(15, 24, 40)
        check('dot ' + dtype, np.dot(a, b), a64 @ b64)
        check('dot T ' + dtype, mx.nd.dot(A, B, transpose_a=True, transpose_b=True), a64.T @ b64.T)
        check('vector ' + dtype, np.dot(a[0], b[0]), a64[0] @ b64[0])
        check('outer ' + dtype, np.outer(a[0], b[0]), onp.outer(a64[0], b64[0]))
        batch = np.array(t, dtype=dtype)
        check('batch_dot ' + dtype, npx.batch_dot(batch, batch, transpose_b=True),
              t @ t.transpose(0, 2, 1))
        check('einsum ' + dtype, np.einsum('ij,kj->ik', a, b), a64 @ b64.T)
        check('gemm ' + dtype, la.gemm(A, B, S, alpha=2, beta=3), 2 * a64 @ b64 + 3 * s64)
        check('syrk ' + dtype, la.syrk(A, transpose=True), a64.T @ a64)
        check('trmm ' + dtype, la.trmm(A, B, rightside=True), b64 @ onp.tril(a64))
        check('trsm ' + dtype, onp.tril(s64) @ la.trsm(S, B).asnumpy(), b64)
        L = la.potrf(S)
        check('potrf ' + dtype, (lambda x: x @ x.T)(L.asnumpy().astype('f8')), s64)
        check('potri ' + dtype, s64 @ la.potri(L).asnumpy(), onp.eye(120))
        check('inv ' + dtype, s64 @ np.linalg.inv(s).asnumpy(), onp.eye(120))
        check('solve ' + dtype, s64 @ np.linalg.solve(s, b).asnumpy(), b64)
        check('det ' + dtype, np.linalg.slogdet(s)[1], onp.array(onp.linalg.slogdet(s64)[1]))
        q, l = (x.asnumpy().astype('f8') for x in (lambda x: (x[1], x[0]))(la.gelqf(A)))
        check('gelqf ' + dtype, q @ l, a64)
        u, w, v = (x.asnumpy().astype('f8') for x in np.linalg.svd(a))
        check('svd ' + dtype, u * w @ v, a64)
        w, v = (x.asnumpy().astype('f8') for x in np.linalg.eigh(s))
        check('eigh ' + dtype, v * w @ v.T, s64)
        check('eigvals ' + dtype, np.sort(np.linalg.eigvals(s)), onp.linalg.eigvalsh(s64))
        check('lstsq ' + dtype, np.linalg.lstsq(s, b, rcond='warn')[0],
              onp.linalg.solve(s64, b64))
    print(json.dumps([report['products'], errors]))
'''


@pytest.mark.slow
def test_operators_against_float64():
    results = {name: python(OPERATORS, D2L_BLAS=name, OMP_NUM_THREADS='2')
               for name in ('modern', 'bundled')}
    assert [results[name][0] for name in results] == ['modern', 'bundled']
    modern, bundled = results['modern'][1], results['bundled'][1]
    wrong = {name: (error, bundled[name]) for name, error in modern.items()
             if not error <= max(2 * bundled[name], 100)}
    assert not wrong, wrong


# --- MXNet's threads, its processes ---------------------------------------------------------------

def test_several_threads_of_mxnet_at_once():
    """One context has a thread of its own each; two Python threads push products to all."""
    worst = python('''
        import threading
        x = rng.standard_normal((8, 160, 160)).astype('f4')
        want = [y.astype('f8') @ y.T for y in x]
        errors = []

        def work():
            npx.set_np()
            arrays = [np.array(y, ctx=mx.cpu(i % 4)) for i, y in enumerate(x)]
            for _ in range(15):
                products = [np.dot(y, y.T) for y in arrays]
            for product, truth in zip(products, want):
                errors.append(float(abs(product.asnumpy() - truth).max()))
        threads = [threading.Thread(target=work) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        print(json.dumps([len(errors), max(errors)]))
    ''', D2L_BLAS='modern', OMP_NUM_THREADS='2')
    assert worst[0] == 16 and worst[1] < 1e-3


@pytest.mark.slow
@pytest.mark.parametrize('variables', [
    {}, {'OMP_NUM_THREADS': '2'}, {'MXNET_ENGINE_TYPE': 'NaiveEngine', 'OMP_NUM_THREADS': '2'}],
    ids=['usual', 'threads', 'naive'])
def test_products_in_forked_workers(variables):
    """After products in the parent, which has the threads of OpenMP running by then."""
    errors = python('''
        x = rng.standard_normal((12, 160, 160)).astype('f4')
        want = [y.astype('f8') @ y for y in x]

        class Squares(gluon.data.Dataset):
            def __len__(self):
                return len(x)

            def __getitem__(self, i):
                y = np.array(x[i])
                return np.dot(y, y).asnumpy(), i

        def error(pairs):
            return max(float(abs(y - want[int(i)]).max()) for y, i in pairs)
        data = Squares()
        errors = [error(data[i] for i in range(3))]
        for _ in range(2):
            loader = gluon.data.DataLoader(data, 3, num_workers=2)
            errors.append(error((y, i) for ys, ns in loader
                                for y, i in zip(ys.asnumpy(), ns.asnumpy())))
        errors.append(error(data[i] for i in range(3)))
        if os.fork() == 0:
            os._exit(0 if error(data[i] for i in range(3)) < 1e-3 else 1)
        errors.append(os.wait()[1])
        print(json.dumps(errors))
    ''', D2L_BLAS='modern', **variables)
    assert max(errors) < 1e-3, errors


def test_numpy_keeps_its_own_functions():
    """Nothing is put where libraries that are loaded later would find it."""
    found = python('''
        import ctypes
        everything = ctypes.CDLL(None)
        products = d2l._compat.report()['products']
        names = [*products['functions'], 'scipy_cblas_sgemm', 'd2l_blas_bind']
        print(json.dumps([products['products'], 'scipy_openblas32' in sys.modules,
                          [name for name in names if hasattr(everything, name)]]))
    ''')
    assert found == ['modern', False, []]


@pytest.mark.parametrize('core', ['Nehalem', 'Haswell'])
def test_kernels_that_the_user_chooses(core):
    found = python('''
        x = rng.standard_normal((100, 100)).astype('f4')
        products = d2l._compat.report()['products']
        error = abs(np.dot(np.array(x), np.array(x)).asnumpy() - x.astype('f8') @ x).max()
        print(json.dumps([products['products'], products['core'], float(error)]))
    ''', OPENBLAS_CORETYPE=core)
    assert found[:2] == ['modern', core] and found[2] < 1e-4
