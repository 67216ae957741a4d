import numpy as onp
import pytest
from mxnet import autograd, np
from mxnet.base import MXNetError

from d2l import ops
from d2l.ops import _library, _native
from d2l.testing import EPS, Case, check_op, run_kernel
from tests import philox


def weigh(query, key, v, valid_len):
    """The weights (batch, queries, keys) and the features (batch, queries, keys, hidden)."""
    features = onp.tanh(query[:, :, None] + key[:, None])
    scores = features @ v
    keys = scores.shape[2]
    n = onp.full((1, 1), keys) if valid_len is None else onp.ceil(valid_len)
    n = n.reshape(n.shape + (1,) * (3 - n.ndim))
    scores = onp.where(onp.arange(keys) < n, scores, -1e300)  # all equal where none is valid
    e = onp.exp(scores - scores.max(-1, keepdims=True, initial=-1e300))
    return e / e.sum(-1, keepdims=True), features


def truth(query, key, value, v, valid_len=None, seed=None, dropout=0.0):
    weights, _ = weigh(query, key, v, valid_len)
    if seed is not None:
        weights = weights * philox.row_factors(seed, weights.shape, dropout)
    return weights @ value


def arrays(batch, queries, keys, hidden, values, scale=1.0, seed=0):
    rng = onp.random.RandomState(seed)
    shapes = [(batch, queries, hidden), (batch, keys, hidden), (batch, keys, values), (hidden,)]
    return [(scale if i < 2 else 1) * rng.standard_normal(s) for i, s in enumerate(shapes)]


def case(sizes, lengths=None, dtype='float32', scale=1.0):
    """lengths: how many axes valid_len has, or None."""
    batch, queries, keys = sizes[:3]
    valid_len = None if lengths is None else onp.random.RandomState(1).randint(
        0, keys + 3, (batch, queries)[:lengths]).astype('int32')
    made = Case(ops.additive_attention, arrays(*sizes, scale) + [valid_len, None], truth, dtype,
                wrt=[0, 1, 2, 3])
    made.grad_scale = largest_terms(made)
    return made


def largest_terms(made):
    """The largest sum of magnitudes that a gradient of a query is the sum of: they cancel."""
    query, key, value, v, valid_len, _ = made.exact()
    weights, _ = weigh(query, key, v, valid_len)
    dp = made.cotangent.astype('float64') @ value.swapaxes(1, 2)
    mean = (weights * dp).sum(-1, keepdims=True)
    return (weights * (abs(dp) + abs(mean))).sum(-1).max() * abs(v).max()


# batch, queries, keys, hidden, values: around the sizes of vectors, of groups of keys that share a
# division, and of blocks
SIZES = [(1, 1, 1, 1, 1), (2, 5, 7, 4, 6), (3, 1, 10, 32, 5), (1, 7, 3, 33, 2), (2, 65, 18, 16, 33),
         (3, 31, 33, 17, 1), (1, 66, 259, 8, 8), (17, 3, 6, 5, 4)]


@pytest.mark.parametrize('dtype', ['float32', 'float64', 'float16'])
@pytest.mark.parametrize('lengths', [None, 1, 2])
@pytest.mark.parametrize('sizes', SIZES, ids=str)
def test_battery(sizes, lengths, dtype):
    check_op(case(sizes, lengths, dtype), modes=dtype == 'float32' and sizes[1] < 10)


@pytest.mark.parametrize('dtype', ['float32', 'float64'])
@pytest.mark.parametrize('scale', [5.0, 30.0, 300.0])
def test_large_features(scale, dtype):
    """Up to saturated ones; beyond 34 (float64: 330) queries go without factors."""
    check_op(case(SIZES[1], 1, dtype, scale), modes=False)
    check_op(case(SIZES[3], None, dtype, scale), modes=False)


def run(inputs, dy=None, **attrs):
    """The output and the gradients of query, key, value and v."""
    inputs = [None if a is None else np.array(a, dtype=a.dtype) for a in inputs]
    for a in inputs[:4]:
        a.attach_grad()
    with autograd.record(train_mode=True):
        y = ops.additive_attention(*inputs, **attrs)
    y.backward(np.array(onp.ones(y.shape) if dy is None else dy, dtype=y.dtype))
    return [y.asnumpy()] + [a.grad.asnumpy() for a in inputs[:4]]


