"""One small training, in any form: run by tests themselves and by the workers that they start.

As a script: ``_training.py store folder name...`` trains what is named, side by side, and writes
the weights of this worker to folder/<rank>.npz.
"""
import sys

import d2l  # noqa: F401  (before mxnet)  # isort: skip
import mxnet as mx
import numpy as onp
from mxnet import autograd, gluon, init, lr_scheduler, np, npx
from mxnet.gluon import nn

from d2l.parallel.split import split_batch
from d2l.parallel.trainer import Trainer
from d2l.train import optimizers  # noqa: F401  (d2l_adam)

BATCH, STEPS = 12, 6


def case(optimizer='sgd', options=None, restart=False, change=False, add=False, head=False,
         uneven=False, **arguments):
    """How to train; see `train`."""
    arguments.setdefault('learning_rate', 0.2)
    return dict(optimizer=optimizer, arguments=arguments, options=options or {}, restart=restart,
                change=change, add=add, head=head, uneven=uneven)


CASES = {
    'sgd': case(momentum=0.9),
    'adam': case('adam', learning_rate=0.02),
    'd2l_adam': case('d2l_adam', learning_rate=0.02, wd=0.01),
    'clipped': case(momentum=0.9, options={'clip_global_norm': 0.1}),
    'accumulated': case('adam', learning_rate=0.02, options={'accumulate': 2}),
    'schedule': case(learning_rate=None, momentum=0.9),
    'changing': case(momentum=0.5, change=True),
    'restarted': case('adam', learning_rate=0.02, restart=True),
    'adding': case(momentum=0.9, add=True),
    'head': case(momentum=0.9, wd=0.1, head=True),
    'uneven': case('adam', learning_rate=0.02, uneven=True),
    'servers': case(momentum=0.9, options={'update_on_kvstore': True}),
    'servers_restarted': case('adam', learning_rate=0.02, restart=True,
                              options={'update_on_kvstore': True}),
    'fp16': case(momentum=0.9, options={'compression_params': {'type': 'fp16'}})}


class Net(nn.Block):
    """Two layers whose shapes the first batch tells, one frozen, and a head for some batches."""

    def __init__(self):
        super().__init__()
        with self.name_scope():
            self.hidden = nn.Dense(8, activation='tanh')
            self.frozen = nn.Dense(8)
            self.out = nn.Dense(3)
            self.head = nn.Dense(2, in_units=8)
        self.frozen.collect_params().setattr('grad_req', 'null')

    def forward(self, X):
        return self.out(self.frozen(self.hidden(X)))


def batches():
    source = onp.random.RandomState(1)
    for _ in range(STEPS):
        yield (np.array(source.randn(BATCH, 5), dtype='float32'),
               np.array(source.randint(0, 3, BATCH), dtype='float32'))


def train(case, store, devices, shards, rank=0):
    """Yield after each step of a training, and at last its weights, name -> array of each device.

    shards(X, y) are those that this process computes, one for each device.  case has the
    optimizer and its arguments, options of the Trainer, and whether it makes a new net and Trainer
    of what is saved after half the steps, changes learning rate and batch size, adds gradients up,
    has a head that only the last half of each batch uses in the first steps, and whether the last
    two batches are short, the very last too short for all to get a shard.
    """
    mx.random.seed(rank)
    net, trainer = _start(case, store, devices)
    loss = gluon.loss.SoftmaxCrossEntropyLoss()
    for step, (X, y) in enumerate(batches()):
        if case['restart'] and step == STEPS // 2:
            net, trainer = _restart(case, store, devices, net, trainer)
        if case['change'] and step == 3:
            trainer.set_learning_rate(0.05)
            net.out.weight.lr_mult = 0.5
        if case['uneven'] and step >= STEPS - 2:
            length = 7 if step == STEPS - 2 else 1
            X, y = X[:length], y[:length]
        parts = shards(X, y)
        for _ in range(2 if case['add'] else 1):
            with autograd.record():
                losses = []
                for X_shard, y_shard, last in parts:
                    scores = net(X_shard)
                    l = loss(scores, y_shard)
                    if case['head'] and last and step < 3:
                        l = l + (net.head(net.hidden(X_shard)) ** 2).sum(axis=1)
                    losses.append(l)
            if losses:
                autograd.backward(losses)
        trainer.step(BATCH // 2 if case['change'] and step == 4 else len(y),
                     ignore_stale_grad=True)
        if case['add']:
            net.collect_params().zero_grad()
        yield
    if case['restart']:
        trainer.get_states()  # as often as one likes
    yield {name: [array.asnumpy() for array in param.list_data()]
           for name, param in net._collect_params_with_prefix().items()}


