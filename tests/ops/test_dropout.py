import mxnet as mx
import numpy as onp
import pytest
from mxnet import autograd, gluon, np, npx
from mxnet.base import MXNetError

from d2l import ops
from d2l.testing import Case, check_op, export_and_import, run_kernel
from tests import philox

SEED = philox.new_seed(0)
SHAPES = [(1,), (3, 2), (5, 31), (2, 3, 32), (4, 33), (1, 1023), (65, 128), (2, 4097)]


def truth(x, seed, p=0.5):
    return x * philox.flat_factors(seed, x.shape, p)


def reference(x, seed, p=0.5):
    return x * np.array(philox.flat_factors(seed, x.shape, p), dtype=x.dtype)


def case(shape, dtype='float32', seed=SEED, **attrs):
    x = onp.random.RandomState(1).standard_normal(shape)
    return Case(philox.with_seed(ops.dropout, reference), [x, seed.astype('int8')], truth,
                dtype=dtype, **attrs)


def drop(x, p=0.5):
    return ops.dropout(x, ops.random_seed(x), p=p)


def masks(shape, count, p=0.5):
    """Masks of so many calls, as arrays of 0 and 1."""
    with autograd.train_mode():
        return onp.stack([drop(np.ones(shape), p).asnumpy() > 0 for _ in range(count)])


@pytest.mark.parametrize('dtype', ['float32', 'float64', 'float16'])
@pytest.mark.parametrize('shape', SHAPES, ids=str)
def test_battery(shape, dtype):
    check_op(case(shape, dtype, p=0.3), modes=dtype == 'float32')


@pytest.mark.parametrize('p', [0.0, 0.1, 0.5, 0.999])
def test_rates(p):
    check_op(case((7, 1000), p=p), modes=False)


def test_predict_seed():
    check_op(case((7, 100), seed=onp.ones(64)), modes=True)


@pytest.mark.parametrize('shape', [(0, 5), (3, 0), (0,)], ids=str)
def test_no_elements(shape):
    with autograd.train_mode():
        assert drop(np.zeros(shape)).shape == shape


def test_single_number():
    check_op(case(()), modes=False)


def kernel_case(shape, dtype='float32', p=0.3):
    """What run_kernel takes: the seed stays float32."""
    found = Case(ops.dropout, [onp.random.RandomState(1).standard_normal(shape), SEED], truth,
                 dtype=dtype, p=p)
    found.arrays[1] = SEED
    return found


@pytest.mark.parametrize('target', ['v2', 'v3', 'v4'])
@pytest.mark.parametrize('dtype', ['float32', 'float64', 'float16'])
def test_every_instruction_set_and_thread_count(target, dtype, runs_target):
    runs_target(target)
    many = kernel_case((70, 1931), dtype)
    y, grads = run_kernel(many, target, threads=1)
    scale = onp.array(1 / 0.7).astype('float32' if dtype == 'float16' else dtype)
    kept = philox.flat_factors(SEED, y.shape, 0.3) > 0
    for got, given in ((y, many.arrays[0]), (grads[0], many.cotangent)):
        # The same for all instruction sets: one product, rounded once.
        want = onp.where(kept, given.astype(scale.dtype) * scale, 0)
        assert onp.array_equal(got, want.astype(dtype))
    assert not grads[1].any()
    for threads in (2, 3):
        y_n, grads_n = run_kernel(many, target, threads)
        assert onp.array_equal(y, y_n) and onp.array_equal(grads[0], grads_n[0])


@pytest.mark.parametrize('p', [0.1, 0.5, 0.9])
def test_rate(p):
    kept = masks((1000, 1000), 2, p)
    assert abs(kept.mean() - (1 - p)) < 5 * (p * (1 - p) / kept.size) ** 0.5
    # In each row and each column, too: 4000 chances of being far off.
    for axis in (1, 2):
        n = kept.shape[axis]
        assert abs(kept.mean(axis) - (1 - p)).max() < 6 * (p * (1 - p) / n) ** 0.5


@pytest.mark.parametrize('lag', [1, 2, 16, 32, 64, 128, 1024, 4096, 8192])
def test_no_correlation_between_places(lag):
    kept = masks((1 << 20,), 1, 0.5)[0] - 0.5
    product = kept[lag:] * kept[:-lag]
    assert abs(4 * product.mean()) < 5 / product.size ** 0.5


def test_no_correlation_between_calls():
    kept = masks((1 << 18,), 5, 0.5) - 0.5
    correlation = 4 * (kept @ kept.T) / kept.shape[1]
    assert abs(correlation - onp.eye(5)).max() < 5 / kept.shape[1] ** 0.5


