"""Adding up gradients while the backward pass goes on, on cpu(0) and cpu(1).

'd2l' asks for the sums right after the backward pass is asked for; 'one after the other' waits
for the backward pass first.  'backward' and 'sums' are the parts alone: where there are cores to
spare, 'd2l' comes down from their sum towards the longer of them.
"""
import mxnet as mx
import numpy as onp
from mxnet import gluon, np, npx
from mxnet.gluon import nn

from benchmarks.run import Case
from d2l.parallel.data_parallel import forward_backward
from d2l.parallel.split import split_batch

DEVICES = [mx.cpu(0), mx.cpu(1)]
SHAPES = [(64, 256, 8), (128, 1024, 8)]  # batch, width, number of layers


def model(width, depth, hybridize):
    mx.random.seed(0)
    net = nn.HybridSequential()
    for _ in range(depth):
        net.add(nn.Dense(width, in_units=width, activation='relu'))
    net.initialize(mx.init.Xavier(), ctx=DEVICES)
    if hybridize:
        net.hybridize()
    return net


def providers(batch, width, depth, hybridize):
    net, loss = model(width, depth, hybridize), gluon.loss.L2Loss()
    trainer = gluon.Trainer(net.collect_params(), 'sgd', kvstore='device',
                            update_on_kvstore=False)
    X = np.array(onp.random.RandomState(0).normal(size=(batch, width)), dtype='float32')
    shards = split_batch(X, X, DEVICES)
    params = list(net.collect_params().values())

    def gradients():
        npx.waitall()
        return [param.list_grad()[0] for param in params]

    def run(backward, wait, add):
        if backward:
            forward_backward(net, loss, *shards)
        if wait:
            npx.waitall()
        if add:
            trainer.allreduce_grads()
        return [gradients()[0][:8, :8].asnumpy() if add and backward else None]
    return {'d2l': lambda: run(True, False, True), 'one after the other': lambda: run(1, 1, 1),
            'backward': lambda: run(1, 0, 0), 'sums': lambda: run(0, 0, 1)}


def check(results):
    """Of the whole ones; the parts alone have no result to check."""
    onp.testing.assert_allclose(results['d2l'][0], results['one after the other'][0], rtol=1e-6)


def cases():
    for batch, width, depth in SHAPES:
        for hybridize in (False, True):
            yield Case('{}x{} {} layers{}'.format(batch, width, depth,
                                                  ' hybridized' if hybridize else ''),
                       providers(batch, width, depth, hybridize), check)
