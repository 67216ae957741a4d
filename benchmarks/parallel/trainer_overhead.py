"""What d2l.Trainer adds to the step of gluon.Trainer: the same networks, trained by both.

A call is some steps, forward and backward pass included, that end with the engine's last operation.
"""
import mxnet as mx
import numpy as onp
from mxnet import autograd, gluon, init, np
from mxnet.gluon import nn

from benchmarks.run import Case
from d2l.models.vision import resnet18
from d2l.parallel.split import split_batch
from d2l.parallel.trainer import Trainer


def mlp():
    net = nn.HybridSequential()
    net.add(nn.Dense(256, activation='relu'), nn.Dense(10))
    return net


def lenet():
    net = nn.HybridSequential()
    net.add(nn.Conv2D(6, 5, padding=2, activation='sigmoid'), nn.AvgPool2D(2, 2),
            nn.Conv2D(16, 5, activation='sigmoid'), nn.AvgPool2D(2, 2),
            nn.Dense(120, activation='sigmoid'), nn.Dense(84, activation='sigmoid'), nn.Dense(10))
    return net


class Run:
    """One network and its trainer; calling it trains for some steps and returns its weights."""

    def __init__(self, make_net, make_trainer, devices, X, y, steps):
        mx.random.seed(0)
        self.net, self.steps, self.size = make_net(), steps, len(y)
        self.net.initialize(init.Xavier(), ctx=devices)
        self.net.hybridize(static_alloc=True, static_shape=True)
        self.parts = list(zip(*split_batch(X, y, devices)))
        self.net(self.parts[0][0])
        self.trainer = make_trainer(self.net.collect_params(), 'sgd',
                                    {'learning_rate': 0.01, 'momentum': 0.9},
                                    update_on_kvstore=False)
        self.loss = gluon.loss.SoftmaxCrossEntropyLoss()

    def __call__(self):
        for _ in range(self.steps):
            with autograd.record():
                losses = [self.loss(self.net(X), y) for X, y in self.parts]
            autograd.backward(losses)
            self.trainer.step(self.size)
        mx.nd.waitall()
        return [array.asnumpy() for param in self.net.collect_params().values()
                for array in param.list_data()]


def check(results):
    for ours, plain in zip(results['d2l'], results['gluon']):
        onp.testing.assert_array_equal(ours, plain)


def cases():
    source = onp.random.RandomState(0)
    for name, make_net, shape, batch, count, steps in (
            ('MLP, batch 16', mlp, (784,), 16, 1, 20),
            ('MLP, batch 256, 2 devices', mlp, (784,), 256, 2, 10),
            ('LeNet, batch 64', lenet, (1, 28, 28), 64, 1, 5),
            ('LeNet, batch 64, 2 devices', lenet, (1, 28, 28), 64, 2, 5),
            ('ResNet-18, batch 16, 32 x 32', lambda: resnet18(10), (3, 32, 32), 16, 1, 1)):
        X = np.array(source.randn(batch, *shape), dtype='float32')
        y = np.array(source.randint(0, 10, batch), dtype='float32')
        devices = [mx.cpu(i) for i in range(count)]
        yield Case(name, {
            'd2l': Run(make_net, Trainer, devices, X, y, steps),
            'gluon': Run(make_net, gluon.Trainer, devices, X, y, steps)}, check)
