import math

import numpy as onp
import pytest
from mxnet import autograd, np
from mxnet.base import MXNetError

from d2l import ops
from d2l.testing import EPS, Case, check_op, run_kernel

NAMES = ['exp', 'gelu', 'relu', 'sigmoid', 'tanh']
_ERF = onp.vectorize(math.erf, otypes=['float64'])


def truth(x, bias, act_type='relu'):
    z = x + bias
    return {'exp': lambda: onp.exp(z), 'gelu': lambda: 0.5 * z * (1 + _ERF(z / 2 ** 0.5)),
            'relu': lambda: onp.maximum(z, 0), 'tanh': lambda: onp.tanh(z),
            'sigmoid': lambda: 1 / (1 + onp.exp(-z))}[act_type]()


def case(shape, act_type, dtype='float32', seed=0):
    rng = onp.random.RandomState(seed)
    spread = 0.5 if act_type == 'exp' else 2  # sums of e^x must fit into float16
    x, bias = spread * rng.standard_normal(shape), rng.standard_normal(shape[-1])
    rows = max(1, x.size // max(1, shape[-1]))
    return Case(ops.bias_activation, [x, bias], truth, dtype=dtype, smooth=act_type != 'relu',
                grad_scale=rows ** 0.5, act_type=act_type)


SHAPES = [(1, 1), (3, 2), (5, 31), (2, 3, 32), (4, 33), (2, 2, 2, 7), (7,), (33, 1023), (300, 17),
          (0, 5), (3, 0)]


@pytest.mark.parametrize('dtype', ['float32', 'float64', 'float16'])
@pytest.mark.parametrize('act_type', NAMES)
def test_battery(act_type, dtype):
    for i, shape in enumerate(SHAPES):
        if (act_type, dtype) == ('gelu', 'float64'):
            check_gelu(shape)
        else:
            check_op(case(shape, act_type, dtype), modes=dtype == 'float32' and i == 3)


def gradients(op, *arrays, **attrs):
    """Output, gradients of all arrays; the cotangent is cos(0), cos(1), ..."""
    arrays = [np.array(a, dtype=a.dtype) for a in arrays]
    for a in arrays:
        a.attach_grad()
    with autograd.record():
        y = op(*arrays, **attrs)
    y.backward(np.cos(np.arange(y.size, dtype=y.dtype)).reshape(y.shape))
    return [y.asnumpy()] + [a.grad.asnumpy() for a in arrays]


def check_gelu(shape):
    """In float64 MXNet's own gradient is right to seven digits only."""
    x, bias = case(shape, 'gelu', 'float64').arrays
    y, dx, dbias = gradients(ops.bias_activation, x, bias, act_type='gelu')
    want, dz = gradients(ops.activation, x + bias, act_type='gelu')
    onp.testing.assert_allclose(y, want, rtol=1e-15, atol=1e-15)
    onp.testing.assert_allclose(dx, dz, rtol=1e-15, atol=1e-15)
    onp.testing.assert_allclose(dbias, dz.reshape(-1, shape[-1]).sum(0) if x.size else 0 * bias,
                                rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize('act_type', NAMES)
def test_it_is_activation_of_the_sum(act_type):
    x, bias = case((65, 37), act_type).arrays
    y, dx, dbias = gradients(ops.bias_activation, x, bias, act_type=act_type)
    want, dz = gradients(ops.activation, x + bias, act_type=act_type)
    assert onp.array_equal(y, want) and onp.array_equal(dx, dz)
    assert onp.abs(dbias - dz.astype('float64').sum(0)).max() <= 1e-5 * onp.abs(dz).max()


@pytest.mark.parametrize('target', ['v2', 'v3', 'v4'])
@pytest.mark.parametrize('dtype', ['float32', 'float64', 'float16'])
@pytest.mark.parametrize('act_type', NAMES)
def test_every_instruction_set_and_thread_count(act_type, target, dtype, runs_target):
    runs_target(target)
    many = case((700, 193), act_type, dtype)  # several threads and several blocks of rows
    y, grads = run_kernel(many, target, threads=1)
    scale = onp.maximum(1, onp.abs(many.expected))
    rounding = 20 if act_type == 'exp' else 3  # of data + bias
    assert (onp.abs(y.astype('float64') - many.expected) / scale).max() < rounding * EPS[dtype]
    for threads in (2, 3):
        y_n, grads_n = run_kernel(many, target, threads)
        assert onp.array_equal(y, y_n)
        assert all(onp.array_equal(a, b) for a, b in zip(grads, grads_n))


@pytest.mark.parametrize('arrays, attrs, fragment', [
    (((3, 4), (5,)), {}, 'bias must have shape (4,), got (5,)'),
    (((3, 4), (3, 4)), {}, 'bias must have shape (4,), got (3, 4)'),
    (((), (1,)), {}, 'data must have at least 1 axis, got shape ()'),
    (((3, 4), (4,)), {'act_type': 'softplus'},
     'act_type must be exp, gelu, relu, sigmoid or tanh, got softplus'),
])
def test_bad_shapes_and_attributes(arrays, attrs, fragment):
    with pytest.raises(MXNetError) as error:
        ops.bias_activation(*(np.ones(s) for s in arrays), **attrs)
    assert 'bias_activation: ' + fragment in str(error.value)


@pytest.mark.parametrize('position, dtype, fragment', [
    (0, 'int32', 'data must have dtype float16, float32 or float64, got int32'),
    (1, 'float64', 'bias must have the dtype of data, float32, got float64'),
])
def test_bad_dtypes(position, dtype, fragment):
    arrays = [np.ones((3, 4)), np.ones(4)]
    arrays[position] = arrays[position].astype(dtype)
    with pytest.raises(MXNetError) as error:
        ops.bias_activation(*arrays)
    assert 'bias_activation: ' + fragment in str(error.value)