def gradients(query, key, value, v, valid_len, dy, factors=1.0):
    """Output and gradients by the formulas, in float64."""
    weights, t = weigh(query, key, v, valid_len)
    dp = dy @ value.swapaxes(1, 2) * factors
    ds = weights * (dp - (weights * dp).sum(-1, keepdims=True))
    u = ds[..., None] * (1 - t ** 2) * v
    kept = weights * factors
    return [kept @ value, u.sum(2), u.sum(1), kept.swapaxes(1, 2) @ dy,
            (ds[..., None] * t).sum((0, 1, 2))]


def check(got, want, tolerance=1e-5):
    for a, b in zip(got, want):
        assert onp.abs(a - b).max() < tolerance * max(1, onp.abs(b).max())


@pytest.mark.parametrize('dtype', ['float32', 'float64'])
@pytest.mark.parametrize('scale', [1e-6, 0.01])
def test_error_of_small_features_is_that_of_the_largest(scale, dtype):
    """A few units in the last place of sum(abs(v)), however small tanh is."""
    for sizes in SIZES:
        inputs = [a.astype(dtype) for a in arrays(*sizes, scale)]
        exact = [a.astype('float64') for a in inputs]
        score, value = 2 * abs(exact[3]).sum(), abs(exact[2]).max()  # 4 roundings of half a unit
        error = abs(run(inputs)[0] - truth(*exact)).max()
        assert error < (2 * score + 4) * EPS[dtype] * value


@pytest.mark.parametrize('scale', [1.0, 1e3])
def test_features_of_any_size_that_cancel(scale):
    """q + k is within (-3, 3) where both are far beyond what a factor e^2q can hold, and one query
    of a block goes by the factors, the next one without."""
    query, key, value, v = arrays(2, 6, 21, 9, 3)
    query[:, ::2] += 60 * scale
    key[:, 5:9] -= 60 * scale
    inputs = [a.astype('float32') for a in (query, key, value, v)]
    dy = onp.random.RandomState(4).standard_normal((2, 6, 3)).astype('float32')
    exact = [a.astype('float64') for a in inputs]
    check(run(inputs, dy), gradients(*exact, None, dy), 2e-4 if scale > 1 else 2e-5)
    check(run(exact, dy.astype('float64')), gradients(*exact, None, dy), 1e-12)


def test_what_factors_make_of_infinities():
    """tanh is 1 or -1 there, as in NumPy; infinities that meet with the other sign are no number,
    and neither is a NaN, whose query has no result."""
    query, key, value, v = (a.astype('float32') for a in arrays(1, 3, 9, 5, 2))
    key[0, 1, 2], key[0, 4, :] = onp.inf, -onp.inf
    got = run([query, key, value, v])[0]
    exact = truth(*(a.astype('float64') for a in (query, key, value, v)))
    assert onp.abs(got - exact).max() < 1e-5
    query[0, 1, 2], query[0, 2, 0] = -onp.inf, onp.nan
    got = run([query, key, value, v])[0]
    assert onp.abs(got[0, 0] - exact[0, 0]).max() < 1e-5 and onp.isnan(got[0, 1:]).all()
    key[0, 8] = onp.nan
    assert onp.isnan(run([query, key, value, v])[0]).all()


def test_query_without_keys_gets_the_mean_and_no_gradient():
    inputs = [a.astype('float32') for a in arrays(2, 3, 5, 4, 4)]
    inputs[1][0, 3] = onp.inf
    y, dq, dk, dv, dw = run(inputs + [onp.array([0, 3])])
    assert onp.abs(y[0] - inputs[2][0].mean(0)).max() < 1e-6
    assert (dq[0] == 0).all() and (dk[0] == 0).all() and onp.abs(dv[0] - 3 / 5).max() < 1e-6
    assert (dq[1] != 0).all() and (dk[1, :3] != 0).all() and (dk[1, 3:] == 0).all()
    assert (dw != 0).all()


