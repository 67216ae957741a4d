"""Several devices against one: cpu(0) and cpu(1) have parameters of their own."""
import re

import mxnet as mx
import numpy as onp
import pytest
from matplotlib import pyplot as plt
from mxnet import autograd, gluon, init, np
from mxnet.base import _LIB
from mxnet.gluon import nn

from d2l.data.arrays import load_array
from d2l.data.vision import load_data_fashion_mnist
from d2l.parallel.split import split_batch_multi_inputs
from d2l.train import multi_device
from d2l.train.multi_device import evaluate_accuracy_gpus, train_batch_ch13, train_ch13
from d2l.utils.animator import Animator
from d2l.utils.timing import Accumulator

TWO = [mx.cpu(0), mx.cpu(1)]
LOSS = gluon.loss.SoftmaxCrossEntropyLoss()


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    monkeypatch.setenv('D2L_PROGRESS', '0')
    plt.switch_backend('Agg')
    yield
    plt.close('all')


def blobs(n=60):
    rng = onp.random.RandomState(0)
    y = onp.arange(n) % 3
    X = rng.normal(size=(n, 8)) * 0.3
    X[onp.arange(n), y] += 3
    return np.array(X, dtype='float32'), np.array(y, dtype='int32')


def dense(devices, in_units=8, hidden=6, outputs=3):
    mx.random.seed(1)
    net = nn.HybridSequential()
    net.add(nn.Dense(hidden, activation='tanh', in_units=in_units),
            nn.Dense(outputs, in_units=hidden))
    net.initialize(init.Xavier(), ctx=devices)
    return net


def sgd(net, lr=0.5, **kwargs):
    return gluon.Trainer(net.collect_params(), 'sgd', {'learning_rate': lr, 'momentum': 0.9},
                         **kwargs)


def parameters(net, device):
    return [param.data(device).asnumpy() for param in net.collect_params().values()]


def plain_step(net, X, y, trainer):
    """One device, nothing split."""
    with autograd.record():
        y_hat = net(X)
        l = LOSS(y_hat, y)
    l.backward()
    trainer.step(len(X))
    return float(l.sum()), float((y_hat.asnumpy().argmax(axis=1) == y.asnumpy()).sum())


@pytest.mark.parametrize('update_on_kvstore', [None, False])
@pytest.mark.parametrize('count', [1, 2, 3])
def test_devices_make_no_difference(count, update_on_kvstore):
    """Lengths that divide, that do not, and a batch with fewer examples than devices."""
    devices = [mx.cpu(i) for i in range(count)]
    X, y = blobs()
    net, single = dense(devices), dense([mx.cpu()])
    trainer, plain = sgd(net, update_on_kvstore=update_on_kvstore), sgd(single)
    begin = 0
    for length in (6, 7, 1, 2, 5, 1):
        part = slice(begin, begin + length)
        got = train_batch_ch13(net, X[part], y[part], LOSS, trainer, devices)
        assert [type(value) for value in got] == [float, float]
        onp.testing.assert_allclose(got, plain_step(single, X[part], y[part], plain), rtol=1e-5)
        begin += length
        expected = parameters(single, mx.cpu())
        for device in devices:
            for a, b in zip(parameters(net, device), expected):
                onp.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('update_on_kvstore', [None, False])
@pytest.mark.parametrize('count', [1, 2])
def test_unused_parameters_keep_their_values(count, update_on_kvstore):
    """Also one that was used before, whose old gradient is still there."""
    devices = TWO[:count]

    class Heads(nn.Block):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Dense(3, in_units=8), nn.Dense(3, in_units=8)
            self.never, self.use_first = nn.Dense(3, in_units=8), True

        def forward(self, X):
            return (self.first if self.use_first else self.second)(X)
    net = Heads()
    net.initialize(ctx=devices)
    # A key-value store that updates would take the weight decay of all parameters.
    decay = 0.1 if count == 1 or update_on_kvstore is False else 0.0
    trainer = gluon.Trainer(net.collect_params(), 'sgd', {'learning_rate': 0.1, 'wd': decay},
                            update_on_kvstore=update_on_kvstore)
    X, y = blobs(6)
    train_batch_ch13(net, X, y, LOSS, trainer, devices)
    before = [parameters(head, devices[-1]) for head in (net.first, net.never, net.second)]
    net.use_first = False
    train_batch_ch13(net, X, y, LOSS, trainer, devices)
    after = [parameters(head, devices[-1]) for head in (net.first, net.never, net.second)]
    for i in (0, 1):
        for a, b in zip(before[i], after[i]):
            onp.testing.assert_array_equal(a, b)
    assert (before[2][0] != after[2][0]).any()


