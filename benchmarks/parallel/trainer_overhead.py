"""What d2l.Trainer adds to the step of gluon.Trainer: the same networks, trained by both.

A call is some steps, forward and backward pass included, that end with the engine's last operation.
Of two workers, with a server of d2l and of MXNet, the CPU time is that of both, without the server.

As a script (trainer_overhead.py worker KIND) this is a worker of such a job.
"""
import time

import d2l  # noqa: F401  (before mxnet)  # isort: skip
import mxnet as mx
import numpy as onp
from mxnet import autograd, gluon, init, np, npx
from mxnet.gluon import nn

from benchmarks.parallel._jobs import Job, be_process, time_tasks
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

    def __init__(self, make_net, make_trainer, devices, X, y, steps, **options):
        mx.random.seed(0)
        self.net, self.steps, self.size = make_net(), steps, len(y)
        self.net.initialize(init.Xavier(), ctx=devices)
        self.net.hybridize(static_alloc=True, static_shape=True)
        self.parts = list(zip(*split_batch(X, y, devices)))
        with autograd.train_mode():  # plain gluon.Trainer cannot send what predicting rearranges
            self.net(self.parts[0][0])
        self.trainer = make_trainer(self.net.collect_params(), 'sgd',
                                    {'learning_rate': 0.01, 'momentum': 0.9},
                                    update_on_kvstore=False, **options)
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


def batch_of(shape, length):
    source = onp.random.RandomState(0)
    return (np.array(source.randn(length, *shape), dtype='float32'),
            np.array(source.randint(0, 10, length), dtype='float32'))


# Name -> network, shape of an example, batch, steps.
WORKERS = 2
TRAINED_BY_WORKERS = {'MLP, batch 16': (mlp, (784,), 16, 20),
                      'LeNet, batch 64': (lenet, (1, 28, 28), 64, 5)}


def cases():
    for name, make_net, shape, batch, count, steps in (
            ('MLP, batch 16', mlp, (784,), 16, 1, 20),
            ('MLP, batch 256, 2 devices', mlp, (784,), 256, 2, 10),
            ('LeNet, batch 64', lenet, (1, 28, 28), 64, 1, 5),
            ('LeNet, batch 64, 2 devices', lenet, (1, 28, 28), 64, 2, 5),
            ('ResNet-18, batch 16, 32 x 32', lambda: resnet18(10), (3, 32, 32), 16, 1, 1)):
        X, y = batch_of(shape, batch)
        devices = [mx.cpu(i) for i in range(count)]
        yield Case(name, {
            'd2l': Run(make_net, Trainer, devices, X, y, steps),
            'gluon': Run(make_net, gluon.Trainer, devices, X, y, steps)}, check)
    for name in TRAINED_BY_WORKERS:
        yield case_of_workers(name)


def case_of_workers(name):
    # MXNet's trainer has a job for each network, since it cannot share one.
    jobs = {'d2l': Job(__file__, 'd2l: ' + name, WORKERS, 'd2l.parallel.server'),
            'gluon': Job(__file__, 'gluon: ' + name, WORKERS, 'mxnet')}

    def work(provider, repeats):
        found = jobs[provider].work(repeats)
        weights, walls, cpus = zip(*found)
        assert all(each == weights[0] for each in weights), 'the workers differ'
        return weights[0], max(walls), sum(cpus)

    def timed(functions, samples):
        return time_tasks(work, functions, samples)

    def once(provider):
        return lambda: work(provider, 1)[0]
    return Case('{}, {} workers, dist_sync'.format(name, WORKERS),
                {provider: once(provider) for provider in jobs}, check, None, None, timed)


def worker(kind):
    """What trains, for so many calls, in a worker of a job."""
    npx.set_np()
    provider, _, name = kind.partition(': ')
    make_net, shape, batch, steps = TRAINED_BY_WORKERS[name]
    X, y = batch_of(shape, batch)
    run = Run(make_net, Trainer if provider == 'd2l' else gluon.Trainer, [mx.cpu()],
              X[:batch // WORKERS], y[:batch // WORKERS], steps, kvstore='dist_sync')
    if provider == 'gluon':  # what the other does when it is made
        run.trainer._init_kvstore()
        run.trainer._init_params()
        mx.nd.waitall()
        run.trainer._kvstore._barrier()

    def do(repeats):
        cpu, wall = time.process_time(), time.perf_counter()
        for _ in range(repeats):
            weights = run()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        return [array.ravel()[:100].tolist() for array in weights], wall, cpu
    return do


if __name__ == '__main__':
    be_process(worker)