def test_masked_keys_have_no_influence():
    """Not on a query that does not look at them, even if its neighbours do."""
    inputs = [a.astype('float32') for a in arrays(2, 70, 300, 8, 8)]
    lengths = onp.array([3, 290])
    clean = run(inputs + [lengths])
    for b in range(2):
        inputs[1][b, lengths[b]:] = onp.nan
        inputs[2][b, lengths[b]:] = onp.inf
    for got, want in zip(run(inputs + [lengths]), clean):
        assert onp.array_equal(got, want)
    inputs = [a.astype('float32') for a in arrays(2, 70, 300, 8, 8)]
    per_query = onp.full((2, 70), 3)
    clean = run(inputs + [per_query])[0]
    per_query[:, 1::2] = 7
    inputs[1][:, 4:7] = onp.nan
    got = run(inputs + [per_query])[0]
    assert onp.array_equal(got[:, ::2], clean[:, ::2]) and onp.isnan(got[:, 1::2]).all()


@pytest.mark.parametrize('sizes', [(0, 3, 4, 5, 6), (2, 0, 4, 5, 6), (2, 3, 0, 5, 6),
                                   (2, 3, 4, 0, 6), (2, 3, 4, 5, 0)], ids=str)
def test_no_elements(sizes):
    """Without keys the sum over them is 0; without hidden units all keys score the same."""
    inputs = [a.astype('float32') for a in arrays(*sizes)]
    y, dq, dk, dv, dw = run(inputs)
    assert y.shape == (sizes[0], sizes[1], sizes[4])
    want = inputs[2].mean(1, keepdims=True) if sizes[2] and not sizes[3] else 0 * y
    if y.size:
        assert onp.abs(y - want).max() < 1e-6
    assert all((g == 0).all() for g in (dq, dk, dw))
    assert dv.shape == inputs[2].shape and (sizes[1] or (dv == 0).all())


SEED = 2 * onp.random.RandomState(3).randint(0, 2, 64).astype('float32')


def test_dropout_in_output_and_gradients():
    inputs = [a.astype('float32') for a in arrays(2, 70, 300, 4, 3)]
    dy = onp.random.RandomState(4).standard_normal((2, 70, 3)).astype('float32')
    factors = philox.row_factors(SEED, (2, 70, 300), 0.3)
    assert 0.68 < (factors > 0).mean() < 0.72
    exact = [a.astype('float64') for a in inputs]
    check(run(inputs + [None, SEED], dy, dropout=0.3), gradients(*exact, None, dy, factors))
    for inactive in ([None, onp.ones_like(SEED)], [None, None]):
        check(run(inputs + inactive, dy, dropout=0.3), gradients(*exact, None, dy))


def test_random_seed_fits():
    inputs = [np.array(a) for a in arrays(1, 3, 50, 2, 2)]
    def call():
        return ops.additive_attention(*inputs, seed=ops.random_seed(inputs[0]),
                                      dropout=0.5).asnumpy()
    assert onp.array_equal(call(), call())
    with autograd.train_mode():
        assert not onp.array_equal(call(), call())


@pytest.mark.parametrize('dtype', ['float32', 'float64'])
def test_memory_is_linear_in_the_steps(dtype):
    """Of what is saved for backward and of the workspace, both ways; not one matrix of scores."""
    library = _library.library()
    kernel = _native.Kernel(library.c, 'additive_attention', library.isa)

    def size(steps):
        rows, v = (_native.Tensor.of(0, dtype, shape) for shape in ((1, steps, 64), (64,)))
        _, outputs, workspace = kernel.infer([rows] * 3 + [v, None, None], given='111100')
        saved = sum(onp.prod(t.shape) for t in outputs[1:])
        return onp.array([saved * 8, *workspace])
    at_4k, at_16k, at_64k = size(4096), size(16384), size(65536)
    assert (at_16k <= 4 * at_4k).all() and (at_64k <= 4 * at_16k).all()
    assert (at_64k < 65536 * 64 * 8 * 24).all()  # numbers for each step and unit


