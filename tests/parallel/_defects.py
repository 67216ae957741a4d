"""Shows defects of MXNet's distributed training: ``_defects.py plain|d2l name...`` in a worker.

For each name a line 'name: right' or 'name: wrong (what)'.  plain uses gluon.Trainer.
"""
import os
import sys
import threading
import time

import d2l  # noqa: F401  (before mxnet)  # isort: skip
import mxnet as mx
from mxnet import autograd, gluon, init, np, npx

from d2l.parallel import stores
from d2l.parallel.trainer import Trainer

PLAIN = len(sys.argv) > 1 and sys.argv[1] == 'plain'
_trainers = []  # to the end of the process, as those of a script


class Mine(mx.optimizer.SGD):
    """An optimizer that only this script knows."""


mx.optimizer.register(Mine)


def parameters(value):
    param = gluon.Parameter('weight', shape=(3,))
    param.initialize(init.Constant(value))
    return [param]


def trainer_of(params, optimizer='sgd', learning_rate=1.0, store='dist_sync', **options):
    make = gluon.Trainer if PLAIN else Trainer
    _trainers.append(make(params, optimizer, {'learning_rate': learning_rate}, store, **options))
    return _trainers[-1]


def backward(params, scale=1.0):
    """Gradients are scale times the parameters."""
    with autograd.record():
        loss = sum((param.data() ** 2).sum() * (scale / 2) for param in params)
    loss.backward()


def expect(params, value):
    arrays = [param.data().asnumpy().ravel() for param in params]
    found = sorted({number for array in arrays for number in array.tolist()})
    assert found == [value], f'expected {value}, got {found}'


def race():
    """1: weights that were to be broadcast are gradients.

    With one parameter in about half of all runs, so many are broadcast; the calls are those of the
    first step of gluon.Trainer.
    """
    store = mx.kv.create('dist_sync') if PLAIN else stores.create('dist_sync')
    for key in range(60):
        weight, gradient = np.ones(3), np.full(3, 100.0)
        mx.nd.waitall()
        store.broadcast(key, weight, [weight])
        store.pushpull(key, gradient)
        found = weight.tolist(), gradient.tolist()
        assert found == ([1.0] * 3, [200.0] * 3), f'expected 1.0 and 200.0, got {found}'


def first_gradient():
    """2: the first gradients are those of each worker's own weights."""
    # Only one of the workers can make this file: one begins with 1, the other with 2.
    try:
        open(os.path.join(os.environ['FOLDER'], 'taken'), 'x').close()
        value = 1.0
    except FileExistsError:
        value = 2.0
    params = parameters(value)
    trainer = trainer_of(params, update_on_kvstore=False)
    backward(params)
    trainer.step(2)
    expect(params, 0.0)


def optimizer_of_the_script():
    """3: weights become gradients when the server cannot unpickle the optimizer."""
    params = parameters(1.0)
    trainer = trainer_of(params, 'mine', 0.5)
    backward(params)
    trainer.step(2)
    expect(params, 0.5)


def learning_rate():
    """4a: a learning rate that is set has no effect where the servers update."""
    params = parameters(1.0)
    trainer = trainer_of(params, learning_rate=0.5, update_on_kvstore=True)
    backward(params)
    trainer.step(2)
    trainer.set_learning_rate(0.0)
    backward(params)
    trainer.step(2)
    expect(params, 0.5)


def states():
    """4b: states cannot be saved where the servers update."""
    params = parameters(1.0)
    trainer = trainer_of(params, update_on_kvstore=True)
    backward(params)
    trainer.step(2)
    trainer.save_states(os.path.join(os.environ['FOLDER'], 'states'))


def batch_size():
    """4c: another batch size raises an exception where the servers update."""
    params = parameters(1.0)
    trainer = trainer_of(params, learning_rate=0.5, update_on_kvstore=True)
    backward(params)
    trainer.step(2)
    backward(params)
    trainer.step(4)
    expect(params, 0.5 - 0.125)