@pytest.mark.parametrize('update_on_kvstore, clear', [(None, True), (False, True), (None, False)])
def test_gradients_that_add_up(update_on_kvstore, clear):
    """Only the caller clears them; a device without an example is updated like the others."""
    X, y = blobs()
    net, single = dense(TWO), dense([mx.cpu()])
    for one in (net, single):
        one.collect_params().setattr('grad_req', 'add')
    trainer, plain = sgd(net, update_on_kvstore=update_on_kvstore), sgd(single)
    begin = 0
    for length in (4, 1, 3, 1):
        part = slice(begin, begin + length)
        train_batch_ch13(net, X[part], y[part], LOSS, trainer, TWO)
        plain_step(single, X[part], y[part], plain)
        for one in (net, single) if clear else ():
            one.collect_params().zero_grad()
        begin += length
        for device in TWO:
            for a, b in zip(parameters(net, device), parameters(single, mx.cpu())):
                onp.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_parameters_without_gradients_or_values():
    """Those of BatchNorm's statistics, each device its own, and of a layer that is not used."""
    class Net(nn.Block):
        def __init__(self):
            super().__init__()
            self.norm, self.dense, self.unused = nn.BatchNorm(), nn.Dense(3), nn.Dense(3)

        def forward(self, X):
            return self.dense(self.norm(X))
    net = Net()
    net.initialize(ctx=TWO)
    X, y = blobs(5)
    net(X.as_in_ctx(TWO[1]))
    trainer = gluon.Trainer({**net.norm.collect_params(), **net.dense.collect_params()}, 'sgd',
                            {'learning_rate': 0.1})
    # The trainer's first step gives all devices the statistics of the first.
    for _ in range(2):
        train_batch_ch13(net, X, y, LOSS, trainer, TWO)
    first = X[:3].asnumpy().mean(axis=0)
    for device, rows in zip(TWO, (slice(0, 3), slice(3, 5))):
        onp.testing.assert_allclose(net.norm.running_mean.data(device).asnumpy(),
                                    0.09 * first + 0.1 * X[rows].asnumpy().mean(axis=0),
                                    rtol=1e-4, atol=1e-6)
    for a, b in zip(parameters(net.dense, TWO[0]), parameters(net.dense, TWO[1])):
        onp.testing.assert_array_equal(a, b)


def test_a_cell_that_adds_up_batches():
    net, metric = dense(TWO), Accumulator(3)
    for X, y in load_array(blobs(), 9, is_train=False):
        l, acc = train_batch_ch13(net, X, y, LOSS, sgd(net), TWO, multi_device.split_batch)
        metric.add(l, acc, y.shape[0])
    assert metric[2] == 60 and 0 < metric[0] and 0 <= metric[1] <= 60


def test_several_inputs():
    class Sum(nn.Block):
        def __init__(self):
            super().__init__()
            self.dense = nn.Dense(3)

        def forward(self, X):
            first, second = X
            return self.dense(first + second)
    net = Sum()
    net.initialize(ctx=TWO)
    X, y = blobs(5)
    l, _ = train_batch_ch13(net, [X, X], y, LOSS, sgd(net), TWO, split_batch_multi_inputs)
    assert l > 0
    share = evaluate_accuracy_gpus(net, [([X, X], y)], split_batch_multi_inputs)
    assert share == (net([X, X]).asnumpy().argmax(axis=1) == y.asnumpy()).mean()


@pytest.mark.parametrize('count', [1, 2, 3])
def test_evaluate_accuracy_gpus(count):
    net = dense([mx.cpu(i) for i in range(count)])
    X, y = blobs(13)
    expected = (net(X).asnumpy().argmax(axis=1) == y.asnumpy()).mean()
    share = evaluate_accuracy_gpus(net, load_array((X, y), 4, is_train=False))
    assert share == expected and type(share) is float


@pytest.fixture
def events(monkeypatch):
    """Call it with a net: a list of what the loops do from then on, one letter each, in order.

    0, 1: a forward pass on this device.  b: a backward pass.  s: a step.  w: a wait, of whatever
    name, since all end in these functions of MXNet's library.
    """
    seen = []

    def spy(owner, name, letter):
        call = getattr(owner, name)
        monkeypatch.setattr(owner, name,
                            lambda *args, **kw: seen.append(letter) or call(*args, **kw))
    for name in ('MXNDArraySyncCopyToCPU', 'MXNDArrayWaitToRead', 'MXNDArrayWaitToWrite',
                 'MXNDArrayWaitAll'):
        spy(_LIB, name, 'w')
    spy(_LIB, 'MXAutogradBackwardEx', 'b')
    spy(gluon.Trainer, 'step', 's')

    def watch(net):
        net.register_forward_pre_hook(
            lambda block, inputs: seen.append(str(inputs[0].ctx.device_id)))
        seen.clear()
        return seen
    return watch


