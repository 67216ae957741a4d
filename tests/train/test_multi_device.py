"""Several devices against one: cpu(0) and cpu(1) have parameters of their own."""
import re

import mxnet as mx
import numpy as onp
import pytest
from matplotlib import pyplot as plt
from mxnet import autograd, gluon, init, np
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
    trainer = gluon.Trainer(net.collect_params(), 'sgd', {'learning_rate': 0.1},
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


def run(devices=None, n=60, batch_size=9, num_epochs=2, **kwargs):
    net = dense(devices or [mx.cpu()])
    data = load_array(blobs(n), batch_size, is_train=False)
    train_ch13(net, data, data, LOSS, sgd(net), num_epochs, devices, **kwargs)
    return net


def test_train_ch13_on_two_devices_is_that_on_one(capsys):
    curves = []
    for devices in ([mx.cpu(0)], TWO):
        animator = Animator()
        run(devices, 55, animator=animator)  # a last batch of one example
        curves.append(animator)
    assert curves[0].X == curves[1].X
    for one, two in zip(curves[0].Y, curves[1].Y):
        onp.testing.assert_allclose(two, one, rtol=1e-4)
    assert 'examples/sec on [cpu(0), cpu(1)]' in capsys.readouterr().out


def test_train_ch13_prints_the_result(capsys):
    animator = Animator()
    assert run(animator=animator) is not None
    loss, train_acc, test_acc = (values[-1] for values in animator.Y)
    first, second = capsys.readouterr().out.splitlines()
    assert first == f'loss {loss:.3f}, train acc {train_acc:.3f}, test acc {test_acc:.3f}'
    assert re.fullmatch(r'\d+\.\d examples/sec on \[cpu\(0\)\]', second)


@pytest.mark.parametrize('batches', [1, 2, 4, 5, 12])
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


def test_bad_input():
    net = dense(TWO)
    with pytest.raises(ValueError, match='evaluate_accuracy_gpus: data_iter must give at least'):
        evaluate_accuracy_gpus(net, [])
    with pytest.raises(ValueError, match='train_ch13: train_iter must give at least one example'):
        train_ch13(net, [], [], LOSS, sgd(net), 1, TWO)
    for epochs in (0, -1, 1.5, None):
        with pytest.raises(ValueError, match='train_ch13: num_epochs must be a whole number'):
            train_ch13(net, [], [], LOSS, sgd(net), epochs, TWO)
    with pytest.raises(ValueError, match='split_batch: X and y must be equally long'):
        train_batch_ch13(net, *[np.ones((3, 8)), np.ones(2)], LOSS, sgd(net), TWO)


def test_train_ch13_learns_on_real_pictures(hub_data):
    """The samples of Fashion-MNIST: 0.6 is far above the 0.1 of guessing."""
    hub_data(real=False)
    train_iter, test_iter = load_data_fashion_mnist(64)
    net = dense(TWO, 784, 32, 10)
    animator = Animator()
    train_ch13(net, train_iter, test_iter, LOSS, sgd(net, 0.05), 5, TWO, animator=animator)
    assert animator.Y[0][-1] < animator.Y[0][0]
    assert animator.Y[2][-1] > 0.6
