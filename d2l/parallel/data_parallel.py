"""Forward and backward on several devices at once (sections 12.5 and 12.6)."""
from mxnet import autograd

from d2l.utils.parameters import parameters_of


def forward_backward(net, loss, X_shards, y_shards):
    """Compute the gradients of a batch that is split over devices; return (y_hats, losses).

    X_shards and y_shards come from `split_batch` or `split_batch_multi_inputs`; the parameters of
    the Block net are on those devices.  loss(y_hat, y) must return the loss of each example, with
    the examples along the first axis, as Gluon's losses do.  y_hats and losses are lists, with an
    array on each device.

    Afterwards the gradients on each device are sums over the examples there.
    ``trainer.step(number of examples of the whole batch, ignore_stale_grad=True)`` adds them up
    and divides by that number, which weights shards of different lengths right.

    Nothing waits.  The gradients of the last layers are there first, and MXNet's engine adds up
    those of a parameter as soon as all devices have them, while the layers before it are still at
    work: sums that are asked for right after this call overlap with it.  The engine does up to 15
    operations in one piece, whose gradients come together; MXNET_EXEC_BULK_EXEC_TRAIN=0 in the
    environment makes them single ones.  ``benchmarks/parallel/overlap.py`` measures both parts.

    Devices that a short batch leaves without a shard count with a gradient of zero.

    Raises ValueError when loss returns something else than a value, or a row, for each example.
    """
    with autograd.record():
        y_hats = [net(X) for X in X_shards]
        losses = [loss(y_hat, y) for y_hat, y in zip(y_hats, y_shards)]
    for l, y in zip(losses, y_shards):
        if l.ndim == 0 or len(l) != len(y):
            raise ValueError('forward_backward: loss must return the loss of each of {} examples, '
                             'got shape {}'.format(len(y), l.shape))
    # Not before the forward pass, which gives deferred parameters their values.
    replicated = _replicated(net)
    for param in replicated:
        for array in param.list_data():
            array._fresh_grad = False
    for l in losses:
        l.backward()
    _clear_stale(replicated)
    return y_hats, losses


def _replicated(net):
    """Return the parameters with values and gradients on several devices."""
    return [param for param in parameters_of(net)
            if param.grad_req != 'null' and param._data is not None and len(param.list_ctx()) > 1]


def _clear_stale(replicated):
    """Make gradients zero that are still those of an earlier batch.

    The trainer adds up the gradients of all devices, and a short batch leaves devices without a
    shard.  A device is skipped, its copy of the parameter left behind, unless it counts as fresh.
    """
    for param in replicated:
        fresh = [array._fresh_grad for array in param.list_data()]
        for array, grad, is_fresh in zip(param.list_data(), param.list_grad(), fresh):
            if not is_fresh:
                if param.grad_req == 'write':  # those that add up are the caller's to clear
                    grad[:] = 0
                array._fresh_grad = any(fresh)