@pytest.mark.parametrize('target', ['v2', 'v3', 'v4'])
@pytest.mark.parametrize('dtype', ['float32', 'float64', 'float16'])
@pytest.mark.parametrize('sizes', [(1, 100, 600, 20, 24), (24, 9, 40, 33, 8)], ids=str)
def test_every_instruction_set_and_thread_count(sizes, dtype, target, runs_target):
    """The keys of one example are cut into parts, and many examples are given out whole."""
    runs_target(target)
    many = case(sizes, 2, dtype)
    many.arrays[0][0, ::3] += 40  # some queries beyond the factors
    many.arrays[5] = SEED
    many.attrs['dropout'] = 0.25
    exact = many.exact()
    factors = philox.row_factors(SEED, many.expected.shape[:2] + (sizes[2],), 0.25)
    want = gradients(*exact[:5], many.cotangent.astype('float64'), factors)
    want[1][exact[4] == 0] = 0  # what a query without keys gives away ...
    y, grads = run_kernel(many, target, threads=1)
    tolerance = 64 * EPS[dtype]
    check([y.astype('float64')], want[:1], tolerance)
    check([grads[i].astype('float64') for i in (0, 2)], [want[1], want[3]], tolerance)
    for threads in (2, 3):
        y_n, grads_n = run_kernel(many, target, threads)
        assert onp.array_equal(y, y_n)
        assert all(onp.array_equal(a, b) for a, b in zip(grads, grads_n))


@pytest.mark.parametrize('shapes, attrs, fragment', [
    (((2, 3), (2, 3, 4), (2, 3, 4), (4,)), {}, 'query must have 3 axes, got shape (2, 3)'),
    (((2, 3, 4), (3, 4), (2, 3, 4), (4,)), {}, 'key must have 3 axes, got shape (3, 4)'),
    (((2, 3, 4), (2, 3, 4), (2, 5), (4,)), {}, 'value must have 3 axes, got shape (2, 5)'),
    (((2, 3, 4), (2, 5, 6), (2, 5, 4), (4,)), {}, 'key must have shape (2, 5, 4), got (2, 5, 6)'),
    (((2, 3, 4), (1, 5, 4), (1, 5, 4), (4,)), {}, 'key must have shape (2, 5, 4), got (1, 5, 4)'),
    (((2, 3, 4), (2, 5, 4), (2, 6, 4), (4,)), {}, 'value must have shape (2, 5, 4), got (2, 6, 4)'),
    (((2, 3, 4), (2, 5, 4), (2, 5, 4), (3,)), {}, 'v must have shape (4,), got (3,)'),
    (((2, 3, 4), (2, 5, 4), (2, 5, 4), (1, 4)), {}, 'v must have shape (4,), got (1, 4)'),
    (((2, 3, 4), (2, 5, 4), (2, 5, 4), (4,), (3,)), {}, 'valid_len must have shape (2,), got (3,)'),
    (((2, 3, 4), (2, 5, 4), (2, 5, 4), (4,), (2, 5)), {},
     'valid_len must have shape (2, 3), got (2, 5)'),
    (((2, 3, 4), (2, 5, 4), (2, 5, 4), (4,), (2, 3, 5)), {},
     'valid_len must have shape (batch,) or (batch, queries), got (2, 3, 5)'),
    (((2, 3, 4), (2, 5, 4), (2, 5, 4), (4,), (2,), (63,)), {},
     'seed must have shape (64,), got (63,)'),
    (((2, 3, 4),) * 3 + ((4,),), {'dropout': 1.0},
     'dropout must be a number >= 0 and < 1, got 1.0'),
], ids=str)
def test_bad_calls(shapes, attrs, fragment):
    with pytest.raises(MXNetError, match='additive_attention: ') as error:
        ops.additive_attention(*(np.ones(s) for s in shapes), **attrs)
    assert fragment in str(error.value)


@pytest.mark.parametrize('position, dtype, fragment', [
    (0, 'int32', 'query must have dtype float16, float32 or float64, got int32'),
    (1, 'float64', 'key must have the dtype of query, float32, got float64'),
    (2, 'float16', 'value must have the dtype of query, float32, got float16'),
    (3, 'float64', 'v must have the dtype of query, float32, got float64'),
    (4, 'bool', 'valid_len must have a floating-point or integer dtype'),
    (5, 'float64', 'seed must have dtype float32, got float64'),
])
def test_bad_dtypes(position, dtype, fragment):
    inputs = [np.ones((2, 3, 4)) for _ in range(3)] + [np.ones(4), np.ones(2), np.ones(64)]
    inputs[position] = inputs[position].astype(dtype)
    with pytest.raises(MXNetError) as error:
        ops.additive_attention(*inputs)
    assert fragment in str(error.value)
