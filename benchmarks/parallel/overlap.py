"""Adding up gradients while the backward pass goes on: by two devices, and by two workers.

The devices are cpu(0) and cpu(1) of one process; the workers have a d2l.Trainer each with the store
'ring', on one host, or on two with a cable of 1 Gbit/s (which takes the right to make network
namespaces).

'd2l' asks for the sums right after the backward pass is asked for; 'one after the other' waits
for the backward pass first.  'backward' and 'sums' are the parts alone: where there are cores to
spare, 'd2l' comes down from their sum towards the longer of them.
"""
import importlib.util
import time

import d2l  # noqa: F401  (before mxnet)  # isort: skip
import mxnet as mx
import numpy as onp
from mxnet import gluon, np, npx
from mxnet.gluon import nn

from benchmarks.parallel._jobs import Job, be_process, can_make_hosts, time_tasks, two_hosts
from benchmarks.run import Case
from d2l.parallel.data_parallel import forward_backward
from d2l.parallel.split import split_batch
from d2l.parallel.trainer import Trainer

DEVICES = [mx.cpu(0), mx.cpu(1)]
SHAPES = [(64, 256, 8), (128, 1024, 8)]  # batch, width, number of layers


GBITS = 1
BY_WORKERS = (64, 1024, 8)
# Provider -> whether there is a backward pass, a wait for its end, and the sums.
PARTS = {'d2l': (True, False, True), 'one after the other': (True, True, True),
         'backward': (True, False, False), 'sums': (False, False, True)}


def model(width, depth, hybridize, devices=DEVICES):
    mx.random.seed(0)
    net = nn.HybridSequential()
    for _ in range(depth):
        net.add(nn.Dense(width, in_units=width, activation='relu'))
    net.initialize(mx.init.Xavier(), ctx=devices)
    if hybridize:
        net.hybridize()
    return net


def runner(net, trainer, devices, batch, width):
    """What runs one of PARTS and returns a piece of a gradient, if it has been computed and summed.
    """
    loss = gluon.loss.L2Loss()
    X = np.array(onp.random.RandomState(0).normal(size=(batch, width)), dtype='float32')
    shards = split_batch(X, X, devices)
    weight = net[0].weight

    def run(backward, wait, add):
        if backward:
            forward_backward(net, loss, *shards)
        if wait:
            npx.waitall()
        if add:
            trainer.allreduce_grads()
        npx.waitall()
        return [weight.list_grad()[0][:8, :8].asnumpy() if add and backward else None]
    return run


def check(results):
    """Of the whole ones; the parts alone have no result to check."""
    onp.testing.assert_allclose(results['d2l'][0], results['one after the other'][0], rtol=1e-6)


def cases():
    for batch, width, depth in SHAPES:
        for hybridize in (False, True):
            net = model(width, depth, hybridize)
            trainer = gluon.Trainer(net.collect_params(), 'sgd', kvstore='device',
                                    update_on_kvstore=False)
            run = runner(net, trainer, DEVICES, batch, width)
            yield Case('{}x{} {} layers{}'.format(batch, width, depth,
                                                  ' hybridized' if hybridize else ''),
                       {name: lambda run=run, parts=parts: run(*parts)
                        for name, parts in PARTS.items()}, check)
    if importlib.util.find_spec('torch'):
        yield case_of_workers('one host', None)
        if can_make_hosts():
            yield case_of_workers('two hosts, {} Gbit/s'.format(GBITS), lambda: two_hosts(GBITS))


def case_of_workers(where, hosts):
    job = Job(__file__, 'ring', 2, hosts=hosts)

    def work(name, repeats):
        pieces, walls, cpus = zip(*job.work(name, repeats))
        assert pieces[0] == pieces[1], 'the workers differ'
        return [pieces[0]], max(walls), sum(cpus)

    def timed(functions, samples):
        return time_tasks(work, functions, samples)
    return Case('{}x{} {} layers, 2 workers, ring, {}'.format(*BY_WORKERS, where),
                {name: lambda name=name: work(name, 1)[0] for name in PARTS}, check, None, None,
                timed)


def worker(kind):
    npx.set_np()
    batch, width, depth = BY_WORKERS
    net = model(width, depth, False, [mx.cpu()])
    trainer = Trainer(net, 'sgd', kvstore=kind, batch_size=batch)
    run = runner(net, trainer, [mx.cpu()], batch // 2, width)

    def do(name, repeats):
        cpu, wall = time.process_time(), time.perf_counter()
        for _ in range(repeats):
            piece, = run(*PARTS[name])
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        return None if piece is None else piece.ravel().tolist(), wall, cpu
    return do


if __name__ == '__main__':
    be_process(worker)
