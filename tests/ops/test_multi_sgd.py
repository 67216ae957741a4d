"""Stochastic gradient descent on lists of weights, against the formula in float64."""
import mxnet as mx
import numpy as onp
import pytest
from mxnet import np

from d2l import ops
from d2l.testing import EPS, run_update
from tests.ops.update_lists import assert_lists_close, lists, rates, run, upload


def truth(args, lrs, wds, momentum=0.0, rescale_grad=1.0, clip_gradient=0.0):
    """Weights and momenta after the step, in float64; without momenta they count as 0."""
    weights, grads, momenta = args[:3]
    found = []
    for i, (w, g) in enumerate(zip(weights, grads)):
        w, g = w.astype('float64'), rescale_grad * g.astype('float64')
        if clip_gradient:
            g = g.clip(-clip_gradient, clip_gradient)
        m = 0 if momenta is None else momenta[i].astype('float64')
        m = momentum * m - lrs[i] * (g + wds[i] * w)
        found.append((w + m, m))
    return [list(arrays) for arrays in zip(*found)][:1 if momenta is None else 2]


def attributes(**more):
    found = {**rates(), **more}
    del found['steps']
    return found


def cases(dtype, momenta=True):
    w, g, m, _ = lists('float32' if dtype == 'mixed' else dtype)
    if dtype != 'mixed':
        return [w, g, m if momenta else None, None]
    return [w, [x.astype('float16') for x in g], m if momenta else None,
            [onp.full(x.shape, 7, 'float16') for x in w]]


def results(after):
    return [a for a in (after[0], after[2]) if a is not None]


@pytest.mark.parametrize('dtype', ['float32', 'float64', 'float16', 'mixed'])
@pytest.mark.parametrize('momenta, mode', [
    (False, {}), (False, {'clip_gradient': 0.5, 'rescale_grad': 2.0}), (True, {'momentum': 0.9}),
    (True, {'momentum': 0.5, 'clip_gradient': 0.5, 'rescale_grad': -2.0})], ids=str)
def test_steps(dtype, momenta, mode):
    args, attrs = cases(dtype, momenta), attributes(**mode)
    want = truth(args, **attrs)
    for composed in (False, True):
        after = run(ops.multi_sgd, args, composed, **attrs)
        precision = 'float32' if dtype == 'mixed' else dtype
        # MXNet has the rates in float32.
        tolerance = max(8 * EPS[precision], 1e-6) if composed else 2 * EPS[precision]
        assert_lists_close(results(after), want, tolerance)
        if dtype == 'mixed':
            for w, r in zip(after[0], after[3]):
                assert onp.array_equal(w.astype('float16'), r)


def test_momentum_builds_up():
    args = [[onp.zeros(2)], [onp.array([1.0, -2.0])], [onp.zeros(2)]]
    for _ in range(3):
        args = run(ops.multi_sgd, args, lrs=0.1, momentum=0.5)
    onp.testing.assert_allclose(args[2][0], [-0.175, 0.35], rtol=1e-12)
    onp.testing.assert_allclose(args[0][0], [-0.425, 0.85], rtol=1e-12)


@pytest.mark.parametrize('target', ['v2', 'v3', 'v4'])
@pytest.mark.parametrize('dtype', ['float32', 'float64', 'float16', 'mixed'])
@pytest.mark.parametrize('momenta', [False, True])
def test_every_instruction_set_and_thread_count(target, dtype, momenta, runs_target):
    runs_target(target)
    args, attrs = cases(dtype, momenta), attributes(momentum=0.9)
    first, _ = run_update(ops.multi_sgd, args, target, 1, **attrs)
    assert_lists_close(results(first), truth(args, **attrs),
                       2 * EPS['float32' if dtype == 'mixed' else dtype])
    for threads in (2, 3):
        again, _ = run_update(ops.multi_sgd, args, target, threads, **attrs)
        for a, b in zip(results(first), results(again)):
            assert all(onp.array_equal(x, y) for x, y in zip(a, b))


@pytest.mark.parametrize('change, fragment', [
    ({'momentum': -0.5}, 'multi_sgd: momentum must be a finite number >= 0, got -0.5'),
    ({'lrs': [0.1, 0.2, 0.3]}, 'a list of 2, got 0.1,0.2,0.3')],
    ids=str)
def test_bad_attributes(change, fragment):
    with pytest.raises(mx.MXNetError) as error:
        ops.multi_sgd(*upload(lists('float32', shapes=[(3,), (2, 2)])[:2]), **change)
    assert fragment in str(error.value)


def test_bad_arrays():
    with pytest.raises(mx.MXNetError) as error:
        ops.multi_sgd([np.ones(3)], [np.ones(3)], [np.ones(4)])
    assert 'multi_sgd: momenta[0] must have shape (3,), got (4,)' in str(error.value)
