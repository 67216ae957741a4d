import math

import numpy as onp
import pytest
from mxnet import autograd, np
from mxnet.base import MXNetError

from d2l import ops
from d2l.testing import EPS, Case, check_op, run_kernel

NAMES = ['exp', 'gelu', 'relu', 'sigmoid', 'tanh']
_ERF = onp.vectorize(math.erf, otypes=['float64'])


def truth(x, act_type='relu'):
    with onp.errstate(over='ignore'):
        return {'exp': lambda: onp.exp(x), 'gelu': lambda: 0.5 * x * (1 + _ERF(x / 2 ** 0.5)),
                'relu': lambda: onp.maximum(x, 0), 'tanh': lambda: onp.tanh(x),
                'sigmoid': lambda: 1 / (1 + onp.exp(-x))}[act_type]()


def case(shape, act_type, dtype='float32', scale=2.0, seed=0):
    x = onp.asarray(scale * onp.random.RandomState(seed).standard_normal(shape))
    return Case(ops.activation, [x], truth, dtype=dtype, smooth=act_type != 'relu',
                act_type=act_type)


SHAPES = [(1,), (3, 2), (5, 31), (2, 3, 32), (33,), (2, 2, 2, 7), (3, 1023), (1031,), (5, 0)]


@pytest.mark.parametrize('dtype', ['float32', 'float64', 'float16'])
@pytest.mark.parametrize('act_type', NAMES)
def test_battery(act_type, dtype):
    for i, shape in enumerate(SHAPES):
        if (act_type, dtype) == ('gelu', 'float64'):
            check_gelu(shape)
        else:
            check_op(case(shape, act_type, dtype), modes=dtype == 'float32' and i == 3)


def check_gelu(shape):
    """In float64 MXNet's own gradient is right to seven digits only."""
    x = np.array(case(shape, 'gelu', 'float64').arrays[0], dtype='float64')
    x.attach_grad()
    with autograd.record():
        y = ops.activation(x, act_type='gelu')
    y.backward()
    X = x.asnumpy()
    cdf = 0.5 * (1 + _ERF(X / 2 ** 0.5))
    pdf = onp.exp(-X * X / 2) / (2 * onp.pi) ** 0.5
    onp.testing.assert_allclose(y.asnumpy(), X * cdf, rtol=0, atol=1e-15)
    onp.testing.assert_allclose(x.grad.asnumpy(), cdf + X * pdf, rtol=0, atol=1e-15)


@pytest.mark.parametrize('act_type', NAMES)
@pytest.mark.parametrize('scale', [1e-3, 20.0])
def test_small_and_large_values(act_type, scale):
    check_op(case((4, 500), act_type, scale=scale), modes=False)


@pytest.mark.parametrize('act_type', NAMES)
def test_special_values(act_type):
    x = np.array([0.0, -0.0, onp.inf, -onp.inf, onp.nan, 3e38, -3e38, 1e-40])
    x.attach_grad()
    with autograd.record():
        y = ops.activation(x, act_type=act_type)
    y.backward()
    y, dx = y.asnumpy(), x.grad.asnumpy()
    ends = {'exp': (onp.inf, 0), 'gelu': (onp.inf, -0.0), 'relu': (onp.inf, 0), 'sigmoid': (1, 0),
            'tanh': (1, -1)}[act_type]
    at_zero = {'exp': (1, 1), 'gelu': (0, 0.5), 'relu': (0, 0), 'sigmoid': (0.5, 0.25),
               'tanh': (0, 1)}[act_type]
    assert onp.isnan(y[4]) and y[2] == ends[0] and y[6] == ends[1]
    assert act_type == 'gelu' or y[3] == ends[1]  # -infinity * 0
    assert y[:2].tolist() == [at_zero[0]] * 2 and dx[:2].tolist() == [at_zero[1]] * 2
    if act_type in ('sigmoid', 'tanh', 'gelu'):
        assert dx[5:7].tolist() == [1 if act_type == 'gelu' else 0, 0]


def test_gelu_keeps_its_digits_below_zero():
    x = onp.linspace(-12, -3, 901).astype('float32')
    exact = onp.array([0.5 * v * math.erfc(-v / 2 ** 0.5) for v in x.astype('float64')])
    y = ops.activation(np.array(x), act_type='gelu').asnumpy()
    assert (onp.abs(y - exact) <= 5e-6 * onp.abs(exact)).all()


def test_single_number():
    assert ops.activation(np.array(-3.0)).shape == ()
    assert abs(float(ops.activation(np.array(1.0), act_type='tanh')) - math.tanh(1)) < 1e-6


def test_the_default_is_relu():
    x = np.array([-1.0, 2.0])
    assert ops.activation(x).asnumpy().tolist() == [0, 2]


@pytest.mark.parametrize('target', ['v2', 'v3', 'v4'])
@pytest.mark.parametrize('dtype', ['float32', 'float64', 'float16'])
@pytest.mark.parametrize('act_type', NAMES)
def test_every_instruction_set_and_thread_count(act_type, target, dtype, runs_target):
    runs_target(target)
    many = case((61, 1023), act_type, dtype)
    y, grads = run_kernel(many, target, threads=1)
    scale = onp.maximum(1, onp.abs(many.expected))
    assert (onp.abs(y.astype('float64') - many.expected) / scale).max() < 2 * EPS[dtype]
    for threads in (2, 3):
        y_n, grads_n = run_kernel(many, target, threads)
        assert onp.array_equal(y, y_n) and onp.array_equal(grads[0], grads_n[0])


@pytest.mark.parametrize('value, shown', [('swish', 'swish'), (3, '3'), (None, 'None'), ('', '')])
def test_bad_act_type(value, shown):
    sentence = 'activation: act_type must be exp, gelu, relu, sigmoid or tanh, got ' + shown
    with pytest.raises(MXNetError) as error:
        ops.activation(np.ones(3), act_type=value)
    assert sentence in str(error.value)
    with ops.composed(), pytest.raises(ValueError) as error:
        ops.activation(np.ones(3), act_type=value)
    assert str(error.value) == sentence


def test_bad_dtype():
    with pytest.raises(MXNetError) as error:
        ops.activation(np.ones(3, dtype='int32'))
    assert ('activation: data must have dtype float16, float32 or float64, got int32'
            in str(error.value))
