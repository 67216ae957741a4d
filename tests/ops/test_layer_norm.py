import numpy as onp
import pytest
from mxnet import np
from mxnet.base import MXNetError

from d2l import ops
from d2l.nn import LayerNorm
from d2l.testing import EPS, Case, check_block, check_op, run_kernel


def truth(x, gamma, beta, eps=1e-5):
    mean = x.mean(-1, keepdims=True)
    variance = ((x - mean) ** 2).mean(-1, keepdims=True)
    return (x - mean) / onp.sqrt(variance + eps) * gamma + beta


def case(shape, dtype='float32', mean=0.0, spread=1.0, seed=0, **attrs):
    rng = onp.random.RandomState(seed)
    x = mean + spread * rng.standard_normal(shape)
    gamma, beta = rng.standard_normal((2, shape[-1]))
    rstd = 1 / onp.sqrt(x.var(-1).min() + attrs.get('eps', 1e-5))
    return Case(ops.layer_norm, [x, gamma, beta], truth, dtype=dtype,
                grad_scale=rstd * onp.abs(gamma).max(), **attrs)


SHAPES = [(1, 1), (3, 2), (5, 31), (2, 3, 32), (4, 33), (2, 2, 2, 7), (7,), (33, 1023), (65, 64),
          (300, 17)]


@pytest.mark.parametrize('dtype', ['float32', 'float64', 'float16'])
@pytest.mark.parametrize('shape', SHAPES, ids=str)
def test_battery(shape, dtype):
    check_op(case(shape, dtype), modes=dtype == 'float32')


@pytest.mark.parametrize('mean', [1e2, 1e4])
def test_mean_far_above_spread(mean):
    check_op(case((9, 257), mean=mean), modes=False)


def test_constant_row_is_beta():
    beta = np.array([1.0, 2.0, 3.0])
    y = ops.layer_norm(np.full((2, 3), 7.0), np.ones(3), beta)
    assert onp.array_equal(y.asnumpy(), onp.tile(beta.asnumpy(), (2, 1)))


@pytest.mark.parametrize('shape', [(0, 5), (3, 0), (0,)], ids=str)
def test_no_elements(shape):
    y = ops.layer_norm(np.zeros(shape), np.ones(shape[-1]), np.zeros(shape[-1]))
    assert y.shape == shape


def test_attributes():
    check_op(case((4, 9), eps=0.5), modes=True)
    check_op(case((4, 9), eps=0.0), modes=False)


@pytest.mark.parametrize('target', ['v2', 'v3', 'v4'])
@pytest.mark.parametrize('dtype', ['float32', 'float64', 'float16'])
def test_every_instruction_set_and_thread_count(target, dtype, runs_target):
    runs_target(target)
    many = case((700, 193), dtype)  # enough work for several threads and several blocks of rows
    y, grads = run_kernel(many, target, threads=1)
    assert onp.abs(y.astype('float64') - many.expected).max() < 60 * EPS[dtype]
    for threads in (2, 3):
        y_n, grads_n = run_kernel(many, target, threads)
        assert onp.array_equal(y, y_n)
        assert all(onp.array_equal(a, b) for a, b in zip(grads, grads_n))


@pytest.mark.parametrize('arrays, attrs, fragment', [
    (((3, 4), (5,), (4,)), {}, 'gamma must have shape (4,), got (5,)'),
    (((3, 4), (4,), (4, 1)), {}, 'beta must have shape (4,), got (4, 1)'),
    (((3, 4), (4,), (4,)), {'eps': -1}, 'eps must be a finite number >= 0, got -1'),
    (((3, 4), (4,), (4,)), {'eps': float('nan')}, 'eps must be a finite number'),
    (((3, 4), (4,), (4,)), {'eps': 'small'}, 'eps must be a finite number'),
    (((), (1,), (1,)), {}, 'data must have at least 1 axis'),
])
def test_bad_shapes_and_attributes(arrays, attrs, fragment):
    with pytest.raises(MXNetError, match='layer_norm: ') as error:
        ops.layer_norm(*(np.ones(s) for s in arrays), **attrs)
    assert fragment in str(error.value)


@pytest.mark.parametrize('position, dtype, fragment', [
    (0, 'int32', 'data must have dtype float16, float32 or float64, got int32'),
    (1, 'float64', 'gamma must have the dtype of data, float32, got float64'),
    (2, 'float16', 'beta must have the dtype of data, float32, got float16'),
])
def test_bad_dtypes(position, dtype, fragment):
    arrays = [np.ones((3, 4)), np.ones(4), np.ones(4)]
    arrays[position] = arrays[position].astype(dtype)
    with pytest.raises(MXNetError) as error:
        ops.layer_norm(*arrays)
    assert fragment in str(error.value)


@pytest.mark.parametrize('channels', [0, 6])
@pytest.mark.parametrize('scale', [True, False])
def test_block(channels, scale):
    def make():
        block = LayerNorm(in_channels=channels, scale=scale)
        block.initialize()
        return block
    check_block(make, [onp.random.RandomState(0).standard_normal((2, 5, 6)).astype('float32')])


def test_block_is_gluons_layer_norm():
    from mxnet.gluon import nn
    ours, theirs = LayerNorm(axis=1, prefix='a_'), nn.LayerNorm(axis=1, prefix='a_')
    x = np.array(onp.random.RandomState(0).standard_normal((2, 5, 6)), dtype='float32')
    for block in (ours, theirs):
        block.initialize()
        block(x)
    assert {n: p.shape for n, p in ours.collect_params().items()} == {
        n: p.shape for n, p in theirs.collect_params().items()}
    onp.testing.assert_allclose(ours(x).asnumpy(), theirs(x).asnumpy(), rtol=1e-5, atol=1e-6)
