"""d2l/ops/_push.py: updates that go past MXNet's operators, and those that must not."""
import gc
import os
import resource
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import mxnet as mx
import numpy as onp
import pytest
from mxnet import autograd, gluon, np, npx
from mxnet.base import MXNetError

from d2l import ops
from d2l.ops import _push
from d2l.train import language_model

ROOT = Path(__file__).resolve().parents[2]
SHAPES = [(3,), (4, 5), (1,), (2, 3, 4), (40000,)]


@pytest.fixture
def pushed(monkeypatch):
    """A list that gets, for each call of a Push, whether it was pushed."""
    made, call = [], _push.Push.__call__

    def recorded(self, values, singles):
        output = call(self, values, singles)
        made.append(output is not None)
        return output
    monkeypatch.setattr(_push.Push, '__call__', recorded)
    return made


def lists(count, dtype='float32', seed=0, shapes=SHAPES):
    rng = onp.random.RandomState(seed)
    made = [[np.array(rng.uniform(0.1, 1, s), dtype=dtype) for s in shapes] for _ in range(count)]
    npx.waitall()  # their memory is there
    return made


OPTIMIZERS = [(ops.multi_sgd, 3, {'momentum': 0.9}), (ops.multi_adam, 4, {'steps': 3}),
              (ops.multi_lamb, 4, {'steps': 3})]


@pytest.mark.parametrize('dtype', ['float16', 'float32', 'float64'])
@pytest.mark.parametrize('op, count, attrs', OPTIMIZERS, ids=lambda x: getattr(x, 'kernel', None))
def test_it_is_the_operator(op, count, attrs, dtype, pushed):
    ours, theirs = lists(count, dtype), lists(count, dtype)
    step = op.bind(*ours)
    for i in range(4):
        lrs = [0.1 * (i + 1) * (j + 1) for j in range(len(SHAPES))]
        step(lrs=lrs, wds=0.01, **attrs)
        op(*theirs, lrs=lrs, wds=0.01, **attrs)
    for a, b in zip(sum(ours, []), sum(theirs, [])):
        assert onp.array_equal(a.asnumpy(), b.asnumpy())
    assert pushed == [True] * 3  # the first call is the operator's


def test_mixed_precision(pushed):
    shapes, results = [(3,), (4, 5)], []
    for bound in (True, False):
        weights, momenta = lists(2, shapes=shapes)
        grads, rounded = lists(2, 'float16', 1, shapes)
        args = weights, grads, momenta, rounded
        step = ops.multi_sgd.bind(*args)
        for _ in range(3):
            if bound:
                step(lrs=0.5, momentum=0.5)
            else:
                ops.multi_sgd(*args, lrs=0.5, momentum=0.5)
        results.append([a.asnumpy() for a in weights + momenta + rounded])
    assert pushed == [True] * 2
    assert all(onp.array_equal(a, b) for a, b in zip(*results))


def test_single_arrays_may_differ_from_call_to_call(pushed):
    (grads,), (same,) = lists(1), lists(1)
    clip = ops.global_norm_clip.bind(grads)
    for divisor in (None, [2.0], [4.0], None, [0.5]):
        divisor = None if divisor is None else np.array(divisor, dtype='float64')
        norm = clip(divisor=divisor, theta=3)
        want = ops.global_norm_clip(same, divisor, theta=3)
        assert type(norm) is mx.np.ndarray and norm.dtype == 'float64' and norm.shape == (1,)
        assert norm.asnumpy() == want.asnumpy()
    assert pushed == [True] * 4
    assert all(onp.array_equal(a.asnumpy(), b.asnumpy()) for a, b in zip(grads, same))
    with pytest.raises(TypeError, match='divisor must be a dense array, got float'):
        clip(divisor=2.0)


