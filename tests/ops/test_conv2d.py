import numpy as onp
import pytest
from mxnet import np
from mxnet.base import MXNetError

from d2l import ops
from d2l.testing import EPS, Case, check_op, run_kernel


def truth(x, w, b=None, channels=1, kernel_size=1, padding=0):
    """The definition, one place of the kernel at a time."""
    k, p = int(kernel_size), int(padding)
    x = onp.pad(x, ((0, 0), (0, 0), (p, p), (p, p)))
    rows, cols = x.shape[2] - k + 1, x.shape[3] - k + 1
    y = onp.zeros((x.shape[0], w.shape[0], rows, cols))
    for a in range(k):
        for e in range(k):
            y += onp.einsum('oc,ncij->noij', w[:, :, a, e], x[:, :, a:a + rows, e:e + cols])
    return y if b is None else y + b[:, None, None]


def case(batch, in_channels, height, width, channels, kernel_size, padding, dtype='float32',
         bias=True):
    rng = onp.random.RandomState(0)
    x = rng.standard_normal((batch, in_channels, height, width))
    w = rng.standard_normal((channels, in_channels, kernel_size, kernel_size))
    w /= max(1, in_channels * kernel_size ** 2) ** 0.5
    places = batch * (height + 2 * padding - kernel_size + 1) * (width + 2 * padding
                                                                 - kernel_size + 1)
    return Case(ops.conv2d, [x, w, rng.standard_normal(channels) if bias else None], truth,
                dtype=dtype, grad_scale=max(1, places) ** 0.5, channels=channels,
                kernel_size=kernel_size, padding=padding)


# Every number of rows and vectors of a tile, and what is left beside them.
SIZES = [(1, 1, 1, 1, 1, 1, 0), (3, 1, 28, 28, 6, 5, 2), (2, 6, 14, 14, 16, 5, 0),
         (1, 3, 33, 31, 7, 3, 1), (2, 2, 5, 65, 15, 3, 2), (5, 4, 7, 9, 3, 4, 1),
         (1, 2, 1, 1, 2, 3, 1), (2, 3, 5, 7, 5, 5, 4), (1, 2, 13, 11, 10, 11, 5),
         (33, 1, 4, 4, 2, 2, 0), (2, 31, 6, 6, 33, 1, 0), (1, 1, 2, 1023, 1, 2, 1),
         (2, 17, 8, 8, 13, 7, 6)]


@pytest.mark.parametrize('dtype', ['float32', 'float64', 'float16'])
@pytest.mark.parametrize('bias', [True, False])
def test_battery(dtype, bias):
    for i, sizes in enumerate(SIZES):
        check_op(case(*sizes, dtype=dtype, bias=bias), modes=dtype == 'float32' and i < 3)


