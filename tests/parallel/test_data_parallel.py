"""Gradients of several devices are those of one, and are added up while others are computed."""
import ctypes
import threading

import mxnet as mx
import numpy as onp
import pytest
from mxnet import autograd, gluon, np
from mxnet.base import _LIB, check_call
from mxnet.gluon import nn

from d2l.parallel.data_parallel import forward_backward
from d2l.parallel.split import split_batch

TWO = [mx.cpu(0), mx.cpu(1)]
LOSS = gluon.loss.L2Loss()


def model(devices, *middle):
    mx.random.seed(0)
    net = nn.HybridSequential()
    net.add(nn.Dense(4, in_units=3), *middle, nn.Dense(1, in_units=4))
    net.initialize(mx.init.Normal(0.5), ctx=devices)
    return net


def batch(n):
    rng = onp.random.RandomState(0)
    return (np.array(rng.normal(size=(n, 3)), dtype='float32'),
            np.array(rng.normal(size=(n, 1)), dtype='float32'))


@pytest.mark.parametrize('n', [1, 2, 7])
def test_gradients_add_up_to_those_of_one_device(n):
    """Shards of unequal lengths, and devices without one after they had one."""
    X, y = batch(n)
    nets = model([mx.cpu()]), model(TWO)
    for net, devices in zip(nets, ([mx.cpu()], TWO)):
        forward_backward(net, LOSS, *split_batch(*batch(6), devices))
        y_hats, losses = forward_backward(net, LOSS, *split_batch(X, y, devices))
        assert sum(len(l) for l in losses) == sum(len(y_hat) for y_hat in y_hats) == n
    for one, two in zip(*(net.collect_params().values() for net in nets)):
        total = sum(grad.asnumpy() for grad in two.list_grad())
        onp.testing.assert_allclose(total, one.grad().asnumpy(), rtol=1e-5, atol=1e-6)


def test_losses_that_are_means():
    X, y = batch(3)
    for loss in (lambda y_hat, y: LOSS(y_hat, y).mean(), lambda y_hat, y: (y_hat - y).sum(axis=0)):
        with pytest.raises(ValueError, match='loss must return the loss of each of 2 examples'):
            forward_backward(model(TWO), loss, *split_batch(X, y, TWO))


class Gate:
    """Holds back everything that writes to an array of the engine, until it is opened."""

    def __init__(self, array):
        self._opened = threading.Event()
        self._call = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)(self._wait)
        device = (ctypes.c_int * 4)(1, array.ctx.device_id)
        on_a_thread_of_its_own = ctypes.c_int(3)  # that of FnProperty::kCPUPrioritized
        check_call(_LIB.MXEnginePushSyncND(
            self._call, None, None, device, None, 0, ctypes.byref(array.handle), 1,
            ctypes.byref(on_a_thread_of_its_own), 0, b'gate'))

    def _wait(self, run_context, argument):
        self._opened.wait(5)
        self._opened.set()

    def is_open(self):
        return self._opened.is_set()

    def open(self):
        self._opened.set()


@pytest.mark.parametrize('hybridize', [False, True])
def test_sums_overlap_with_the_backward_pass(hybridize):
    """Those of the last layer are there while the first one's gradients cannot be, on two devices.

    The layers between are more than the 15 operations that MXNet does in one piece.  Held back is
    the device that comes last, since CPUs as devices share the memory for intermediate results.
    """
    between = [nn.Dense(4, in_units=4) for _ in range(24)]
    net = model(TWO, *between)
    if hybridize:
        net.hybridize()
    trainer = gluon.Trainer(net.collect_params(), 'sgd', update_on_kvstore=False)
    X, y = batch(5)
    first, last = net[0].weight, net[-1].weight
    forward_backward(net, LOSS, *split_batch(X, y, TWO))
    mx.nd.waitall()
    before = first.grad(TWO[1]).asnumpy()
    for grad in last.list_grad():
        grad[:] = 0
    gate = Gate(first.grad(TWO[1]))
    try:
        forward_backward(net, LOSS, *split_batch(X, y, TWO))
        trainer.allreduce_grads()
        sums = [grad.asnumpy() for grad in last.list_grad()]
        assert not gate.is_open() and abs(sums[0]).max() > 0
    finally:
        gate.open()
    onp.testing.assert_array_equal(*sums)
    assert (first.grad(TWO[1]).asnumpy() != before).any()


def test_nothing_is_recorded_afterwards():
    X, y = batch(4)
    forward_backward(model(TWO), LOSS, *split_batch(X, y, TWO))
    assert not autograd.is_recording()