def test_it_waits_for_what_comes_before_and_is_waited_for(pushed):
    """Without waiting in between: large products that write the gradient and read the weight."""
    weight, x = np.zeros((500, 500)), np.ones((500, 500))
    grad = np.zeros_like(weight)
    npx.waitall()
    step = ops.multi_sgd.bind([weight], [grad])
    totals = []
    for _ in range(20):
        grad[:] = np.dot(x, x)
        step(lrs=1.0)
        totals.append(np.dot(weight, x)[0, 0])
    assert [float(t) for t in totals] == [-500.0 * 500 * (i + 1) for i in range(20)]
    assert pushed == [True] * 19


def test_arrays_may_be_let_go_before_they_are_updated(pushed):
    weight = np.zeros((300, 300))

    def push():
        x = np.ones((300, 300))
        grad, momentum = x + 0, np.zeros((300, 300))
        npx.waitall()
        step = ops.multi_sgd.bind([weight], [grad], [momentum])
        for _ in range(50):
            grad[:] = np.dot(np.dot(x, x), x) / 90000
            step(lrs=1.0, momentum=0.0)
    push()
    gc.collect()
    assert abs(weight.asnumpy() + 50).max() < 1e-3
    assert sum(pushed) == 49


def test_nothing_is_kept():
    """150 times 24 MiB would be 3.5 GiB."""
    def one():
        arrays = [np.ones((2 << 20,)) for _ in range(3)]
        step = ops.multi_sgd.bind(*([a] for a in arrays))
        for _ in range(3):
            step(lrs=0.1)
        npx.waitall()
    one()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(150):
        one()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 700 << 10  # KiB


def part():
    whole = np.ones((4, 3))
    return whole[1:3], np.ones((2, 3)), lambda: whole.asnumpy()[:, 0].tolist(), [1, -2, -2, 1]


def twice():
    weight = np.ones(3)
    return weight, weight, lambda: weight.asnumpy().tolist(), [0, 0, 0]


def twice_by_two_names():
    weight = np.ones(3)
    return weight, weight.as_nd_ndarray(), lambda: weight.asnumpy().tolist(), [0, 0, 0]


def legacy():
    weight = np.ones(3)
    return weight.as_nd_ndarray(), mx.nd.ones(3), lambda: weight.asnumpy().tolist(), [-2] * 3


def empty():
    weight = np.ones((0, 3))
    return weight, np.ones((0, 3)), lambda: weight.shape, (0, 3)


def never_written():
    """MXNet's memory of an array that nobody has written comes with its first use."""
    weight = np.ones(3)
    grad = mx.nd.NDArray(mx.nd.ndarray._new_alloc_handle((3,), mx.cpu(), True, 'float32'))
    return weight, grad, lambda: weight.shape, (3,)


@pytest.mark.parametrize('make, is_pushed', [
    (part, False), (twice, False), (twice_by_two_names, False), (empty, False), (legacy, True),
    (never_written, None)])
def test_what_is_left_to_the_operator(make, is_pushed, pushed):
    weight, grad, result, want = make()
    if make is not never_written:
        npx.waitall()
    step = ops.multi_sgd.bind([weight], [grad])
    for _ in range(3):
        step(lrs=1.0)
    assert result() == want
    if is_pushed is not None:
        assert pushed == [is_pushed] * 2


def test_a_divisor_among_the_gradients_is_left_to_the_operator(pushed):
    grads = [np.array([3.0], dtype='float64'), np.array([4.0], dtype='float64')]
    clip = ops.global_norm_clip.bind(grads)
    for _ in range(2):
        assert clip(theta=100, divisor=grads[1][:]).asnumpy() > 0
    assert pushed[-1] is False


@pytest.mark.parametrize('make, shape', [
    (lambda: gluon.nn.Conv2D(64, 3, in_channels=64), (8, 64, 16, 16)),
    (lambda: gluon.nn.Dense(512, in_units=512), (64, 512))])
