import mxnet as mx
import numpy as onp
import pytest
from mxnet import autograd, gluon, np, npx
from mxnet.base import MXNetError

from d2l import ops
from d2l.testing import EPS, Case, OpBlock, check_block, check_op, export_and_import, run_kernel

DTYPES = ['float32', 'float64', 'float16']
ACT_TYPES = [None, 'relu', 'sigmoid', 'tanh']


def activate(z, act_type):
    return {None: lambda: z, 'relu': lambda: onp.maximum(z, 0), 'tanh': lambda: onp.tanh(z),
            'sigmoid': lambda: 1 / (1 + onp.exp(-z))}[act_type]()


def slope(y, act_type):
    return {None: lambda: onp.ones_like(y), 'relu': lambda: (y > 0).astype('float64'),
            'tanh': lambda: 1 - y * y, 'sigmoid': lambda: y * (1 - y)}[act_type]()


def truth(x, w, b=None, units=1, act_type=None):
    z = x @ w.T
    return activate(z if b is None else z + b, act_type)


def arrays(shape, units, act_type=None, seed=0):
    """Whose products are about 1.

    Those for relu are multiples of 1/8, without an error in any dtype, and the bias keeps them from
    0: it is not rounding that decides on which side of the kink one lies.
    """
    rng = onp.random.RandomState(seed)
    shapes = shape, (units, shape[-1]), (units,)
    if act_type == 'relu':
        x, w, b = (rng.randint(-2, 3, s) / 2 for s in shapes)
        return [x, w, b + 1 / 8]
    x, w, b = (rng.standard_normal(s) for s in shapes)
    return [x, w / max(1, shape[-1]) ** 0.5, b]


