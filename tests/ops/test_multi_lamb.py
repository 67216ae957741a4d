"""LAMB on lists of weights, against the formula of the paper in float64."""
import mxnet as mx
import numpy as onp
import pytest

from d2l import ops
from d2l.testing import EPS, run_update
from tests.ops.update_lists import assert_lists_close, lists, mixed, rates, run, upload


def truth(args, lrs, wds, steps, beta1=0.9, beta2=0.999, epsilon=1e-6, rescale_grad=1.0,
          clip_gradient=0.0, lower_bound=0.0, upper_bound=0.0, bias_correction=True):
    """Weights, means and variances after the step, in float64."""
    found = []
    for w, g, m, v, lr, wd, t in zip(*args[:4], lrs, wds, steps):
        w, g, m, v = (a.astype('float64') for a in (w, g, m, v))
        g = rescale_grad * g
        if clip_gradient:
            g = g.clip(-clip_gradient, clip_gradient)
        m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g ** 2
        c1, c2 = (1 - beta1 ** t, 1 - beta2 ** t) if bias_correction else (1, 1)
        u = m / c1 / (onp.sqrt(v / c2) + epsilon) + wd * w
        norm_w, norm_u = onp.sqrt((w ** 2).sum()), onp.sqrt((u ** 2).sum())
        norm_w = max(norm_w, lower_bound)
        norm_w = min(norm_w, upper_bound) if upper_bound else norm_w
        ratio = norm_w / norm_u if norm_w and norm_u else 1
        found.append((w - lr * ratio * u, m, v))
    return [list(arrays) for arrays in zip(*found)]


@pytest.mark.parametrize('dtype', ['float32', 'float64', 'float16'])
@pytest.mark.parametrize('mode', [
    {}, {'clip_gradient': 0.5, 'rescale_grad': 2.0, 'lower_bound': 2.0},
    {'beta1': 0.5, 'beta2': 0.9, 'epsilon': 0.1, 'bias_correction': False, 'upper_bound': 3.0}],
    ids=str)
def test_steps(dtype, mode):
    args = lists(dtype)
    for step in range(3):
        attrs = {**rates(), **mode}
        want = truth(args, **attrs)
        after = run(ops.multi_lamb, args, **attrs)
        # The quotient of norms is of means and variances that are rounded to float16 before.
        assert_lists_close([after[0], *after[2:]], want, 8 * EPS[dtype])
        if dtype != 'float16':
            other = run(ops.multi_lamb, args, composed=True, **attrs)
            assert_lists_close([other[0], *other[2:]], want, 3e-5)
        args = [after[0], lists(dtype, step + 1)[1], *after[2:]]


@pytest.mark.parametrize('composed', [False, True])
def test_norms_of_zero(composed):
    args = lists('float32', shapes=[(3,), (3,)])
    args[0][0][:] = 0
    for part in args[1:]:
        part[1][:] = 0
    attrs = {'lrs': [0.1, 0.1], 'wds': [0.0, 0.0], 'steps': [1, 1]}
    after = run(ops.multi_lamb, args, composed, **attrs)
    assert_lists_close([after[0]], truth(args, **attrs)[:1], 1e-6)
    assert onp.array_equal(after[0][1], args[0][1]) and after[0][0].all()


@pytest.mark.parametrize('composed', [False, True])
def test_mixed_precision(composed):
    args, attrs = mixed(lists('float32')), rates()
    after = run(ops.multi_lamb, args, composed, **attrs)
    assert_lists_close([after[0], *after[2:4]], truth(args, **attrs), 3e-5 if composed else 1e-6)
    for w, r in zip(after[0], after[4]):
        assert r.dtype == 'float16' and onp.array_equal(w.astype('float16'), r)


@pytest.mark.parametrize('target', ['v2', 'v3', 'v4'])
@pytest.mark.parametrize('dtype', ['float32', 'float64', 'float16', 'mixed'])
def test_every_instruction_set_and_thread_count(target, dtype, runs_target):
    runs_target(target)
    args = mixed(lists('float32')) if dtype == 'mixed' else lists(dtype) + [None]
    attrs = rates()
    first, _ = run_update(ops.multi_lamb, args, target, 1, **attrs)
    assert_lists_close([first[0], *first[2:4]], truth(args, **attrs),
                       8 * EPS['float32' if dtype == 'mixed' else dtype])
    for threads in (2, 3):
        again, _ = run_update(ops.multi_lamb, args, target, threads, **attrs)
        for a, b in zip(first[:4], again[:4]):
            assert all(onp.array_equal(x, y) for x, y in zip(a, b))


@pytest.mark.parametrize('change, fragment', [
    ({'lower_bound': -1.0}, 'multi_lamb: lower_bound must be a finite number >= 0, got -1.0'),
    ({'upper_bound': onp.nan}, 'upper_bound must be a finite number >= 0, got nan'),
    ({'steps': [1, 0]}, 'steps must be one finite number >= 1 or a list of 2, got 1.0,0.0'),
    ({'beta2': 1.5}, 'beta2 must be a number >= 0 and < 1, got 1.5')], ids=str)
def test_bad_attributes(change, fragment):
    with pytest.raises(mx.MXNetError) as error:
        ops.multi_lamb(*upload(lists('float32', shapes=[(3,), (2, 2)])), **change)
    assert fragment in str(error.value)