def test_train_batch_ch13_waits_once_at_its_end(events):
    X, y = blobs(5)
    net = dense(TWO)
    trainer, seen = sgd(net), events(net)
    for _ in range(3):
        train_batch_ch13(net, X, y, LOSS, trainer, TWO)
    assert ''.join(seen) == '01bbsw' * 3


def test_evaluate_accuracy_gpus_waits_for_a_batch_when_later_ones_are_on_their_way(events):
    X, y = blobs(60)
    net = dense(TWO)
    seen = events(net)
    evaluate_accuracy_gpus(net, [(X[i:i + 5], y[i:i + 5]) for i in range(0, 60, 5)])
    seen = ''.join(seen)
    assert re.fullmatch('(01w?){12}w*', seen) and seen.count('w') == 12
    assert seen.startswith('010101')


def test_train_ch13_waits_between_steps_only(events):
    X, y = blobs(60)
    net = dense(TWO)
    trainer, seen = sgd(net), events(net)
    data = [(X[i:i + 5], y[i:i + 5]) for i in range(0, 60, 5)]
    train_ch13(net, data, data, LOSS, trainer, 1, TWO)
    seen = ''.join(seen)
    # Two sums are read of a batch.  All are when a point is drawn: every second batch.
    assert re.fullmatch('(01bbs01bbswwww){6}(01w?){12}w*', seen)
    assert seen.count('w') == 3 * 12


def test_train_ch13_does_not_wait_for_a_batch_before_the_next_ones(events):
    X, y = blobs(60)
    net = dense(TWO)
    trainer, seen = sgd(net), events(net)
    data = [(X[i:i + 1], y[i:i + 1]) for i in range(60)]
    train_ch13(net, data, [(X, y)], LOSS, trainer, 1, [mx.cpu(0)])
    # A point is drawn every 12 batches.
    assert ''.join(seen).startswith('0bs' * 5 + 'ww' + '0bsww' * 6)


def run(devices=None, n=60, batch_size=9, num_epochs=2, **kwargs):
    net = dense(devices or [mx.cpu()])
    data = load_array(blobs(n), batch_size, is_train=False)
    train_ch13(net, data, data, LOSS, sgd(net), num_epochs, devices, **kwargs)
    return net


def test_train_ch13_on_two_devices_is_that_on_one(capsys):
    nets, curves = [], []
    for devices in ([mx.cpu(0)], TWO):
        curves.append(Animator())
        nets.append(run(devices, 55, animator=curves[-1]))  # a last batch of one example
    assert curves[0].X == curves[1].X
    for one, two in zip(curves[0].Y, curves[1].Y):
        onp.testing.assert_allclose(two, one, rtol=1e-4)
    for device in TWO:
        for one, two in zip(parameters(nets[0], TWO[0]), parameters(nets[1], device)):
            onp.testing.assert_allclose(two, one, rtol=1e-4, atol=1e-5)
    assert 'examples/sec on [cpu(0), cpu(1)]' in capsys.readouterr().out


def test_train_ch13_prints_the_result(capsys):
    animator = Animator()
    assert run(animator=animator) is not None
    loss, train_acc, test_acc = (values[-1] for values in animator.Y)
    first, second = capsys.readouterr().out.splitlines()
    assert first == f'loss {loss:.3f}, train acc {train_acc:.3f}, test acc {test_acc:.3f}'
    assert re.fullmatch(r'\d+\.\d examples/sec on \[cpu\(0\)\]', second)


