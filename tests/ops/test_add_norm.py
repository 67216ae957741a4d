import mxnet as mx
import numpy as onp
import pytest
from mxnet import autograd, gluon, np
from mxnet.base import MXNetError

from d2l import ops
from d2l.testing import EPS, Case, check_op, export_and_import, run_kernel
from tests import philox

SEED = philox.new_seed(0)
SHAPES = [(3, 2), (5, 31), (2, 3, 32), (4, 33), (2, 2, 2, 7), (7,), (33, 1023), (65, 64),
          (300, 17), (5, 129)]


def truth(X, Y, gamma, beta, seed=None, p=0.0, eps=1e-5):
    z = X + Y * (1 if seed is None else philox.row_factors(seed, X.shape, p))
    mean = z.mean(-1, keepdims=True)
    variance = ((z - mean) ** 2).mean(-1, keepdims=True)
    return (z - mean) / onp.sqrt(variance + eps) * gamma + beta


def reference(X, Y, gamma, beta, seed, p=0.0, eps=1e-5):
    factors = np.array(philox.row_factors(seed, X.shape, p), dtype=X.dtype)
    return ops.layer_norm.body(mx.nd, X + Y * factors, gamma, beta, eps=eps)


def arrays(shape, mean=0.0):
    rng = onp.random.RandomState(3)
    X, Y = rng.standard_normal((2,) + shape)
    return [mean + X, Y, *rng.standard_normal((2, shape[-1]))]


def case(shape, dtype='float32', seed=SEED, mean=0.0, **attrs):
    values = arrays(shape, mean)
    z = values[0] + values[1] * philox.row_factors(seed, shape, attrs.get('p', 0.0))
    rstd = 1 / onp.sqrt(z.var(-1).min() + attrs.get('eps', 1e-5))
    size = rstd * onp.abs(values[2]).max() / (1 - attrs.get('p', 0.0))
    return Case(philox.with_seed(ops.add_norm, reference), [*values, seed.astype('int8')], truth,
                dtype=dtype, grad_scale=size, **attrs)


@pytest.mark.parametrize('dtype', ['float32', 'float64', 'float16'])
@pytest.mark.parametrize('shape', SHAPES, ids=str)
def test_battery(shape, dtype):
    check_op(case(shape, dtype, p=0.3), modes=dtype == 'float32')


def without_seed(shape, dtype='float32'):
    values = arrays(shape)
    z = values[0] + values[1]
    size = onp.abs(values[2]).max() / onp.sqrt(z.var(-1).min() + 1e-5)
    return Case(ops.add_norm, [*values, None], truth, dtype=dtype, grad_scale=size)


@pytest.mark.parametrize('dtype', ['float32', 'float64', 'float16'])
@pytest.mark.parametrize('shape', [(1, 3), (5, 31), (2, 3, 64), (300, 17)], ids=str)
def test_battery_without_seed(shape, dtype):
    check_op(without_seed(shape, dtype), modes=dtype == 'float32')


@pytest.mark.parametrize('attrs', [{}, {'p': 0.9}, {'p': 0.1, 'eps': 0.5}, {'eps': 0.0}], ids=str)
def test_attributes(attrs):
    check_op(case((6, 200), **attrs), modes=False)


def test_predict_seed():
    check_op(case((6, 200), seed=onp.ones(64), p=0.5), modes=True)


def test_mean_far_above_spread():
    check_op(case((9, 257), mean=1e4, p=0.5), modes=False)


def test_is_layer_norm_of_the_sum():
    """Without dropout, to the last bit: the row functions are those of layer_norm."""
    X, Y, gamma, beta = (np.array(a, dtype='float32') for a in arrays((40, 100)))
    for seed, p in ((None, 0.0), (None, 0.5), (np.ones(64), 0.5), (np.array(SEED), 0.0)):
        y = ops.add_norm(X, Y, gamma, beta, seed, p=p)
        assert (y == ops.layer_norm(X + Y, gamma, beta)).all()


def test_gradients_are_those_of_layer_norm():
    given = [np.array(a, dtype='float32') for a in arrays((100, 70))]
    seed, factors = np.array(SEED), philox.row_factors(SEED, (100, 70), 0.5).astype('float32')
    results = []
    for op in (lambda X, Y, *rest: ops.add_norm(X, Y, *rest, seed, p=0.5),
               lambda X, Y, *rest: ops.layer_norm(X + Y * np.array(factors), *rest)):
        for a in given:
            a.attach_grad()
        with autograd.record():
            y = op(*given)
        y.backward(given[0])
        results.append([y.asnumpy()] + [a.grad.asnumpy() for a in given])
    for fused, composed in zip(*results):
        assert onp.array_equal(fused, composed)
    assert onp.array_equal(results[0][2] == 0, factors == 0)


@pytest.mark.parametrize('shape', [(0, 5), (3, 0), (0,)], ids=str)
def test_no_elements(shape):
    X, channel = np.zeros(shape), np.zeros(shape[-1])
    assert ops.add_norm(X, X, channel, channel, np.array(SEED), p=0.5).shape == shape