def _start(case, store, devices):
    net, arguments = Net(), dict(case['arguments'])
    net.initialize(init.Normal(0.5), ctx=devices)
    net.hybridize()
    if case['add']:
        for block in (net.hidden, net.out):
            block.collect_params().setattr('grad_req', 'add')
    if arguments['learning_rate'] is None:
        del arguments['learning_rate']
        arguments['lr_scheduler'] = lr_scheduler.FactorScheduler(2, 0.5, base_lr=0.2)
    trainer = Trainer(net, case['optimizer'], arguments, store, batch_size=BATCH,
                      **case['options'])
    return net, trainer


def _restart(case, store, devices, net, trainer):
    """Another net and Trainer, which take over as from a checkpoint."""
    values = {name: param.data(devices[0]).asnumpy()
              for name, param in net._collect_params_with_prefix().items()}
    states = trainer.get_states()
    assert b'pickle' not in states
    net, trainer = _start(case, store, devices)
    for name, param in net._collect_params_with_prefix().items():
        param.set_data(np.array(values[name]))
    trainer.set_states(states)
    return net, trainer


def on_devices(names, count, parts=2):
    """The weights after the trainings of names, name -> parameter -> arrays, on count devices.

    One device computes the losses of all parts of a batch, which workers would have.
    """
    devices = [mx.cpu(i) for i in range(count)]

    def shards(X, y):
        X_parts, y_parts = split_batch(X, y, devices if count > 1 else devices * parts)
        return [(X_part, y_part, i == len(X_parts) - 1)
                for i, (X_part, y_part) in enumerate(zip(X_parts, y_parts))]

    results = {}
    for name in names:
        # What a store between processes can do besides.
        options = {key: value for key, value in CASES[name]['options'].items()
                   if key not in ('update_on_kvstore', 'compression_params')}
        one = dict(CASES[name], options=options)
        results[name] = list(train(one, 'device', devices, shards))[-1]
    return results


def as_worker(store, folder, names):
    npx.set_np()
    from d2l.parallel import stores
    connection = stores.create(store)
    rank, count = connection.rank, connection.num_workers
    if store != 'dist_async':  # whatever becomes of gradients
        connection.set_gradient_compression({'type': 'fp16'})
        for _ in range(2):
            assert connection.sum([2049, rank]).tolist() == [2049 * count, sum(range(count))]

    def shards(X, y):
        X_parts, y_parts = split_batch(X, y, [mx.cpu(0)] * count)
        return [(X_part, y_part, rank == count - 1)
                for X_part, y_part in zip(X_parts[rank:rank + 1], y_parts[rank:rank + 1])]

    # Side by side: the trainers take turns.
    runs = [(name, train(CASES[name], store, [mx.cpu(0)], shards, rank)) for name in names]
    results = {}
    for _ in range(STEPS):
        for _, run in runs:
            next(run)
    for name, run in runs:
        for parameter, (array,) in next(run).items():
            results[f'{name}/{parameter}'] = array
    onp.savez(f'{folder}/{rank}.npz', **results)


def results_of(folder, count):
    """What the workers have written."""
    return [onp.load(f'{folder}/{rank}.npz') for rank in range(count)]


def assert_same(results, expected, tolerance=0.0):
    """All workers, and the first device of what is expected, have the same weights."""
    for name, parameters in expected.items():
        for parameter, arrays in parameters.items():
            for result in results:
                onp.testing.assert_allclose(result[f'{name}/{parameter}'], arrays[0], 0,
                                            tolerance, err_msg=f'{name} {parameter}')


if __name__ == '__main__':
    as_worker(sys.argv[1], sys.argv[2], sys.argv[3:])
