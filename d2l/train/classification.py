"""Training and evaluating image classifiers: the loops of chapters 3 and 6."""
import contextlib
import numbers

import numpy
from mxnet import autograd, gluon, init, np

from d2l.data.arrays import positive_int
from d2l.data.vision import get_fashion_mnist_labels
from d2l.nn.conv import conv2d_kernels
from d2l.train.optimizers import fused
from d2l.utils.animator import Animator
from d2l.utils.devices import devices_of, try_gpu
from d2l.utils.plotting import show_images
from d2l.utils.timing import Accumulator, Timer

_POINTS_PER_EPOCH = 10


def accuracy(y_hat, y):
    """Return how many predictions are right, a float (section 3.6).

    y_hat has shape (n, classes, ...) with a score for each class along axis 1, or shape (n,) or
    (n, 1) with the prediction itself, which is rounded to a whole number.  Rounding leaves class
    numbers as they are and cuts probabilities of class 1 at one half; logits must go through
    npx.sigmoid first.  y holds the class numbers, of any dtype; axes of length 1 do not matter.

    Raises ValueError when y does not have one label for each prediction.
    """
    return float(num_correct(y_hat, y))


def num_correct(y_hat, y):
    """Return `accuracy` as an array of one element that MXNet may still be computing."""
    if y_hat.ndim > 1 and y_hat.shape[1] > 1:
        predicted = y_hat.argmax(axis=1)
    elif numpy.issubdtype(y_hat.dtype, numpy.floating):
        predicted = np.rint(y_hat)
    else:
        predicted = y_hat.astype('int64')
    if predicted.shape != y.shape:
        if _without_ones(predicted.shape) != _without_ones(y.shape):
            raise ValueError(f'accuracy: y must have one label for each prediction, got the shape '
                             f'{y.shape} for y_hat of shape {y_hat.shape}')
        y = y.reshape(predicted.shape)
    return (predicted == y.astype(predicted.dtype)).sum()


def evaluate_accuracy(net, data_iter):
    """Return the share of right predictions of net over a data set (section 3.6).

    data_iter gives pairs (X, y) on the device of net.  Raises ValueError when there are none.
    """
    return _share(net, data_iter, None, 'evaluate_accuracy: data_iter')


def evaluate_accuracy_gpu(net, data_iter, device=None):
    """Return the share of right predictions of net, computed on a device (section 6.6).

    net is a Block, or any function if the device is given.  The default device is that of the
    first parameter.  Raises ValueError when data_iter gives no pairs (X, y).
    """
    if device is None:
        device = devices_of(net)[0]
    return _share(net, data_iter, device, 'evaluate_accuracy_gpu: data_iter')


def train_epoch_ch3(net, train_iter, loss, updater):
    """Train for one epoch and return (mean loss, share of right predictions) (section 3.6).

    loss(y_hat, y) returns the loss of each example.  updater is a gluon.Trainer or a function of
    the batch size that changes the parameters.  Raises ValueError when train_iter is empty.
    """
    if isinstance(updater, gluon.Trainer):
        updater = updater.step
    metric = Accumulator(3)
    for X, y in train_iter:
        with autograd.record():
            y_hat = net(X)
            l = loss(y_hat, y)
        l.backward()
        updater(X.shape[0])
        metric.add(l.sum(), num_correct(y_hat, y), y.size)
    if metric[2] == 0:
        raise ValueError('train_epoch_ch3: train_iter must give at least one example, got none')
    return metric[0] / metric[2], metric[1] / metric[2]


def train_ch3(net, train_iter, test_iter, loss, num_epochs, updater, *, animator=None):
    """Train for num_epochs, draw the curves and check that the model learned (section 3.6).

    The arguments are those of `train_epoch_ch3`.  Loss and accuracies go to the animator, if one
    is given: the caller can then save its figure.

    Raises AssertionError unless the last loss is below 0.5 and both accuracies are above 0.7,
    which the models of chapters 3 and 4 reach on Fashion-MNIST in ten epochs.
    """
    _check_epochs('train_ch3', num_epochs)
    if animator is None:
        animator = Animator(xlabel='epoch', xlim=[1, num_epochs] if num_epochs > 1 else None,
                            legend=['train loss', 'train acc', 'test acc'])
        # The range of the book's figures; curves that leave it stretch it.
        animator.axes[0].update_datalim([(1, 0.3), (num_epochs, 0.9)])
    for epoch in range(num_epochs):
        train_loss, train_acc = train_epoch_ch3(net, train_iter, loss, updater)
        test_acc = _share(net, test_iter, None, 'train_ch3: test_iter')
        animator.add(epoch + 1, (train_loss, train_acc, test_acc))
    animator.close()
    assert train_loss < 0.5, f'the training loss should be below 0.5, got {train_loss:.3f}'
    assert 0.7 < train_acc <= 1, f'the training accuracy should be above 0.7, got {train_acc:.3f}'
    assert 0.7 < test_acc <= 1, f'the test accuracy should be above 0.7, got {test_acc:.3f}'