def kernel_case(shape, dtype, p=0.3):
    found = Case(ops.add_norm, [*arrays(shape), SEED], truth, dtype=dtype, p=p)
    found.arrays[4] = SEED
    return found


@pytest.mark.parametrize('target', ['v2', 'v3', 'v4'])
@pytest.mark.parametrize('dtype', ['float32', 'float64', 'float16'])
def test_every_instruction_set_and_thread_count(target, dtype, runs_target):
    runs_target(target)
    many = kernel_case((700, 193), dtype)
    y, grads = run_kernel(many, target, threads=1)
    assert onp.abs(y.astype('float64') - many.expected).max() < 60 * EPS[dtype]
    factors = philox.row_factors(SEED, (700, 193), 0.3)
    assert onp.array_equal(grads[1] == 0, factors == 0)
    assert not grads[4].any()
    for threads in (2, 3):
        y_n, grads_n = run_kernel(many, target, threads)
        assert onp.array_equal(y, y_n)
        assert all(onp.array_equal(a, b) for a, b in zip(grads, grads_n))


class Net(gluon.HybridBlock):
    def hybrid_forward(self, F, X, Y, gamma, beta):
        return ops.add_norm(X, Y, gamma, beta, ops.random_seed(X), p=0.5)


@pytest.mark.parametrize('mode', ['imperative', 'hybrid', 'static', 'exported'])
def test_obeys_train_and_predict_mode(mode):
    net, given = Net(), [np.array(a, dtype='float32') for a in arrays((20, 50))]
    want = ops.add_norm(*given)
    if mode != 'imperative':
        net.hybridize(**({'static_alloc': True, 'static_shape': True} if mode == 'static' else {}))
    if mode == 'exported':
        net = export_and_import(net, given)
    given[1].attach_grad()
    seen = set()
    for _ in range(3):
        assert (net(*given) == want).all()
        with autograd.record():
            y = net(*given)
        y.backward()
        zeros = (given[1].grad == 0).asnumpy()
        assert 0.3 < zeros.mean() < 0.7 and not (y == want).all()
        seen.add(zeros.tobytes())
    assert len(seen) == 3


def test_composed():
    given = [np.array(a, dtype='float32') for a in arrays((20, 50))]
    seed = ops.random_seed(given[0])
    with ops.composed():
        predicted = ops.add_norm(*given, seed, p=0.5)
        with autograd.train_mode():
            trained = ops.add_norm(*given, seed, p=0.5)
    want = ops.layer_norm(given[0] + given[1], *given[2:])
    onp.testing.assert_allclose(predicted.asnumpy(), want.asnumpy(), rtol=1e-4, atol=1e-5)
    assert (abs(trained - want) > 0.01).mean() > 0.5


SHAPE, CHANNEL = (3, 4), (4,)


@pytest.mark.parametrize('shapes, attrs, fragment', [
    ([SHAPE, (4,), CHANNEL, CHANNEL], {}, 'Y must have shape (3, 4), got (4,)'),
    ([SHAPE, (3, 5), CHANNEL, CHANNEL], {}, 'Y must have shape (3, 4), got (3, 5)'),
    ([SHAPE, SHAPE, (5,), CHANNEL], {}, 'gamma must have shape (4,), got (5,)'),
    ([SHAPE, SHAPE, CHANNEL, (4, 1)], {}, 'beta must have shape (4,), got (4, 1)'),
    ([SHAPE, SHAPE, CHANNEL, CHANNEL, (2,)], {}, 'seed must have shape (64,), got (2,)'),
    ([SHAPE, SHAPE, CHANNEL, CHANNEL], {'eps': -1}, 'eps must be a finite number >= 0, got -1'),
    ([SHAPE, SHAPE, CHANNEL, CHANNEL], {'p': 1.5}, 'p must be a number >= 0 and < 1, got 1.5'),
    ([(), (), (1,), (1,)], {}, 'X must have at least 1 axis'),
])
def test_bad_shapes_and_attributes(shapes, attrs, fragment):
    with pytest.raises(MXNetError, match='add_norm: ') as error:
        ops.add_norm(*map(np.ones, shapes), **attrs)
    assert fragment in str(error.value)


@pytest.mark.parametrize('position, dtype, fragment', [
    (0, 'int32', 'X must have dtype float16, float32 or float64, got int32'),
    (1, 'float64', 'Y must have the dtype of X, float32, got float64'),
    (3, 'float16', 'beta must have the dtype of X, float32, got float16'),
    (4, 'float64', 'seed must have dtype float32, got float64'),
])
def test_bad_dtypes(position, dtype, fragment):
    given = [np.ones(SHAPE), np.ones(SHAPE), np.ones(4), np.ones(4), np.ones(64)]
    given[position] = given[position].astype(dtype)
    with pytest.raises(MXNetError) as error:
        ops.add_norm(*given)
    assert fragment in str(error.value)