def case(shape, units, act_type=None, dtype='float32', bias=True):
    x, w, b = arrays(shape, units, act_type)
    rows = max(1, x.size // max(1, shape[-1]))
    return Case(ops.dense, [x, w, b if bias else None], truth, dtype, smooth=act_type != 'relu',
                grad_scale=3 * rows ** 0.5, units=units, act_type=act_type)


# From 1 to 4 axes; single rows, columns and units; tiles and vectors with a rest.
SIZES = [((1, 1), 1), ((5,), 3), ((3, 2), 5), ((2, 3, 31), 33), ((2, 2, 3, 7), 17), ((65, 16), 1),
         ((9, 1), 32), ((1, 33), 65)]


@pytest.mark.parametrize('dtype', DTYPES)
@pytest.mark.parametrize('act_type', ACT_TYPES)
@pytest.mark.parametrize('bias', [True, False])
def test_battery(bias, act_type, dtype):
    for i, (shape, units) in enumerate(SIZES):
        modes = dtype == 'float32' and i in (1, 3)
        check_op(case(shape, units, act_type, dtype, bias), modes=modes)


def exact(many, y):
    """Result and gradients in float64, and for each the sum of the magnitudes of its terms.

    The gradients are those at the result y, from which the kernel has its derivatives.
    """
    x, w, b = many.exact()
    rows, units = y.size // len(w), len(w)
    x, y = x.reshape(rows, w.shape[1]), y.reshape(rows, units).astype('float64')
    g = many.cotangent.astype('float64').reshape(y.shape) * slope(y, many.attrs['act_type'])
    pairs = [(many.expected.reshape(y.shape), abs(x @ w.T)),
             (g @ w, abs(g) @ abs(w)), (g.T @ x, abs(g).T @ abs(x))]
    return pairs if b is None else [*pairs, (g.sum(0), abs(g).sum(0))]


def check_kernel(many, target):
    """Errors are at most those of rounding; any number of threads gives the same bits.

    With u half of EPS: in float16 the product is rounded to it before bias and activation are
    applied, none of which is steeper than 1, and then the result is, so |error| <= u |product| +
    u |result| + what summing in float32 costs.  For the gradients g is rounded, too.
    """
    y, grads = run_kernel(many, target, threads=1)
    depth = many.arrays[0].shape[-1]
    rows = y.size // many.attrs['units']
    terms = [depth, many.attrs['units'], rows, rows]
    u, step = EPS[many.dtype] / 2, float(onp.finfo(many.dtype).smallest_subnormal)
    sums = EPS['float32' if many.dtype == 'float16' else many.dtype]
    got = [a for a in [y, *grads] if a is not None]
    for a, (want, size), n in zip(got, exact(many, y), terms):
        error = abs(a.reshape(want.shape).astype('float64') - want)
        bound = u * (size + abs(want)) + sums * (4 + min(n, 64) / 4) * (size + 1) + step
        assert (error <= bound).all(), (many, (error / bound).max())
    for threads in (2, 3):
        y_n, grads_n = run_kernel(many, target, threads)
        assert onp.array_equal(y, y_n)
        for p, q in zip(grads, grads_n):
            assert p is q is None or onp.array_equal(p, q)


# Around the blocks of depth, of columns and of rows; few rows and one; one unit; no depth, no rows.
LARGE = [((64, 256), 256), ((63, 257), 33), ((65, 255), 257), ((530, 40), 300), ((270, 520), 300),
         ((1, 300), 300), ((3, 257), 70), ((1, 256), 1), ((300, 300), 1), ((130, 1), 70),
         ((70, 1), 1), ((7, 2, 9), 16), ((0, 3), 4), ((4, 0), 5), ((0, 0), 1), ((2, 0, 7), 3),
         ((70, 0), 70)]


@pytest.mark.parametrize('target', ['v2', 'v3', 'v4'])
@pytest.mark.parametrize('dtype', DTYPES)
@pytest.mark.parametrize('act_type', ACT_TYPES)
def test_every_instruction_set_and_thread_count(act_type, dtype, target, runs_target):
    runs_target(target)
    for shape, units in LARGE:
        for bias in (True, False):
            check_kernel(case(shape, units, act_type, dtype, bias), target)


# Products that are large enough to look for rows without a gradient.
SEARCHED = [((300, 130), 131), ((2, 600, 70), 64), ((257, 256), 257), ((90, 600), 500)]


def without_gradient(many, rows):
    """The case with gradients of 0 and -0 in some rows: a share of them drawn, or a slice."""
    g = many.cotangent.reshape(-1, many.attrs['units'])
    if not isinstance(rows, slice):
        rows = onp.random.RandomState(5).uniform(size=len(g)) < rows
    g[rows] = g[rows] * 0.0
    return many


@pytest.mark.parametrize('target', ['v2', 'v3', 'v4'])
@pytest.mark.parametrize('dtype', DTYPES)
@pytest.mark.parametrize(
    'rows', [0.05, 0.5, 0.9, slice(40, None), slice(0, 1000), slice(-60, None)], ids=str)
def test_rows_without_a_gradient(rows, dtype, target, runs_target):
    runs_target(target)
    for shape, units in SEARCHED:
        for act_type in (None, 'tanh'):
            many = without_gradient(case(shape, units, act_type, dtype), rows)
            check_kernel(many, target)
            dx = run_kernel(many, target)[1][0].reshape(-1, shape[-1])
            zero = ~many.cotangent.reshape(-1, units).any(1)
            assert zero.any() and not dx[zero].any()


@pytest.mark.parametrize('act_type', [None, 'tanh'])
def test_what_has_no_gradient_has_no_influence(act_type):
    many = without_gradient(case((400, 130), 131, act_type), 0.6)
    _, (dx, dw, db) = run_kernel(many)
    zero = ~many.cotangent.any(1)
    many.arrays[0][zero] = onp.nan
    y, (dx_n, dw_n, _) = run_kernel(many)
    assert onp.isnan(y[zero]).all()
    if act_type is None:
        assert onp.array_equal(dx, dx_n) and onp.array_equal(dw, dw_n)
    else:  # its derivative is that at y
        assert onp.isnan(dw_n).all() and onp.isnan(dx_n[zero]).all()


@pytest.mark.parametrize('act_type', ACT_TYPES)
def test_without_in_units_there_is_the_bias(act_type):
    """MXNet's own layer cannot do it."""
    empty = case((4, 0), 5, act_type)
    y, (dx, dw, db) = run_kernel(empty)
    want = activate(empty.exact()[2], act_type)
    onp.testing.assert_allclose(y, onp.broadcast_to(want, (4, 5)), rtol=1e-6)
    assert dx.shape == (4, 0) and dw.shape == (5, 0)
    g = empty.cotangent * slope(y, act_type)
    onp.testing.assert_allclose(db, g.sum(0), rtol=1e-5, atol=1e-6)


def test_without_rows_gradients_are_zero():
    for bias in (True, False):
        y, (dx, dw, *db) = run_kernel(case((0, 3), 4, 'tanh', bias=bias))
        assert y.shape == (0, 4) and dx.shape == (0, 3) and dw.shape == (4, 3)
        assert not dw.any() and not (bias and db[0].any())


@pytest.mark.parametrize('act_type', ACT_TYPES)
@pytest.mark.parametrize('rows', [3, 70])
@pytest.mark.parametrize('units', [1, 19, 40])
def test_a_bad_row_stays_in_its_row(units, rows, act_type):
    """Rows are read in whole vectors, which go on into the next row."""
    x, w, b = (a.astype('float32') for a in arrays((rows, 37), units))
    want = truth(x.astype('float64'), w, b, units, act_type)
    x[1] = onp.nan
    y = ops.dense(np.array(x), np.array(w), np.array(b), units=units, act_type=act_type).asnumpy()
    assert onp.isnan(y[1]).all()
    others = onp.arange(rows) != 1
    assert abs(y[others] - want[others]).max() < 1e-5


def test_a_bad_unit_stays_in_its_unit():
    x, w, b = (a.astype('float32') for a in arrays((70, 37), 19))
    want = truth(x.astype('float64'), w, b)
    w[4], b[7] = onp.nan, onp.inf
    y = ops.dense(np.array(x), np.array(w), np.array(b), units=19).asnumpy()
    assert onp.isnan(y[:, 4]).all() and onp.isinf(y[:, 7]).all()
    others = [i for i in range(19) if i not in (4, 7)]
    assert abs(y[:, others] - want[:, others]).max() < 1e-5


def test_views_that_are_not_aligned():
    x, w, b = (a.astype('float32') for a in arrays((41, 33), 50))
    whole = [np.array(a) for a in (x, w, b)]
    y = ops.dense(whole[0][1:], whole[1][1:], whole[2][1:], units=49, act_type='tanh').asnumpy()
    assert abs(y - truth(x[1:].astype('float64'), w[1:], b[1:], 49, 'tanh')).max() < 1e-5


def test_float16_rounds_the_product():
    """2049 is no float16 but 2048, so the bias leaves 0 and not 1; see check_kernel for a bound."""
    for rows in (1, 3):
        x, w, b = np.array([[2048, 1]] * rows), np.ones((1, 2)), np.array([-2048])
        assert not ops.dense(*(a.astype('float16') for a in (x, w, b))).any()


@pytest.mark.parametrize('bias', [True, False])
@pytest.mark.parametrize('act_type', [None, 'tanh'])
def test_gradients_are_added_up(act_type, bias):
    x, w, b = (np.array(a, dtype='float32') for a in arrays((5, 4), 3))
    inputs = [x, w, b][:2 + bias]
    for a in inputs:
        a.attach_grad('add')
    for _ in range(2):
        with autograd.record():
            y = ops.dense(*inputs, units=3, act_type=act_type)
        y.backward()
    g = slope(y.asnumpy().astype('float64'), act_type)
    for a, want in zip(inputs, (g @ w.asnumpy(), g.T @ x.asnumpy(), g.sum(0))):
        assert abs(a.grad.asnumpy() - 2 * want).max() < 1e-5


def test_it_is_the_layer_of_mxnet():
    for dtype in ('float32', 'float64'):
        x, w, b = (np.array(a, dtype=dtype) for a in arrays((6, 5, 40), 30))
        mine = ops.dense(x, w, b, units=30, act_type='relu')
        with ops.composed():
            theirs = ops.dense(x, w, b, units=30, act_type='relu')
        assert abs(mine - theirs).max() < 30 * EPS[dtype]


class Layer(gluon.HybridBlock):
    """A block that knows no more of its parameters than their axes and units."""

    def __init__(self, units, act_type, bias=True):
        super().__init__()
        self._attrs = {'units': units, 'act_type': act_type}
        self.weight = self.params.get('weight', shape=(units, -1), allow_deferred_init=True)
        self.bias = self.params.get('bias', shape=(units,), init='normal') if bias else None

    def hybrid_forward(self, F, x, weight, bias=None):
        return ops.dense(x, weight, bias, **self._attrs)


@pytest.mark.parametrize('bias', [True, False])
@pytest.mark.parametrize('act_type', ACT_TYPES)
def test_a_block_in_every_mode(act_type, bias):
    """Exports and imports it, too; its weight gets its shape from the first call."""
    made = []

    def make():
        made.append(Layer(7, act_type, bias))
        made[-1].initialize(mx.init.Normal(0.5))
        return made[-1]
    x = arrays((2, 3, 5), 7)[0].astype('float32')
    y, = check_block(make, [x])
    net, = made
    assert net.weight.shape == (7, 5)
    parameters = [p.data().asnumpy().astype('float64') for p in (net.weight, net.bias) if p]
    want = truth(x.astype('float64'), *parameters, act_type=act_type)
    assert abs(y - want).max() < 1e-5


@pytest.mark.parametrize('numpy', [True, False])
def test_unknown_shapes_follow_from_data_and_units(numpy):
    names = [mx.sym.var(name) for name in ('data', 'weight', 'bias')]
    if numpy:
        names = [symbol.as_np_ndarray() for symbol in names]
    else:
        npx.reset_np()
    symbol = ops.dense(*names, units=4, act_type='relu')
    assert symbol.infer_shape(data=(2, 3, 5)) == ([(2, 3, 5), (4, 5), (4,)], [(2, 3, 4)], [])
    symbol = ops.dense(*names[:2], units=4)
    assert symbol.infer_shape(data=(5,)) == ([(5,), (4, 5)], [(4,)], [])
    types, out, _ = symbol.infer_type(data='float64')
    assert types == [onp.float64] * 2 and out == [onp.float64]


@pytest.mark.parametrize('bias', [True, False])
def test_export_and_import(bias):
    """One graph for any number of rows and axes."""
    block = OpBlock(ops.dense, {'units': 4, 'act_type': 'sigmoid'})
    block.hybridize()
    x, w, b = (a.astype('float32') for a in arrays((2, 3), 4))
    parameters = [np.array(a) for a in (w, b)[:1 + bias]]
    imported = export_and_import(block, [np.array(x), *parameters])
    for shape in ((2, 3), (70, 3)):
        x = arrays(shape, 4, seed=1)[0].astype('float32')
        y = imported(np.array(x), *parameters).asnumpy()
        want = truth(x.astype('float64'), w, b if bias else None, act_type='sigmoid')
        assert abs(y - want).max() < 1e-6


@pytest.mark.parametrize('composed', [False, True])
def test_legacy_arrays_and_symbols(composed):
    x, w, b = (np.array(a, dtype='float32') for a in arrays((2, 3, 5), 4))
    want = truth(*(a.asnumpy().astype('float64') for a in (x, w, b)), act_type='tanh')

    def run():
        y = ops.dense(*(a.as_nd_ndarray() for a in (x, w, b)), units=4, act_type='tanh')
        assert type(y) is mx.nd.NDArray
        names = [mx.sym.var(name) for name in ('data', 'weight', 'bias')]
        symbol = ops.dense(*names, units=4, act_type='tanh')
        values = dict(zip(('data', 'weight', 'bias'), (a.as_nd_ndarray() for a in (x, w, b))))
        z, = symbol.bind(mx.cpu(), values).forward()
        return y.asnumpy(), z.asnumpy()
    if composed:
        with ops.composed():
            results = run()
    else:
        results = run()
    for got in results:
        assert got.dtype == 'float32' and abs(got - want).max() < 1e-6


@pytest.mark.parametrize('shapes, attrs, fragment', [
    (((), (1, 1)), {}, 'data must have at least 1 axis, got shape ()'),
    (((2, 3), (5, 3)), {'units': 4}, 'weight must have shape (4, 3), got (5, 3)'),
    (((2, 3), (4, 2)), {'units': 4}, 'weight must have shape (4, 3), got (4, 2)'),
    (((2, 3), (3, 4)), {'units': 4}, 'weight must have shape (4, 3), got (3, 4)'),
    (((2, 3), (4,)), {'units': 4}, 'weight must have shape (4, 3), got (4,)'),
    (((2, 3), (4, 3, 1)), {'units': 4}, 'weight must have shape (4, 3), got (4, 3, 1)'),
    (((2, 3), (4, 3), (3,)), {'units': 4}, 'bias must have shape (4,), got (3,)'),
    (((2, 3), (4, 3), (1, 4)), {'units': 4}, 'bias must have shape (4,), got (1, 4)'),
    (((2, 3), (4, 3), (4,)), {}, 'weight must have shape (1, 3), got (4, 3)'),
    (((2, 3), (1, 3)), {'units': 0}, 'units must be an integer from 1 to 2147483648, got 0'),
    (((2, 3), (1, 3)), {'units': -4}, 'units must be an integer from 1 to 2147483648, got -4'),
    (((2, 3), (1, 3)), {'units': 1.5}, 'units must be an integer from 1 to 2147483648, got 1.5'),
    (((2, 3), (1, 3)), {'act_type': 'gelu'},
     'act_type must be None, relu, sigmoid or tanh, got gelu'),
    (((2, 3), (1, 3), (1,)), {'act_type': 5},
     'act_type must be None, relu, sigmoid or tanh, got 5'),
], ids=str)
def test_bad_calls(shapes, attrs, fragment):
    with pytest.raises(MXNetError, match='dense: ') as error:
        ops.dense(*(np.ones(s) for s in shapes), **attrs)
    assert 'dense: ' + fragment in str(error.value)


@pytest.mark.parametrize('position, dtype, fragment', [
    (0, 'int32', 'data must have dtype float16, float32 or float64, got int32'),
    (1, 'float64', 'weight must have the dtype of data, float32, got float64'),
    (2, 'float16', 'bias must have the dtype of data, float32, got float16'),
])
def test_bad_dtypes(position, dtype, fragment):
    inputs = [np.ones((2, 3)), np.ones((1, 3)), np.ones(1)]
    inputs[position] = inputs[position].astype(dtype)
    with pytest.raises(MXNetError) as error:
        ops.dense(*inputs)
    assert 'dense: ' + fragment in str(error.value)


def test_bad_types():
    with pytest.raises(TypeError, match='dense: weight must be an MXNet array or symbol, got None'):
        ops.dense(np.ones((2, 3)), None)
    with pytest.raises(TypeError, match='dense: bias must be an MXNet array or symbol, got list'):
        ops.dense(np.ones((2, 3)), np.ones((1, 3)), [1])
    with pytest.raises(TypeError, match='dense: .*flatten'):
        ops.dense(np.ones((2, 3)), np.ones((1, 3)), flatten=True)