@pytest.mark.parametrize('wait', [False, True])
def test_weights_in_the_layout_of_a_convolution(make, shape, wait, pushed):
    """A net that predicts rearranges its weights, also between two steps."""
    net = make()
    net.initialize()
    x, weight = np.random.normal(size=shape), net.weight.data()
    step = ops.multi_sgd.bind([weight], [np.full(weight.shape, 0.5)])
    before = weight.asnumpy()
    for _ in range(5):
        y = net(x)
        if wait:
            y.wait_to_read()
            npx.waitall()
        step(lrs=1.0)
    assert onp.abs(weight.asnumpy() - (before - 2.5)).max() < 1e-5
    # Without waiting they may have been rearranged first, into more memory than such an array has.
    assert any(pushed) or not wait


def test_refused_calls_change_nothing(pushed):
    weight, grad = np.ones(3), np.ones(3)
    step = ops.multi_sgd.bind([weight], [grad])
    with pytest.raises(MXNetError, match='multi_sgd: momentum must'):
        step(lrs=1.0, momentum=-2)
    for _ in range(3):
        step(lrs=1.0)
        with pytest.raises(MXNetError, match='multi_sgd: lrs must be one finite number'):
            step(lrs=[float('nan')])
    assert weight.asnumpy().tolist() == [-2] * 3
    clip = ops.global_norm_clip.bind([weight])
    for _ in range(3):
        clip(theta=100)
    with pytest.raises(MXNetError, match='global_norm_clip: divisor must'):
        clip(divisor=np.ones((2,), dtype='float64'), theta=100)
    with pytest.raises(MXNetError, match='global_norm_clip: divisor must'):
        clip(divisor=np.ones((1,), dtype='float32'), theta=100)
    assert weight.asnumpy().tolist() == [-2] * 3 and True in pushed


def test_nothing_is_recorded(pushed):
    weight = np.ones(3)
    weight.attach_grad()
    step = ops.multi_sgd.bind([weight], [np.ones(3)])
    npx.waitall()
    with autograd.record():
        y = (weight * 2).sum()
        for _ in range(3):
            step(lrs=1.0)
    y.backward()
    assert (weight.grad == 2).all() and (weight == -2).all() and pushed == [True] * 2


def test_clipping_binds_to_the_gradients_of_a_model(pushed):
    net = gluon.nn.Dense(3, in_units=4)
    net.initialize()
    for i in range(4):
        if i == 2:  # other arrays
            net.collect_params().reset_ctx(mx.cpu(1))
        context = mx.cpu(1 if i > 1 else 0)
        with autograd.record():
            loss = (net(np.ones((2, 4), ctx=context)) * 100).sum()
        loss.backward()
        npx.waitall()
        language_model.grad_clipping(net, 1.0)
        norm = sum((p.grad().asnumpy() ** 2).sum() for p in net.collect_params().values())
        assert abs(norm - 1) < 1e-4
    assert pushed == [True] * 2
    assert net in language_model._last_clipped
    del net, loss
    gc.collect()
    assert not language_model._last_clipped


def test_a_model_need_be_no_more_than_a_list_of_parameters():
    """One that has no hash and cannot be referred to weakly, with other gradients each time."""
    weight = np.ones(4)
    weight.attach_grad()
    for size in (3.0, 5.0):
        weight.grad[:] = size
        language_model.grad_clipping(SimpleNamespace(params=[weight]), 1.0)
        assert abs(weight.grad.asnumpy() - 0.5).max() < 1e-6


NAIVE = '''
import numpy
from d2l import ops
from mxnet import np, npx
npx.set_np()
weight, grad = np.ones((3,)), np.ones((3,))
step = ops.multi_sgd.bind([weight], [grad])
for _ in range(5):
    step(lrs=1.0)
print(weight.asnumpy().tolist())
'''


@pytest.mark.parametrize('engine', ['NaiveEngine', 'ThreadedEngine', 'ThreadedEnginePerDevice'])
def test_every_engine(engine):
    out = subprocess.check_output([sys.executable, '-c', NAIVE], cwd=ROOT, text=True,
                                  env=dict(os.environ, MXNET_ENGINE_TYPE=engine))
    assert out.strip() == str([-4.0] * 3)
