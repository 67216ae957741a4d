"""Training and evaluating on several devices at once."""
import functools
import operator

from mxnet import np

from d2l.data.arrays import positive_int
from d2l.parallel.data_parallel import forward_backward
from d2l.parallel.split import split_batch
from d2l.train.classification import num_correct
from d2l.utils.animator import Animator
from d2l.utils.devices import devices_of, try_all_gpus
from d2l.utils.timing import Accumulator, Timer

_POINTS_PER_EPOCH = 5


def evaluate_accuracy_gpus(net, data_iter, split_f=None):
    """Return the share of right predictions of net, on all devices it is on (section 12.6).

    The devices are those of the first parameter.  data_iter gives pairs (X, y), which
    split_f(X, y, devices) splits: d2l.split_batch if it is None.  X is whatever split_f takes.

    Raises ValueError when data_iter gives no examples.
    """
    return _accuracy('evaluate_accuracy_gpus: data_iter', net, data_iter, split_f or split_batch)


def train_batch_ch13(net, features, labels, loss, trainer, devices, split_f=None):
    """Train on one batch, split over devices; return (sum of losses, number right) (section 13.1).

    Both are floats.  loss(y_hat, y) returns the loss of each example; labels may have more axes
    than one, and the number right is then that of single labels.  split_f is d2l.split_batch if
    it is None.  The devices compute side by side, and the call waits for them once, at its end.

    The parameters become what one device would make of them, up to rounding, for batches of any
    length; only what layers gather over a batch (BatchNorm) is gathered on each device by itself.
    Parameters without a part in the computation keep their values: heads that a task does not
    need may stay in the net.  On several devices, where the trainer's key-value store updates,
    they do so if the optimizer leaves alone what has a zero gradient, which momentum that is left
    over and weight decay do not.

    Raises ValueError for an empty batch and a loss of other shape.
    """
    sums = _train_batch(net, features, labels, loss, trainer, devices, split_f or split_batch)
    # One array, so one wait; float64 counts beyond 2^24.
    return tuple(np.stack([value.astype('float64') for value in sums]).asnumpy().tolist())


def train_ch13(net, train_iter, test_iter, loss, trainer, num_epochs, devices=None, split_f=None,
               *, animator=None):
    """Train on several devices, draw the curves, print the result (section 13.1).

    Batches are trained on as `train_batch_ch13` does; the default devices are try_all_gpus(),
    asked for at the call.  The net is used as it is: it must be initialised on the devices.
    train_iter gives pairs (features, labels) and has a length.  Five times an epoch, or after
    each batch if there are fewer, the loss and accuracy since its beginning, and after it the
    test accuracy, go to the animator, if one is given: the caller can then save its figure.  The
    loss is that of an example, the accuracy that of a label, of which there may be many.

    Prints the last loss and accuracies, and the examples a second.  This counts loading data and
    training, not testing or drawing.

    Raises ValueError for num_epochs below 1 and iterators without examples, TypeError for a
    num_epochs that is not an integer.
    """
    num_epochs = positive_int('train_ch13: num_epochs', num_epochs)
    devices = try_all_gpus() if devices is None else devices
    split_f = split_f or split_batch
    if animator is None:
        animator = Animator(xlabel='epoch', xlim=[0, num_epochs], ylim=[0, 1],
                            legend=['train loss', 'train acc', 'test acc'])
    timer, num_batches = Timer(), len(train_iter)
    interval = max(1, num_batches // _POINTS_PER_EPOCH)
    for epoch in range(num_epochs):
        # Sum of losses, number right, numbers of examples and of labels.
        metric = Accumulator(4)
        timer.start()
        for i, (features, labels) in enumerate(train_iter):
            loss_sum, right = _train_batch(net, features, labels, loss, trainer, devices, split_f)
            metric.add(loss_sum, right, labels.shape[0], labels.size)
            if (i + 1) % interval == 0 or i + 1 == num_batches:
                # Reading the sums waits for the devices, so the stopwatch sees finished work.
                train_loss, train_acc = metric[0] / metric[2], metric[1] / metric[3]
                timer.stop()
                animator.add(epoch + (i + 1) / num_batches, (train_loss, train_acc, None))
                timer.start()
        if metric[2] == 0:
            raise ValueError('train_ch13: train_iter must give at least one example, got none')
        test_acc = _accuracy('train_ch13: test_iter', net, test_iter, split_f)
        animator.add(epoch + 1, (None, None, test_acc))
    animator.close()
    print(f'loss {train_loss:.3f}, train acc {train_acc:.3f}, test acc {test_acc:.3f}')
    print(f'{metric[2] * num_epochs / timer.sum():.1f} examples/sec on {devices}')


def _accuracy(what, net, data_iter, split_f):
    """`evaluate_accuracy_gpus`; what names data_iter in the error."""
    devices, metric = devices_of(net), Accumulator(2)
    for X, y in data_iter:
        X_shards, y_shards = split_f(X, y, devices)
        # All devices start before the first result is asked for.
        y_hats = [net(X_shard) for X_shard in X_shards]
        metric.add(_sum(num_correct(*pair) for pair in zip(y_hats, y_shards)), y.size)
    if metric[1] == 0:
        raise ValueError(f'{what} must give at least one example, got none')
    return metric[0] / metric[1]


def _train_batch(net, features, labels, loss, trainer, devices, split_f):
    """Return `train_batch_ch13` as arrays that MXNet may still be computing."""
    X_shards, y_shards = split_f(features, labels, devices)
    y_hats, ls = forward_backward(net, loss, X_shards, y_shards)
    trainer.step(labels.shape[0], ignore_stale_grad=True)
    return (_sum(l.sum() for l in ls),
            _sum(num_correct(*pair) for pair in zip(y_hats, y_shards)))


def _sum(values):
    """Add up arrays on the device of the first one."""
    values = list(values)
    device = values[0].ctx
    return functools.reduce(operator.add, (value.as_in_ctx(device) for value in values))