@pytest.mark.parametrize('batches', [1, 2, 4, 5, 11, 12])
def test_train_ch13_of_few_batches(batches):
    animator = Animator()
    run(n=6 * batches, batch_size=6, num_epochs=1, animator=animator)
    interval = max(1, batches // 5)
    assert animator.X[0] == [i / batches for i in range(1, batches + 1)
                             if i % interval == 0 or i == batches]
    assert animator.X[2] == [1]


def test_train_ch13_asks_for_devices_at_the_call(monkeypatch, capsys):
    monkeypatch.setattr(multi_device, 'try_all_gpus', lambda: [mx.cpu(1)])
    net = dense([mx.cpu(1)])
    data = load_array(blobs(), 20)
    train_ch13(net, data, data, LOSS, sgd(net), 1)
    assert 'examples/sec on [cpu(1)]' in capsys.readouterr().out


def test_the_split_of_the_caller():
    calls, (X, y) = [], blobs(8)

    def split_f(X, y, devices):
        calls.append((len(y), devices))
        return multi_device.split_batch(X, y, devices)
    net = dense(TWO)
    train_ch13(net, [(X, y)], [(X[:3], y[:3])], LOSS, sgd(net), 2, TWO, split_f)
    assert calls == [(8, TWO), (3, TWO)] * 2


def test_only_training_is_timed(monkeypatch, capsys):
    log = []
    for name in ('start', 'stop'):
        monkeypatch.setattr(multi_device.Timer, name, lambda self, name=name: log.append(name))
    monkeypatch.setattr(multi_device.Timer, 'sum', lambda self: 0.5)
    animator = Animator()
    monkeypatch.setattr(animator, 'add', lambda *args: log.append('add'))
    run(TWO, n=40, batch_size=20, num_epochs=3, animator=animator)
    # Two points, and one for the test.  The timer also starts when it is made.
    assert log == ['start'] + (['start'] + ['stop', 'add', 'start'] * 2 + ['add']) * 3
    assert capsys.readouterr().out.endswith('\n240.0 examples/sec on [cpu(0), cpu(1)]\n')


def test_labels_of_pixels():
    """The loss is that of a picture, the accuracy that of a pixel."""
    net = nn.Conv2D(3, kernel_size=1, in_channels=2)
    net.initialize(init.Constant(0), ctx=TWO)
    X, y = np.ones((4, 2, 5, 6)), np.zeros((4, 5, 6))
    y[:, :, 0] = 1
    animator = Animator()
    trainer = gluon.Trainer(net.collect_params(), 'sgd', {'learning_rate': 0.0})
    train_ch13(net, [(X, y)], [(X, y)], gluon.loss.SoftmaxCrossEntropyLoss(axis=1), trainer, 1,
               TWO, animator=animator)
    onp.testing.assert_allclose([Y[-1] for Y in animator.Y], [onp.log(3), 5 / 6, 5 / 6], rtol=1e-6)


def test_gradients_are_those_of_a_mean_over_pictures_of_many_labels():
    X, y = np.random.normal(size=(5, 2, 4, 3)), np.random.randint(0, 3, size=(5, 4, 3))
    loss, results = gluon.loss.SoftmaxCrossEntropyLoss(axis=1), []
    for devices in (TWO[:1], TWO):
        net = nn.Conv2D(3, kernel_size=1, in_channels=2)
        net.initialize(init.Constant(0), ctx=devices)
        trainer = gluon.Trainer(net.collect_params(), 'sgd', {'learning_rate': 1.0})
        with autograd.record():
            l = loss(net(X), y).mean()
        l.backward()
        expected = [-param.grad(TWO[0]).asnumpy() for param in net.collect_params().values()]
        got = train_batch_ch13(net, X, y, loss, trainer, devices)
        onp.testing.assert_allclose(got, [5 * onp.log(3), (y == 0).sum().item()], rtol=1e-5)
        for a, b in zip(parameters(net, TWO[0]), expected):
            onp.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
        results.append(got)
    assert results[0][1] == results[1][1]


def test_bad_input():
    net = dense(TWO)
    with pytest.raises(ValueError, match='evaluate_accuracy_gpus: data_iter must give at least'):
        evaluate_accuracy_gpus(net, [])
    with pytest.raises(ValueError, match='train_ch13: train_iter must give at least one example'):
        train_ch13(net, [], [], LOSS, sgd(net), 1, TWO)
    with pytest.raises(ValueError, match='train_ch13: test_iter must give at least one example'):
        train_ch13(net, [blobs(6)], [], LOSS, sgd(net), 1, TWO)
    for epochs, error, message in ((0, ValueError, 'at least 1, got 0'), (-1, ValueError, 'got -1'),
                                   (1.5, TypeError, 'an integer, got 1.5')):
        with pytest.raises(error, match='train_ch13: num_epochs must be .*' + message):
            train_ch13(net, [], [], LOSS, sgd(net), epochs, TWO)
    for X, y, message in ((np.ones((3, 8)), np.ones(2), 'be equally long, got 3 and 2'),
                          (np.ones((0, 8)), np.ones(0), 'have at least one example')):
        with pytest.raises(ValueError, match='split_batch: X and y must ' + message):
            train_batch_ch13(net, X, y, LOSS, sgd(net), TWO)


@pytest.mark.slow
def test_train_ch13_learns_on_real_pictures(hub_data):
    """The samples of Fashion-MNIST: 0.6 is far above the 0.1 of guessing."""
    hub_data(real=False)
    train_iter, test_iter = load_data_fashion_mnist(64)
    net = dense(TWO, 784, 32, 10)
    animator = Animator()
    train_ch13(net, train_iter, test_iter, LOSS, sgd(net, 0.05), 5, TWO, animator=animator)
    assert animator.Y[0][-1] < animator.Y[0][0]
    assert animator.Y[2][-1] > 0.6