def gradient():
    """5: the gradient is replaced by the weight where the servers update."""
    params = parameters(1.0)
    trainer = trainer_of(params, learning_rate=0.25, update_on_kvstore=True)
    backward(params, 2.0)
    trainer.step(2)
    expect(params, 0.5)
    assert params[0].grad().asnumpy().tolist() == [2.0] * 3, params[0].grad().asnumpy()


def two_trainers():
    """6: two Trainers hang."""
    first, second = parameters(1.0), parameters(2.0)
    trainers = [trainer_of(params, learning_rate=0.5) for params in (first, second)]
    for params, trainer in zip((first, second), trainers):
        backward(params)
        trainer.step(2)
    expect(first, 0.5)
    expect(second, 1.0)


def compression():
    """7: compression raises an exception."""
    params = parameters(1.0)
    trainer = trainer_of(params, update_on_kvstore=False,
                         compression_params={'type': '2bit', 'threshold': 0.5})
    backward(params, 0.75)
    trainer.step(2)
    expect(params, 0.5)
    try:
        trainer.sum_workers([1])
    except ValueError as error:
        assert 'without 2bit compression' in str(error)
    else:
        raise AssertionError('two bits are too few for a number')


def sparse():
    """8: sparse gradients of an Embedding abort the server, and the workers hang."""
    npx.reset_np()
    net = gluon.nn.Embedding(4, 2, sparse_grad=True)
    net.initialize()
    try:
        trainer = trainer_of(net.collect_params())
    except ValueError as error:
        assert 'must be dense' in str(error)
        return
    finally:
        if not PLAIN:
            npx.set_np()
    with autograd.record():
        y = net(mx.nd.array([1]))
    y.backward()
    trainer.step(2)
    mx.nd.waitall()


def order():
    """9: a sum depends on the order in which the gradients of three workers arrive.

    Those of two are too small to change the first one's alone, but not together.
    """
    params, small = parameters(1.0), 2.0 ** -24
    store = 'dist_sync' if PLAIN else stores.create('dist_sync', exact=True)
    trainer, found = trainer_of(params, store=store, update_on_kvstore=False), []
    for first in (None, True, False):  # once to meet, then rank 0 first, then last
        with autograd.record():
            own = 1.0 if first is None or trainer._kvstore.rank == 0 else small
            loss = (params[0].data() * own).sum()
        loss.backward()
        mx.nd.waitall()
        time.sleep(1.0 if first == (own == small) else 0.0)
        trainer.allreduce_grads()
        found.append(params[0].grad().asnumpy()[0].item())
    assert found[1:] == [1 + 2 * small] * 2, f'expected 1 + 2 ** -23 twice, got {found[1:]}'


def convolution():
    """12: weights that a predicting convolution has rearranged cannot be broadcast."""
    net = gluon.nn.Conv2D(16, 5, in_channels=8, use_bias=False)
    net.initialize(init.Constant(1.0))
    X = np.ones((2, 8, 5, 5))
    net(X)
    trainer = trainer_of(net.collect_params(), learning_rate=0.5, update_on_kvstore=False)
    with autograd.record():
        y = net(X).sum() / 16
    y.backward()
    trainer.step(8)  # of two in each of two workers: the gradient is 2 / 16 in each
    expect(list(net.collect_params().values()), 1 - 0.5 * 2 * 2 / 16 / 8)


def thread_at_exit():
    """10: a thread that lives at the exit aborts the process."""
    params = parameters(1.0)
    trainer = trainer_of(params)
    backward(params)
    trainer.step(2)

    def run():
        while True:
            time.sleep(0.001)
    threading.Thread(target=run, daemon=True).start()


if __name__ == '__main__':
    npx.set_np()
    np.ones(1)
    for name in sys.argv[2:]:
        try:
            globals()[name]()
            mx.nd.waitall()
        except (AssertionError, UserWarning, mx.base.MXNetError) as error:
            print(f'{name}: wrong ({str(error)[:800]!r})', flush=True)
        else:
            print(f'{name}: right', flush=True)