@pytest.mark.parametrize('reseed', [mx.random.seed, npx.random.seed])
def test_same_again_after_the_same_seed(reseed):
    reseed(3)
    first = masks((30, 40), 3)
    reseed(3)
    assert onp.array_equal(first, masks((30, 40), 3))
    assert len({mask.tobytes() for mask in first}) == 3


def test_seed_decides_whatever_shape_and_dtype():
    seed, x = np.array(SEED), np.ones(6000)
    whole = ops.dropout(x, seed, p=0.2)
    assert (ops.dropout(x.reshape(30, 200), seed, p=0.2).reshape(-1) == whole).all()
    assert (ops.dropout(x[:77], seed, p=0.2) == whole[:77]).all()
    half = ops.dropout(x.astype('float16'), seed, p=0.2)
    assert ((half > 0) == (whole > 0)).all()


def odd_values():
    """Floats with all kinds of bits: NaNs with payloads, infinities, -0, subnormal numbers."""
    bits = onp.random.RandomState(0).randint(0, 2 ** 32, 5000, dtype='uint64').astype('uint32')
    bits[:4] = [0x7fc12345, 0x7f800000, 0x80000000, 1]
    return bits.view('float32')


@pytest.mark.parametrize('train, p', [(False, 0.5), (True, 0.0)])
def test_identity_to_the_last_bit(train, p):
    x = np.array(odd_values())
    x.attach_grad()
    with autograd.record(train_mode=train):
        y = drop(x, p)
    y.backward(x)
    for got in (y, x.grad):
        assert got.asnumpy().tobytes() == odd_values().tobytes()


def test_dropped_is_zero_whatever_it_was():
    x = onp.tile(onp.array([onp.nan, onp.inf, -onp.inf, -1], 'float32'), 200)
    y = ops.dropout(np.array(x), np.array(SEED), p=0.5).asnumpy()
    kept = philox.flat_factors(SEED, x.shape, 0.5) > 0
    assert y[~kept].tobytes() == bytes(4 * (~kept).sum())
    assert onp.array_equal(y[kept], 2 * x[kept], equal_nan=True)


class Net(gluon.HybridBlock):
    def hybrid_forward(self, F, x):
        return drop(x, 0.5)


@pytest.mark.parametrize('mode', ['imperative', 'hybrid', 'static', 'exported'])
def test_obeys_train_and_predict_mode(mode):
    """One traced graph for both, in turns; the gradient has the mask of its forward pass."""
    net, x = Net(), np.ones((50, 70))
    if mode != 'imperative':
        net.hybridize(**({'static_alloc': True, 'static_shape': True} if mode == 'static' else {}))
    if mode == 'exported':
        net = export_and_import(net, [x])
    x.attach_grad()
    seen = set()
    for _ in range(3):
        assert (net(x) == 1).all()
        with autograd.record(train_mode=False):
            assert (net(x) == 1).all()
        with autograd.record():
            y = net(x)
        y.backward()
        assert set(onp.unique(y.asnumpy())) == {0.0, 2.0} and (x.grad == y).all()
        seen.add(y.asnumpy().tobytes())
    assert len(seen) == 3


def test_composed():
    """Without the kernel, MXNet's dropout: the same rate, and the same modes."""
    x = np.ones((100, 100))
    with ops.composed():
        assert (drop(x) == 1).all()
        with autograd.train_mode():
            assert 0.45 < (drop(x) == 2).mean() < 0.55


@pytest.mark.parametrize('seed, dtype, attrs, fragment', [
    ((65,), 'float32', {}, 'seed must have shape (64,), got (65,)'),
    ((8, 8), 'float32', {}, 'seed must have shape (64,), got (8, 8)'),
    ((64,), 'float64', {}, 'seed must have dtype float32, got float64'),
    ((64,), 'float32', {'p': 1}, 'p must be a number >= 0 and < 1, got 1'),
    ((64,), 'float32', {'p': -0.1}, 'p must be a number >= 0 and < 1, got -0.1'),
    ((64,), 'float32', {'p': float('nan')}, 'p must be a number >= 0 and < 1, got nan'),
    ((64,), 'float32', {'p': 'half'}, 'p must be a number >= 0 and < 1, got half'),
])
def test_bad_arguments(seed, dtype, attrs, fragment):
    with pytest.raises(MXNetError, match='dropout: ') as error:
        ops.dropout(np.ones((2, 3)), np.ones(seed, dtype=dtype), **attrs)
    assert fragment in str(error.value)


def test_bad_data():
    with pytest.raises(MXNetError) as error:
        ops.dropout(np.ones(3, dtype='int32'), np.array(SEED))
    assert 'data must have dtype float16, float32 or float64, got int32' in str(error.value)
    with pytest.raises(TypeError, match='dropout: seed must be an MXNet array or symbol'):
        ops.dropout(np.ones(3), 0.5)
