"""Adam and AdamW on lists of weights, against the formulas of the papers in float64."""
import mxnet as mx
import numpy as onp
import pytest
from mxnet import np, npx

from d2l import ops
from d2l.testing import EPS, run_update
from tests.ops.update_lists import assert_lists_close, lists, mixed, rates, run, upload

MODES = [{}, {'clip_gradient': 0.5, 'rescale_grad': 2.0},
         {'beta1': 0.5, 'beta2': 0.9, 'epsilon': 0.1, 'bias_correction': False}]


def truth(args, lrs, wds, steps, beta1=0.9, beta2=0.999, epsilon=1e-8, rescale_grad=1.0,
          clip_gradient=0.0, bias_correction=True, decoupled=False):
    """Weights, means and variances after the step, in float64."""
    found = []
    for w, g, m, v, lr, wd, t in zip(*args[:4], lrs, wds, steps):
        w, g, m, v = (a.astype('float64') for a in (w, g, m, v))
        g = rescale_grad * g + (0 if decoupled else wd * w)
        if clip_gradient:
            g = g.clip(-clip_gradient, clip_gradient)
        m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g ** 2
        c1, c2 = (1 - beta1 ** t, 1 - beta2 ** t) if bias_correction else (1, 1)
        if decoupled:
            w = w - lr * (m / c1 / (onp.sqrt(v / c2) + epsilon) + wd * w)
        else:
            w = w - lr * onp.sqrt(c2) / c1 * m / (onp.sqrt(v) + epsilon)
        found.append((w, m, v))
    return [list(arrays) for arrays in zip(*found)]


@pytest.mark.parametrize('dtype', ['float32', 'float64', 'float16'])
@pytest.mark.parametrize('mode', MODES, ids=str)
@pytest.mark.parametrize('decoupled', [False, True])
def test_steps(dtype, mode, decoupled):
    """Kernel and composed body, three steps, each of them from the arrays of the one before."""
    args = lists(dtype)
    for step in range(3):
        attrs = {**rates(), **mode, 'decoupled': decoupled}
        want = truth(args, **attrs)
        after = run(ops.multi_adam, args, **attrs)
        assert_lists_close([after[0], *after[2:]], want, 4 * EPS[dtype])
        for a, b in zip(after[1], args[1]):
            assert onp.array_equal(a, b)
        if dtype != 'float16':  # MXNet computes its float16 in float16
            other = run(ops.multi_adam, args, composed=True, **attrs)
            # MXNet rounds 1 - beta to float32.
            assert_lists_close([other[0], *other[2:]], want, 3e-5)
        args = [after[0], lists(dtype, step + 1)[1], *after[2:]]


def test_adamw_is_decoupled():
    args, attrs = lists('float32'), rates()
    got = run(ops.multi_adamw, args, **attrs)
    assert_lists_close(got, run(ops.multi_adam, args, decoupled=True, **attrs), 0)
    assert onp.abs(got[0][3] - run(ops.multi_adam, args, **attrs)[0][3]).max() > 1e-3


@pytest.mark.parametrize('composed', [False, True])
def test_mixed_precision(composed):
    args, attrs = mixed(lists('float32')), rates()
    after = run(ops.multi_adam, args, composed, **attrs)
    assert_lists_close([after[0], *after[2:4]], truth(args, **attrs), 3e-5 if composed else 1e-6)
    for w, r in zip(after[0], after[4]):
        assert r.dtype == 'float16' and onp.array_equal(w.astype('float16'), r)


@pytest.mark.parametrize('target', ['v2', 'v3', 'v4'])
@pytest.mark.parametrize('dtype', ['float32', 'float64', 'float16', 'mixed'])
def test_every_instruction_set_and_thread_count(target, dtype, runs_target):
    runs_target(target)
    args = mixed(lists('float32')) if dtype == 'mixed' else lists(dtype) + [None]
    attrs = rates()
    first, _ = run_update(ops.multi_adam, args, target, 1, **attrs)
    assert_lists_close([first[0], *first[2:4]], truth(args, **attrs),
                       4 * EPS['float32' if dtype == 'mixed' else dtype])
    for threads in (2, 3):
        again, _ = run_update(ops.multi_adam, args, target, threads, **attrs)
        for a, b in zip(first[:4], again[:4]):
            assert all(onp.array_equal(x, y) for x, y in zip(a, b))


def test_hundreds_of_arrays():
    args = lists('float32', shapes=[(2, i % 7) for i in range(400)])
    attrs = rates(400)
    after = run(ops.multi_adam, args, **attrs)
    assert_lists_close([after[0], *after[2:]], truth(args, **attrs), 1e-6)


def test_nan_stays():
    args = lists('float32', shapes=[(4,)])
    args[1][0][:] = [onp.nan, onp.inf, -onp.inf, 0]
    after = run(ops.multi_adam, args, clip_gradient=1.0, wds=0.0)
    assert onp.isnan(after[0][0]).tolist() == [True, False, False, False]


@pytest.mark.parametrize('change, fragment', [
    ({'lrs': onp.nan}, 'multi_adam: lrs must be one finite number or a list of 2, got nan'),
    ({'lrs': [0.1, onp.inf]}, 'lrs must be one finite number or a list of 2, got 0.1,inf'),
    ({'wds': [1.0, 2.0, 3.0]}, 'wds must be one finite number or a list of 2, got 1.0,2.0,3.0'),
    ({'steps': 0}, 'steps must be one finite number >= 1 or a list of 2, got 0'),
    ({'beta1': 1.0}, 'beta1 must be a number >= 0 and < 1, got 1.0'),
    ({'beta2': -0.1}, 'beta2 must be a number >= 0 and < 1, got -0.1'),
    ({'epsilon': -1.0}, 'epsilon must be a finite number >= 0, got -1.0'),
    ({'rescale_grad': onp.inf}, 'rescale_grad must be a finite number, got inf'),
    ({'clip_gradient': -1.0}, 'clip_gradient must be a finite number >= 0, got -1.0'),
    ({'bias_correction': 2}, 'bias_correction must be True or False, got 2')], ids=str)
def test_bad_attributes(change, fragment):
    with pytest.raises(mx.MXNetError) as error:
        ops.multi_adam(*upload(lists('float32', shapes=[(3,), (2, 2)])), **change)
    assert fragment in str(error.value)


@pytest.mark.parametrize('change, fragment', [
    (lambda a: a[1].__setitem__(1, np.ones((2, 3))),
     'multi_adam: grads[1] must have shape (2, 2), got (2, 3)'),
    (lambda a: a[3].__setitem__(0, np.ones((3, 1))),
     'variances[0] must have shape (3,), got (3, 1)'),
    (lambda a: a[2].__setitem__(1, np.ones((2, 2), dtype='float16')),
     'means[1] must have dtype float32, got float16'),
    (lambda a: a[0].__setitem__(0, np.ones(3, dtype='int32')),
     'weights must have dtype float16, float32 or float64, got int32'),
    (lambda a: a.append([np.ones(3), np.ones((2, 2))]),
     'grads[0] must have dtype float16, got float32'),
    (lambda a: a.extend([[np.ones(3, dtype='float16')] * 2]) or a.__setitem__(
        1, [x.astype('float16') for x in a[1]]), 'rounded[1] must have shape (2, 2), got (3,)')])
def test_bad_arrays(change, fragment):
    args = upload(lists('float32', shapes=[(3,), (2, 2)]))
    change(args)
    with pytest.raises(mx.MXNetError) as error:
        ops.multi_adam(*args)
    assert fragment in str(error.value)
    npx.waitall()
