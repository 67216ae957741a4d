import numpy as onp
import pytest
from mxnet import autograd, np
from mxnet.base import MXNetError

from d2l import ops
from d2l.ops import _library, _native
from d2l.testing import EPS, Case, check_op, run_kernel
from tests import philox


def heads(x, num_heads):
    """(batch, heads, steps, d)."""
    return x.reshape(x.shape[:2] + (num_heads, x.shape[2] // num_heads)).swapaxes(1, 2)


def weigh(query, key, valid_len, num_heads, causal, scale):
    """The weights (batch, heads, queries, keys) in float64."""
    q, k = heads(query, num_heads), heads(key, num_heads)
    scores = q @ k.swapaxes(2, 3) * (scale or max(q.shape[-1], 1) ** -0.5)
    queries, keys = scores.shape[2:]
    n = onp.full((1, 1), keys) if valid_len is None else onp.ceil(valid_len)
    n = n.reshape(n.shape + (1,) * (2 - n.ndim))
    if causal:
        n = onp.minimum(n, onp.arange(1, queries + 1) + max(0, keys - queries))
    valid = onp.broadcast_to((onp.arange(keys) < n[..., None])[:, None], scores.shape)
    scores = onp.where(valid, scores, -1e300)  # all equal where none is valid
    e = onp.exp(scores - scores.max(-1, keepdims=True, initial=-1e300))
    return e / e.sum(-1, keepdims=True)


def truth(query, key, value, valid_len=None, seed=None, num_heads=1, causal=False, scale=0.0,
          dropout=0.0):
    weights = weigh(query, key, valid_len, num_heads, causal, scale)
    if seed is not None:
        weights = weights * philox.row_factors(seed, weights.shape, dropout)
    output = weights @ heads(value, num_heads)
    return output.swapaxes(1, 2).reshape(query.shape[:2] + value.shape[2:])


def arrays(batch, num_heads, queries, keys, d, v, seed=0):
    rng = onp.random.RandomState(seed)
    return [rng.standard_normal((batch, steps, num_heads * width))
            for steps, width in ((queries, d), (keys, d), (keys, v))]


def case(sizes, lengths=None, dtype='float32', **attrs):
    """lengths: how many axes valid_len has, or None."""
    batch, num_heads, queries, keys = sizes[:4]
    valid_len = None if lengths is None else onp.random.RandomState(1).randint(
        0, keys + 3, (batch, queries)[:lengths]).astype('int32')
    return Case(ops.attention, arrays(*sizes) + [valid_len, None], truth, dtype, wrt=[0, 1, 2],
                grad_scale=1.0, num_heads=num_heads, **attrs)


# batch, heads, queries, keys, d, v: around the sizes of vectors, tiles and blocks; the last one has
# many heads, which are not cut into parts
SIZES = [(1, 1, 1, 1, 1, 1), (2, 3, 5, 7, 4, 6), (1, 2, 7, 1, 3, 2), (2, 2, 65, 130, 16, 33),
         (3, 1, 31, 33, 17, 1), (1, 2, 70, 259, 8, 8), (1, 17, 9, 600, 2, 3)]


@pytest.mark.parametrize('dtype', ['float32', 'float64', 'float16'])
@pytest.mark.parametrize('lengths', [None, 1, 2])
@pytest.mark.parametrize('sizes', SIZES, ids=str)
def test_battery(sizes, lengths, dtype):
    check_op(case(sizes, lengths, dtype), modes=dtype == 'float32' and sizes[2] < 10)


@pytest.mark.parametrize('lengths', [None, 1, 2])
@pytest.mark.parametrize('sizes', SIZES[1:4], ids=str)
def test_causal(sizes, lengths):
    check_op(case(sizes, lengths, causal=True), modes=sizes[2] < 10)


def test_scale():
    check_op(case(SIZES[1], 1, scale=0.125), modes=False)
    check_op(case(SIZES[1], scale=3.0), modes=False)


def run(inputs, dy=None, **attrs):
    """The output and the gradients of query, key and value."""
    inputs = [None if a is None else np.array(a, dtype=a.dtype) for a in inputs]
    for a in inputs[:3]:
        a.attach_grad()
    with autograd.record(train_mode=True):
        y = ops.attention(*inputs, **attrs)
    y.backward(np.array(onp.ones(y.shape) if dy is None else dy, dtype=y.dtype))
    return [y.asnumpy()] + [a.grad.asnumpy() for a in inputs[:3]]


def test_scores_that_grow_and_shrink_by_far():
    """The running maximum: scores up to 1e4 rise over the blocks of keys in one row, fall in the
    other, and the last exp underflows in between."""
    keys = 600
    slope = onp.linspace(-1, 1, keys)[None, :, None] * 1e4
    query, key = onp.array([[[1.0], [-1.0], [1e-3]]]), slope
    value = arrays(1, 1, 3, keys, 1, 5)[2]
    inputs = [a.astype('float32') for a in (query, key, value)]
    y = run(inputs, num_heads=1)[0]
    exact = truth(*(a.astype('float64') for a in inputs))
    assert onp.abs(y - exact).max() < 1e-5
    assert onp.abs(y[0, 0] - inputs[2][0, -1]).max() == 0


def test_query_without_keys_gets_the_mean_and_no_gradient():
    query, key, value = (a.astype('float32') for a in arrays(2, 2, 3, 5, 4, 4))
    y, dq, dk, dv = run([query, key, value, onp.array([0, 3])], num_heads=2)
    assert onp.abs(y[0] - value[0].mean(0)).max() < 1e-6
    assert (dq[0] == 0).all() and (dk[0] == 0).all() and onp.abs(dv[0] - 3 / 5).max() < 1e-6
    assert (dq[1] != 0).all() and (dk[1, :3] != 0).all() and (dk[1, 3:] == 0).all()


def test_masked_keys_have_no_influence():
    inputs = [a.astype('float32') for a in arrays(2, 2, 70, 300, 8, 8)]
    lengths = onp.array([3, 290])
    clean = run(inputs + [lengths], num_heads=2)
    for b in range(2):
        inputs[1][b, lengths[b]:] = onp.nan
        inputs[2][b, lengths[b]:] = onp.inf
    for got, want in zip(run(inputs + [lengths], num_heads=2), clean):
        assert onp.array_equal(got, want)


def test_infinite_scores_are_as_in_numpy():
    query, key = onp.ones((1, 2, 1), 'float32'), onp.zeros((1, 4, 1), 'float32')
    key[0, 1], key[0, 3] = -onp.inf, onp.inf
    value = onp.arange(4, dtype='float32').reshape(1, 4, 1)
    y = run([query, key, value, onp.array([[3, 4]])], num_heads=1)[0]
    assert y[0, 0, 0] == 1 and onp.isnan(y[0, 1, 0])
    key[:] = -onp.inf
    assert onp.isnan(run([query, key, value], num_heads=1)[0]).all()


@pytest.mark.parametrize('sizes', [(0, 2, 3, 4, 5, 6), (2, 2, 0, 4, 5, 6), (2, 2, 3, 0, 5, 6),
                                   (2, 2, 3, 4, 0, 6), (2, 2, 3, 4, 5, 0)], ids=str)
def test_no_elements(sizes):
    """Without keys the sum over them is 0; without features all keys score the same."""
    inputs = [a.astype('float32') for a in arrays(*sizes)]
    y, dq, dk, dv = run(inputs, num_heads=2)
    assert y.shape == (sizes[0], sizes[2], 2 * sizes[5])
    want = inputs[2].mean(1, keepdims=True) if sizes[3] and not sizes[4] else 0 * y
    if y.size:
        assert onp.abs(y - want).max() < 1e-6
    assert all((g == 0).all() for g in (dq, dk))


SEED = 2 * onp.random.RandomState(3).randint(0, 2, 64).astype('float32')


def dropped_weights(sizes, rate, seed=SEED, **attrs):
    """(weights, factors) as the kernel sees them: a sum of unit vectors shows its weights."""
    batch, num_heads, queries, keys = sizes[:4]
    query, key, _ = (a.astype('float32') for a in arrays(*sizes))
    units = onp.tile(onp.eye(keys, dtype='float32'), (batch, 1, num_heads))
    inputs = [query, key, units, None, seed]
    y = heads(run(inputs, num_heads=num_heads, dropout=rate, **attrs)[0], num_heads)
    weights = weigh(query.astype('float64'), key.astype('float64'), None, num_heads, False, 0)
    return weights, y / weights


@pytest.mark.parametrize('rate', [0.1, 0.5, 0.9])
def test_dropout_drops_at_its_rate(rate):
    _, factors = dropped_weights((2, 2, 100, 300, 4, 1), rate)
    kept = factors > 0
    assert onp.abs(factors[kept] - 1 / (1 - rate)).max() < 1e-4
    assert abs(kept.mean() - (1 - rate)) < 4 * (rate * (1 - rate) / kept.size) ** 0.5
    flat = kept.reshape(4, -1)
    for i in range(1, 4):  # another head, another mask
        assert 0 < (flat[0] != flat[i]).mean() <= 1
    assert (kept[0, 0, 0] != kept[0, 0, 1]).any()


def check_results(got, inputs, dy, weights, kept=1.0):
    """The output and the gradients of two heads, of dim 4, with these weights and factors."""
    q, k, v, g = (heads(a.astype('float64'), 2) for a in inputs + [dy])
    dp = (g @ v.swapaxes(2, 3)) * kept
    ds = weights * (dp - (weights * dp).sum(-1, keepdims=True)) / 2
    want = [(weights * kept) @ v, ds @ k, ds.swapaxes(2, 3) @ q,
            (weights * kept).swapaxes(2, 3) @ g]
    for a, b in zip(got, want):
        assert onp.abs(heads(a, 2) - b).max() < 1e-5 * max(1, onp.abs(b).max())


# batch, heads, queries, keys, d, v: one block of keys; several, cut into parts
@pytest.mark.parametrize('sizes', [(3, 2, 150, 130, 4, 6), (1, 2, 70, 600, 4, 3)], ids=str)
@pytest.mark.parametrize('rate', [0.0, 0.3])
@pytest.mark.parametrize('causal', [False, True])
@pytest.mark.parametrize('queries', [0.3, 0.95, slice(20, None), slice(0, 30), slice(None)],
                         ids=str)
def test_queries_without_a_gradient(queries, causal, rate, sizes):
    """Of all heads, and of the first one others beside."""
    inputs = [a.astype('float32') for a in arrays(*sizes)]
    rng = onp.random.RandomState(6)
    dy = rng.standard_normal(inputs[0].shape[:2] + (2 * sizes[5],)).astype('float32')
    if not isinstance(queries, slice):
        queries = rng.uniform(size=sizes[2]) < queries
    dy[:, queries] *= 0.0
    dy[:, ::3, :sizes[5]] = 0
    got = run(inputs + [None, SEED], dy, num_heads=2, causal=causal, dropout=rate)
    weights = weigh(*(a.astype('float64') for a in inputs[:2]), None, 2, causal, 0)
    check_results(got, inputs, dy, weights, philox.row_factors(SEED, weights.shape, rate))
    assert not got[1][:, queries].any()


def test_a_query_without_a_gradient_has_no_influence():
    inputs = [a.astype('float32') for a in arrays(2, 2, 150, 130, 4, 6)]
    dy = onp.ones((2, 150, 12), 'float32')
    dy[:, 100:] = 0
    want = run(inputs, dy, num_heads=2)
    inputs[0][:, 100:] = onp.nan
    got = run(inputs, dy, num_heads=2)
    assert onp.isnan(got[0][:, 100:]).all()
    assert all(onp.array_equal(a, b) for a, b in zip(got[1:], want[1:]))


def test_dropout_in_output_and_gradients():
    sizes = (2, 2, 70, 300, 4, 3)
    weights, factors = dropped_weights(sizes, 0.3)
    assert onp.abs(factors - philox.row_factors(SEED, factors.shape, 0.3)).max() < 1e-3
    inputs = [a.astype('float32') for a in arrays(*sizes)]
    dy = onp.random.RandomState(4).standard_normal((2, 70, 6)).astype('float32')
    got = run(inputs + [None, SEED], dy, num_heads=2, dropout=0.3)
    check_results(got, inputs, dy, weights, onp.where(factors > 0, 1 / 0.7, 0))


def test_seed_decides():
    sizes = (1, 1, 5, 40, 2, 1)
    first, again = (dropped_weights(sizes, 0.5)[1] for _ in range(2))
    other = dropped_weights(sizes, 0.5, 2 - SEED)[1]
    assert onp.array_equal(first, again) and not onp.array_equal(first > 0, other > 0)
    for inactive in (dropped_weights(sizes, 0.0), dropped_weights(sizes, 0.5, onp.ones_like(SEED))):
        assert onp.abs(inactive[1] - 1).max() < 1e-5


def test_random_seed_fits():
    query, key, value = (np.array(a) for a in arrays(1, 1, 3, 50, 2, 2))
    def call():
        return ops.attention(query, key, value, seed=ops.random_seed(query), dropout=0.5).asnumpy()
    assert onp.array_equal(call(), call())
    with autograd.train_mode():
        assert not onp.array_equal(call(), call())


@pytest.mark.parametrize('dtype', ['float32', 'float64'])
@pytest.mark.parametrize('heads_of_all', [1, 8, 64])
def test_memory_is_linear_in_the_steps(heads_of_all, dtype):
    """Of what is saved for backward and of the workspace, both ways; not one matrix of scores."""
    library = _library.library()
    kernel = _native.Kernel(library.c, 'attention', library.isa)

    def size(steps):
        tensor = _native.Tensor.of(0, dtype, (1, steps, 64 * heads_of_all))
        _, outputs, workspace = kernel.infer(
            [tensor] * 3 + [None, None], given='11100', num_heads=heads_of_all)
        saved = sum(onp.prod(t.shape) for t in outputs[1:])
        return onp.array([saved * 8, *workspace])
    at_4k, at_16k, at_64k = size(4096), size(16384), size(65536)
    assert (at_16k <= 4 * at_4k).all() and (at_64k <= 4 * at_16k).all()
    # Per step and head: numbers for each of 64 features, and what does not grow.
    assert (at_64k < heads_of_all * 65536 * 64 * 8 * 24).all()


@pytest.mark.parametrize('target', ['v2', 'v3', 'v4'])
@pytest.mark.parametrize('dtype', ['float32', 'float64', 'float16'])
@pytest.mark.parametrize('sizes', [(1, 2, 200, 600, 20, 24), (3, 8, 70, 100, 8, 8)], ids=str)
def test_every_instruction_set_and_thread_count(sizes, dtype, target, runs_target):
    """One head is cut into parts, and many are given out whole."""
    runs_target(target)
    many = case(sizes, 2, dtype, causal=True)
    y, grads = run_kernel(many, target, threads=1)
    assert onp.abs(y.astype('float64') - many.expected).max() < 16 * EPS[dtype]
    many.arrays[4] = SEED
    many.attrs['dropout'] = 0.25
    alone = run_kernel(many, target, threads=1)
    expected = truth(*many.exact(), **many.attrs)
    assert onp.abs(alone[0].astype('float64') - expected).max() < 16 * EPS[dtype]
    for threads in (2, 3):
        y_n, grads_n = run_kernel(many, target, threads)
        assert onp.array_equal(alone[0], y_n)
        assert all(onp.array_equal(a, b) for a, b in zip(alone[1], grads_n))


@pytest.mark.parametrize('shapes, attrs, fragment', [
    (((2, 3), (2, 3, 4), (2, 3, 4)), {}, 'query must have 3 axes, got shape (2, 3)'),
    (((2, 3, 4), (3, 4), (2, 3, 4)), {}, 'key must have 3 axes, got shape (3, 4)'),
    (((2, 3, 4), (2, 5, 4), (2, 5)), {}, 'value must have 3 axes, got shape (2, 5)'),
    (((2, 3, 4), (2, 5, 6), (2, 5, 4)), {}, 'key must have shape (2, 5, 4), got (2, 5, 6)'),
    (((2, 3, 4), (1, 5, 4), (1, 5, 4)), {}, 'key must have shape (2, 5, 4), got (1, 5, 4)'),
    (((2, 3, 4), (2, 5, 4), (2, 6, 4)), {}, 'value must have shape (2, 5, 4), got (2, 6, 4)'),
    (((2, 3, 4), (2, 5, 4), (2, 5, 4)), {'num_heads': 3},
     'query must have a last axis that num_heads, 3, divides, got shape (2, 3, 4)'),
    (((2, 3, 4), (2, 5, 4), (2, 5, 3)), {'num_heads': 2},
     'value must have a last axis that num_heads, 2, divides, got shape (2, 5, 3)'),
    (((2, 3, 4), (2, 5, 4), (2, 5, 4), (3,)), {}, 'valid_len must have shape (2,), got (3,)'),
    (((2, 3, 4), (2, 5, 4), (2, 5, 4), (2, 5)), {}, 'valid_len must have shape (2, 3), got (2, 5)'),
    (((2, 3, 4), (2, 5, 4), (2, 5, 4), (2, 3, 5)), {},
     'valid_len must have shape (batch,) or (batch, queries), got (2, 3, 5)'),
    (((2, 3, 4), (2, 5, 4), (2, 5, 4), (2,), (63,)), {}, 'seed must have shape (64,), got (63,)'),
    (((2, 3, 4),) * 3, {'num_heads': 0}, 'num_heads must be an integer from 1'),
    (((2, 3, 4),) * 3, {'causal': 'yes'}, 'causal must be True or False, got yes'),
    (((2, 3, 4),) * 3, {'scale': -1.0}, 'scale must be a finite number >= 0, got -1.0'),
    (((2, 3, 4),) * 3, {'dropout': 1.0}, 'dropout must be a number >= 0 and < 1, got 1.0'),
], ids=str)
def test_bad_calls(shapes, attrs, fragment):
    with pytest.raises(MXNetError, match='attention: ') as error:
        ops.attention(*(np.ones(s) for s in shapes), **attrs)
    assert fragment in str(error.value)


@pytest.mark.parametrize('position, dtype, fragment', [
    (0, 'int32', 'query must have dtype float16, float32 or float64, got int32'),
    (1, 'float64', 'key must have the dtype of query, float32, got float64'),
    (2, 'float16', 'value must have the dtype of query, float32, got float16'),
    (3, 'bool', 'valid_len must have a floating-point or integer dtype'),
    (4, 'float64', 'seed must have dtype float32, got float64'),
])
def test_bad_dtypes(position, dtype, fragment):
    inputs = [np.ones((2, 3, 4)) for _ in range(3)] + [np.ones(2), np.ones(64)]
    inputs[position] = inputs[position].astype(dtype)
    with pytest.raises(MXNetError) as error:
        ops.attention(*inputs)
    assert fragment in str(error.value)