@pytest.mark.parametrize('sizes', [(0, 2, 5, 5, 3, 3, 1), (2, 0, 5, 5, 3, 3, 1)])
def test_nothing(sizes):
    """Without pictures or channels of theirs; MXNet's own cannot do it."""
    empty = case(*sizes)
    y, (dx, dw, db) = run_kernel(empty)
    assert onp.array_equal(y, empty.expected.astype('float32'))
    assert dx.shape == empty.arrays[0].shape and not dw.any()
    onp.testing.assert_allclose(db, empty.cotangent.sum((0, 2, 3)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('target', ['v2', 'v3', 'v4'])
@pytest.mark.parametrize('dtype', ['float32', 'float64', 'float16'])
def test_every_instruction_set_and_thread_count(target, dtype, runs_target):
    runs_target(target)
    # Blocks of several pictures, the last one smaller; several groups in a block.
    for sizes in ((70, 3, 13, 12, 11, 5, 2), (300, 1, 9, 9, 6, 3, 0), (2, 20, 40, 90, 30, 3, 1)):
        many = case(*sizes, dtype=dtype)
        y, grads = run_kernel(many, target, threads=1)
        spread = onp.abs(many.expected).max()
        assert onp.abs(y.astype('float64') - many.expected).max() < 8 * EPS[dtype] * spread
        for got, want in zip(grads, exact_gradients(many)):
            assert onp.abs(got - want).max() < 32 * EPS[dtype] * onp.abs(want).max()
        for threads in (2, 3):
            y_n, grads_n = run_kernel(many, target, threads)
            assert onp.array_equal(y, y_n)
            assert all(onp.array_equal(a, b) for a, b in zip(grads, grads_n))


def exact_gradients(case):
    """In float64, one place of the kernel at a time."""
    (x, w, _), p, k = case.exact(), case.attrs['padding'], case.attrs['kernel_size']
    dy = case.cotangent.astype('float64')
    rows, cols = dy.shape[2:]
    x = onp.pad(x, ((0, 0), (0, 0), (p, p), (p, p)))
    dx, dw = onp.zeros_like(x), onp.zeros_like(w)
    for a in range(k):
        for e in range(k):
            part = (slice(None), slice(None), slice(a, a + rows), slice(e, e + cols))
            dx[part] += onp.einsum('oc,noij->ncij', w[:, :, a, e], dy)
            dw[:, :, a, e] = onp.einsum('noij,ncij->oc', dy, x[part])
    return dx[:, :, p:x.shape[2] - p, p:x.shape[3] - p], dw, dy.sum((0, 2, 3))


def test_what_is_far_away_is_not_read():
    """A NaN reaches the places whose kernels cover it, and no others."""
    nan = case(1, 1, 9, 20, 2, 3, 1)
    nan.arrays[0][0, 0, 4, 19] = onp.nan
    y, _ = run_kernel(nan)
    where = onp.zeros(y.shape, bool)
    where[:, :, 3:6, 18:] = True
    assert onp.array_equal(onp.isnan(y), where)


@pytest.mark.parametrize('shapes, attrs, fragment', [
    (((2, 3, 8), (1, 3, 1, 1)), {}, 'data must have 4 axes, got shape (2, 3, 8)'),
    (((2, 3, 8, 8), (4, 3, 3, 3)), {'channels': 5, 'kernel_size': 3},
     'weight must have shape (5, 3, 3, 3), got (4, 3, 3, 3)'),
    (((2, 3, 8, 8), (4, 3, 3, 3), (3,)), {'channels': 4, 'kernel_size': 3},
     'bias must have shape (4,), got (3,)'),
    (((2, 3, 8, 2), (1, 3, 5, 5)), {'kernel_size': 5, 'padding': 1},
     'data must be at least 3 high and wide, got shape (2, 3, 8, 2)'),
    (((2, 3, 8, 8), (1, 3, 3, 3)), {'kernel_size': 3, 'padding': 3}, 'padding must be'),
    (((2, 3, 8, 8), (1, 3, 3, 3)), {'kernel_size': 0}, 'kernel_size must be'),
    (((2, 3, 8, 8), (1, 3, 1, 1)), {'channels': 0}, 'channels must be'),
])
def test_bad_shapes_and_attributes(shapes, attrs, fragment):
    with pytest.raises(MXNetError) as error:
        ops.conv2d(*(np.ones(s) for s in shapes), **attrs)
    assert 'conv2d: ' + fragment in str(error.value)


@pytest.mark.parametrize('position, dtype, fragment', [
    (0, 'int32', 'data must have dtype float16, float32 or float64, got int32'),
    (1, 'float64', 'weight must have the dtype of data, float32, got float64'),
    (2, 'float16', 'bias must have the dtype of data, float32, got float16'),
])
def test_bad_dtypes(position, dtype, fragment):
    arrays = [np.ones((1, 1, 3, 3)), np.ones((1, 1, 1, 1)), np.ones(1)]
    arrays[position] = arrays[position].astype(dtype)
    with pytest.raises(MXNetError) as error:
        ops.conv2d(*arrays)
    assert 'conv2d: ' + fragment in str(error.value)