def predict_ch3(net, test_iter, n=6):
    """Show the first n pictures of test_iter under their true and predicted names (section 3.6).

    The pictures have shape (batch, height, width), or (batch, channels, height, width) with 1 or
    3 channels; the classes are those of Fashion-MNIST.

    Raises TypeError or ValueError unless n is an integer of at least 1, and ValueError when
    test_iter is empty.
    """
    n = positive_int('predict_ch3: n', n)
    batch = next(iter(test_iter), None)
    if batch is None:
        raise ValueError('predict_ch3: test_iter must give at least one batch, got none')
    X, y = (array[:n] for array in batch)
    trues = get_fashion_mnist_labels(y)
    preds = get_fashion_mnist_labels(net(X).argmax(axis=1))
    titles = [true + '\n' + pred for true, pred in zip(trues, preds)]
    if X.ndim == 4:
        X = X.transpose(0, 2, 3, 1)
    show_images(X, 1, len(titles), titles=titles)


def train_ch6(net, train_iter, test_iter, num_epochs, lr, device=None, *, animator=None,
              force_reinit=True):
    """Train with SGD and softmax cross entropy, draw the curves, print the result (section 6.6).

    The net is first initialised after Xavier: parameters that it has already are lost, unless
    force_reinit is False, which initialises only those that have no values.  The default device
    is try_gpu().  train_iter gives pairs (X, y) and has a length.  Ten times an epoch the loss
    and accuracy since its beginning, and after it the test accuracy, go to the animator, if one
    is given: the caller can then save its figure.

    Prints the last loss and accuracies, and the examples a second.  This counts loading data and
    training, not testing or drawing.

    On a CPU, layers that are Gluon's Conv2D and not hybridized compute as `d2l.nn.conv.Conv2D`
    does, as long as this function runs.

    Raises ValueError for num_epochs below 1 and iterators without examples.
    """
    _check_epochs('train_ch6', num_epochs)
    device = try_gpu() if device is None else device
    net.initialize(init=init.Xavier(), ctx=device, force_reinit=force_reinit)
    loss = gluon.loss.SoftmaxCrossEntropyLoss()
    trainer = gluon.Trainer(net.collect_params(), fused('sgd'), {'learning_rate': lr})
    if animator is None:
        animator = Animator(xlabel='epoch', xlim=[0, num_epochs],
                            legend=['train loss', 'train acc', 'test acc'])
    timer, num_batches = Timer(), len(train_iter)
    interval = max(1, num_batches // _POINTS_PER_EPOCH)
    with conv2d_kernels(net) if device.device_type == 'cpu' else contextlib.nullcontext():
        for epoch in range(num_epochs):
            metric = Accumulator(3)
            timer.start()
            for i, (X, y) in enumerate(train_iter):
                X, y = X.as_in_ctx(device), y.as_in_ctx(device)
                with autograd.record():
                    y_hat = net(X)
                    l = loss(y_hat, y)
                l.backward()
                trainer.step(X.shape[0])
                metric.add(l.sum(), num_correct(y_hat, y), X.shape[0])
                if (i + 1) % interval == 0 or i + 1 == num_batches:
                    # Reading the sums waits for the device, so the stopwatch sees finished work.
                    train_loss, train_acc = metric[0] / metric[2], metric[1] / metric[2]
                    timer.stop()
                    animator.add(epoch + (i + 1) / num_batches, (train_loss, train_acc, None))
                    timer.start()
            if metric[2] == 0:
                raise ValueError('train_ch6: train_iter must give at least one example, got none')
            test_acc = _share(net, test_iter, device, 'train_ch6: test_iter')
            animator.add(epoch + 1, (None, None, test_acc))
    animator.close()
    print(f'loss {train_loss:.3f}, train acc {train_acc:.3f}, test acc {test_acc:.3f}')
    print(f'{metric[2] * num_epochs / timer.sum():.1f} examples/sec on {device}')


def _share(net, data_iter, device, what):
    """The share of right predictions; what names data_iter in the error."""
    metric = Accumulator(2)
    for X, y in data_iter:
        if device is not None:
            X, y = X.as_in_ctx(device), y.as_in_ctx(device)
        metric.add(num_correct(net(X), y), y.size)
    if metric[1] == 0:
        raise ValueError(f'{what} must give at least one example, got none')
    return metric[0] / metric[1]


def _without_ones(shape):
    return tuple(length for length in shape if length != 1)


def _check_epochs(name, num_epochs):
    if not isinstance(num_epochs, numbers.Integral) or num_epochs < 1:
        raise ValueError(f'{name}: num_epochs must be a whole number of at least 1, '
                         f'got {num_epochs!r}')
