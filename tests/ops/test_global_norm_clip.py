"""Clipping by the global norm, against numpy's float64."""
import contextlib

import mxnet as mx
import numpy as onp
import pytest
from mxnet import np

from d2l import ops
from d2l.testing import EPS, run_update
from tests.ops.update_lists import assert_lists_close, run, upload

SHAPES = [(3, 5), (1,), (0,), (33,), (17, 129), (2, 16384), (4, 1, 31)]


def gradients(dtype, scale=1.0):
    """dtype 'mixed': each of the three in turn."""
    rng = onp.random.RandomState(0)
    dtypes = ['float16', 'float32', 'float64'] if dtype == 'mixed' else [dtype]
    return [(scale * rng.standard_normal(s)).astype(dtypes[i % len(dtypes)])
            for i, s in enumerate(SHAPES)]


def norm_of(grads):
    return onp.sqrt(sum((g.astype('float64') ** 2).sum() for g in grads))


@pytest.mark.parametrize('dtype', ['float32', 'float64', 'float16', 'mixed'])
@pytest.mark.parametrize('part', [0.0, 0.3, 1.0, 7.0])
@pytest.mark.parametrize('divisor', [None, 2.5])
@pytest.mark.parametrize('composed', [False, True])
def test_clipping(dtype, part, divisor, composed):
    """theta is a part of the norm."""
    grads = gradients(dtype)
    norm = norm_of(grads)
    arrays = upload([grads])[0]
    by = None if divisor is None else np.array([divisor], dtype='float64')
    with ops.composed() if composed else contextlib.nullcontext():
        got = ops.global_norm_clip(arrays, by, theta=part * norm)
    assert got.shape == (1,) and got.dtype == 'float64'
    assert abs(got.item() - norm) <= 1e-12 * norm
    want = [g.astype('float64') * min(1, part) / (divisor or 1) for g in grads]
    for a, g, w in zip(arrays, grads, want):
        assert a.dtype == g.dtype
        assert_lists_close([[a.asnumpy()]], [[w]], 2 * EPS[str(g.dtype)])
        if part >= 1 and divisor is None:
            assert onp.array_equal(a.asnumpy(), g)


@pytest.mark.parametrize('composed', [False, True])
@pytest.mark.parametrize('bad', [onp.nan, onp.inf, -onp.inf])
def test_not_finite(bad, composed):
    grads = [onp.array([bad, 3.0], 'float32'), onp.full(3, 5, 'float32')]
    assert all(onp.array_equal(a, g, equal_nan=True)
               for a, g in zip(run(ops.global_norm_clip, [grads], composed, theta=1.0)[0], grads))


@pytest.mark.parametrize('dtype, size', [('float32', 1e30), ('float16', 300)])
def test_squares_that_overflow(dtype, size):
    after, = run(ops.global_norm_clip, [[onp.array([0.6 * size, 0.8 * size], dtype)]], theta=1.0)
    onp.testing.assert_allclose(after[0], [0.6, 0.8], rtol=1e-3)


@pytest.mark.parametrize('target', ['v2', 'v3', 'v4'])
@pytest.mark.parametrize('dtype', ['float32', 'float64', 'float16', 'mixed'])
def test_every_instruction_set_and_thread_count(target, dtype, runs_target):
    runs_target(target)
    grads = gradients(dtype)
    norm = norm_of(grads)
    args = [grads, onp.array([2.0])]
    (first, _), output = run_update(ops.global_norm_clip, args, target, 1, theta=norm / 3)
    assert abs(output[0] - norm) <= 1e-12 * norm
    for a, g in zip(first, grads):
        assert_lists_close([[a]], [[g.astype('float64') / 6]], 2 * EPS[str(g.dtype)])
    for threads in (2, 3):
        (again, _), other = run_update(ops.global_norm_clip, args, target, threads, theta=norm / 3)
        assert all(onp.array_equal(a, b) for a, b in zip(first, again)) and other == output


def test_nothing_is_waited_for(monkeypatch):
    arrays = upload([gradients('float32')])[0]
    with monkeypatch.context() as patch:
        for name in ('asnumpy', 'wait_to_read', 'item', '__float__', '__bool__'):
            patch.setattr(np.ndarray, name, lambda self: pytest.fail('waited'))
        norm = ops.global_norm_clip(arrays, theta=1.0)
    assert norm.item() > 1


@pytest.mark.parametrize('grads, divisor, theta, fragment', [
    ([np.ones(3)], None, -1.0, 'global_norm_clip: theta must be a finite number >= 0, got -1.0'),
    ([np.ones(3)], None, onp.nan, 'theta must be a finite number >= 0, got nan'),
    ([np.ones(3), np.ones(3, dtype='int32')], None, 1.0,
     'grads[1] must have dtype float16, float32 or float64, got int32'),
    ([np.ones(3)], np.ones(1), 1.0, 'divisor must have dtype float64, got float32'),
    ([np.ones(3)], np.ones(2, dtype='float64'), 1.0,
     'divisor must have one element, got shape (2,)')], ids=str)
def test_bad_calls(grads, divisor, theta, fragment):
    with pytest.raises(mx.MXNetError) as error:
        ops.global_norm_clip(grads, divisor, theta=theta)
    assert fragment in str(error.value)
