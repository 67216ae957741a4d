"""What each process of tests/parallel/test_ring.py does: ring_worker.py SCENARIO OUTPUT TRANSPORT.

Prints nothing but errors; results go to OUTPUT, an npz file with {} for the rank.
"""
import os
import signal
import sys

# isort: off
import d2l  # noqa: F401  (before mxnet)
import numpy as np
from mxnet import autograd, cpu, gluon, init, npx
from mxnet import np as mnp
from mxnet.gluon import nn
from d2l.parallel.stores import create
# isort: on

# Of one, of several and of no elements; with 4 KB buckets the largest stands alone.
SHAPES = [(3,), (), (7, 11), (0, 4), (1031,), (5, 1, 2), (50, 40)]
# As the tests, Horovod and MPICH name them.
RANK = int(next(filter(None, map(os.environ.get, ('D2L_RANK', 'HOROVOD_RANK', 'PMI_RANK'))), 0))
SIZE = int(next(filter(None, map(os.environ.get, (
    'D2L_NUM_WORKERS', 'HOROVOD_SIZE', 'PMI_SIZE'))), 1))


def terms(rank, dtype='float32'):
    """The arrays that a rank contributes."""
    random = np.random.default_rng(100 + rank)
    return [random.standard_normal(shape).astype(dtype) for shape in SHAPES]


def sums(transport):
    """Everything a store does when all goes well."""
    npx.set_np()
    found = {}
    name, options = 'ring', {'transport': transport, 'timeout': 30}
    if transport == 'horovod':
        name, options = 'horovod', {}
    store, second = (create(name, bucket_bytes=4096, **options) for _ in range(2))
    assert (store.rank, store.num_workers, store.type) == (RANK, SIZE, 'dist_' + name)
    for dtype in ('float32', 'float64', 'float16', 'int32'):
        arrays = [mnp.array(term * 8, dtype=dtype) for term in terms(RANK)]
        for _ in range(2):  # the second time by the buckets of the first
            values = [array.copy() for array in arrays]
            store.pushpull_all(list(range(len(values))), values)
        save(found, dtype, values)
    # One key at a time, over two devices, into arrays of their own; the inputs stay.
    devices = [cpu(0), cpu(1)]
    for i, term in enumerate(terms(RANK)):
        value = [mnp.array(term, ctx=device) * (d + 1) for d, device in enumerate(devices)]
        out = [mnp.zeros(term.shape, ctx=device) for device in devices]
        second.pushpull(i, value, out=out)
        np.testing.assert_array_equal(value[1].asnumpy(), term * 2)
        save(found, f'devices{i}', out)
    out = [mnp.zeros((2, 3), ctx=device) for device in devices]
    store.broadcast('weight', mnp.full((2, 3), RANK + 5.0), out)
    save(found, 'broadcast', out)
    net = nn.Conv2D(16, 5, in_channels=8, use_bias=False)
    net.initialize(init.Constant(RANK + 1.0))
    net(mnp.ones((1, 8, 5, 5)))  # which rearranges the weights
    store.broadcast('predicted', net.weight.data(), net.weight.list_data())
    save(found, 'predicted', net.weight.list_data())
    for name, trained in (('one', train(store, [cpu()])), ('two', train(second, devices))):
        save(found, name, trained)
    second.set_gradient_compression({'type': 'fp16'})
    found['numbers'] = second.sum([2049, RANK])
    values = [mnp.array(term) for term in terms(RANK)] + [mnp.full((2,), 40000.0 * (RANK == 0))]
    second.pushpull_all(list(range(len(values))), values)
    save(found, 'half', values)
    try:
        store.pushpull_all(['uneven'], [mnp.zeros(3 + RANK // 2 + (SIZE == 2) * RANK)])
    except ValueError as error:
        found['disagreement'] = np.array(str(error))
    store.barrier()
    return found


def train(store, devices, steps=4, batch=12):
    """The weights after some steps, in which the workers and devices of a store share a batch.

    store=None: one worker, one device.
    """
    net = nn.HybridSequential()
    net.add(nn.Conv2D(4, 3, activation='relu', in_channels=1), nn.Flatten(),
            nn.Dense(5, in_units=64), nn.Dense(3, in_units=5))
    net.initialize(init.Xavier(), ctx=devices)
    net.hybridize(static_alloc=True)
    weights = np.random.default_rng(3)
    for parameter in net.collect_params().values():
        parameter.set_data(mnp.array(weights.uniform(-0.3, 0.3, parameter.shape) * (
            store is None or store.rank == 0)))
    trainer = gluon.Trainer(net.collect_params(), 'adam', {'learning_rate': 0.01}, kvstore=store,
                            update_on_kvstore=False)
    if store is not None:  # what d2l.Trainer does when it is created
        trainer._init_kvstore()
        trainer._init_params()
    loss = gluon.loss.SoftmaxCrossEntropyLoss()
    data = np.random.default_rng(5)
    share = batch // ((store.num_workers if store else 1) * len(devices))
    first = (store.rank if store else 0) * len(devices)
    for _ in range(steps):
        X, y = data.standard_normal((batch, 1, 6, 6)), data.integers(0, 3, batch)
        with autograd.record():
            losses = []
            for d, device in enumerate(devices):
                part = slice((first + d) * share, (first + d + 1) * share)
                losses.append(loss(net(mnp.array(X[part], dtype='float32', ctx=device)),
                                   mnp.array(y[part], ctx=device)))
        autograd.backward(losses)
        trainer.step(batch)
    return [parameter.data(devices[-1]) for parameter in net.collect_params().values()]


def save(found, name, arrays):
    for i, array in enumerate(arrays):
        found[f'{name}.{i}'] = array.asnumpy()


def lost(transport, number):
    """Rank 1 gets a signal between two steps."""
    store = create('ring', transport=transport, timeout=4)
    value = mnp.ones(1000)
    store.pushpull(0, value)
    if RANK == 1:
        os.kill(os.getpid(), number)
    store.pushpull(0, value)


def main():
    scenario, output, transport = sys.argv[1:]
    if scenario == 'sums':
        np.savez(output.format(RANK), **sums(transport))
    else:
        lost(transport, getattr(signal, scenario))


if __name__ == '__main__':
    main()
