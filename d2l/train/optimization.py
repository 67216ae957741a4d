"""Optimizers at work: on functions of two variables, and on linear regression (chapter 11)."""
import numbers

import numpy as onp
from matplotlib import pyplot as plt
from mxnet import autograd, gluon, init, np
from mxnet.gluon import nn

from d2l.data.arrays import positive_int
from d2l.train.regression import evaluate_loss, linreg, squared_loss
from d2l.utils.animator import Animator
from d2l.utils.plotting import set_figsize
from d2l.utils.timing import Timer

# Examples between two points of the curve, as in the book.
_INTERVAL = 200


def train_2d(trainer, steps=20):
    """Minimise a function of two variables from (-5, -2); return the points (section 11.3).

    trainer(x1, x2, s1, s2) returns the next values of these four; s1 and s2 are what the optimizer
    remembers, at first 0.  Returns a list of steps + 1 pairs (x1, x2), the first point included,
    and prints the last.

    Raises ValueError for a negative number of steps.
    """
    if not isinstance(steps, numbers.Integral) or steps < 0:
        raise ValueError(f'train_2d: steps must be a whole number of at least 0, got {steps!r}')
    x1, x2, s1, s2 = -5, -2, 0, 0
    results = [(x1, x2)]
    for _ in range(steps):
        x1, x2, s1, s2 = trainer(x1, x2, s1, s2)
        results.append((x1, x2))
    print(f'epoch {steps}, x1 {float(x1):f}, x2 {float(x2):f}')
    return results


def show_trace_2d(f, results):
    """Draw the points of `train_2d` over contour lines of f (section 11.3).

    f(x1, x2) is called with two float32 MXNet arrays of one shape, and must compute element by
    element.  The contours cover at least -5.5 <= x1 < 1 and -3 <= x2 < 1, the book's range, and
    all finite points.

    Raises ValueError when results is empty.
    """
    points = onp.array([[float(x1), float(x2)] for x1, x2 in results])
    if not len(points):
        raise ValueError('show_trace_2d: results must hold at least one point, got none')
    finite = points[onp.isfinite(points).all(axis=1)]
    grids = []
    for axis, (low, high) in enumerate(((-5.5, 1.0), (-3.0, 1.0))):
        values = finite[:, axis]
        step = 0.1
        if len(values) and (values.min() < low or values.max() > high - step):
            low, high = min(low, values.min() - 0.5), max(high, values.max() + 0.5)
            step = max(step, (high - low) / 200)
            high += step
        grids.append(onp.arange(low, high, step))
    x1, x2 = onp.meshgrid(*grids, indexing='ij')
    heights = f(np.array(x1, dtype='float32'), np.array(x2, dtype='float32')).asnumpy()
    set_figsize()
    plt.plot(*points.T, '-o', color='#ff7f0e')
    plt.contour(x1, x2, heights, colors='#1f77b4')
    plt.xlabel('x1')
    plt.ylabel('x2')


def train_ch11(trainer_fn, states, hyperparams, data_iter, feature_dim, num_epochs=2, *,
               animator=None):
    """Train linear regression with an optimizer of the reader's (section 11.5).

    trainer_fn([w, b], states, hyperparams) changes the parameters, of shapes (feature_dim, 1) and
    (1,), by their gradients, which are those of the mean loss of a batch.  w is drawn with
    MXNet's seed.  Whenever a multiple of 200 examples is reached, and at the end of each epoch,
    the loss over all of data_iter is measured, drawn and given to the animator, if there is one.

    Prints the last loss and the seconds of an epoch, without measuring.  Returns (seconds of
    training up to each measurement, losses), two lists.

    Raises ValueError for num_epochs below 1 and a data_iter without examples, TypeError for a
    num_epochs that is not an integer.
    """
    w = np.random.normal(scale=0.01, size=(feature_dim, 1))
    b = np.zeros(1)
    w.attach_grad()
    b.attach_grad()

    def step(X, y):
        with autograd.record():
            l = squared_loss(linreg(X, w, b), y).mean()
        l.backward()
        trainer_fn([w, b], states, hyperparams)
    return _train('train_ch11', step, lambda X: linreg(X, w, b), squared_loss, data_iter,
                  num_epochs, animator)


def train_concise_ch11(tr_name, hyperparams, data_iter, num_epochs=2, *, animator=None):
    """Train linear regression with the gluon.Trainer of a name (section 11.5).

    Measures, draws, prints and raises as `train_ch11` does.  Half the squared error is the loss.
    Returns None.
    """
    net = nn.Sequential()
    net.add(nn.Dense(1))
    net.initialize(init.Normal(sigma=0.01))
    trainer = gluon.Trainer(net.collect_params(), tr_name, hyperparams)
    loss = gluon.loss.L2Loss()

    def step(X, y):
        with autograd.record():
            l = loss(net(X), y)
        l.backward()
        trainer.step(X.shape[0])
    _train('train_concise_ch11', step, net, loss, data_iter, num_epochs, animator)


def _train(name, step, net, loss, data_iter, num_epochs, animator):
    """Call step(X, y) for each batch; return (seconds, losses) of the measurements."""
    num_epochs = positive_int(f'{name}: num_epochs', num_epochs)
    if len(data_iter) == 0:
        raise ValueError(f'{name}: data_iter must give at least one example, got none')
    if animator is None:
        animator = Animator(xlabel='epoch', ylabel='loss', xlim=[0, num_epochs])
        # The range of the book's figures; curves that leave it stretch it.
        animator.axes[0].update_datalim([(0, 0.22), (num_epochs, 0.35)])
    num_batches, losses, n, timer = len(data_iter), [], 0, Timer()
    for epoch in range(num_epochs):
        for i, (X, y) in enumerate(data_iter):
            step(X, y)
            n += X.shape[0]
            if n % _INTERVAL == 0 or i + 1 == num_batches:
                # What is still being computed belongs to the training.
                net(X).wait_to_read()
                timer.stop()
                losses.append(evaluate_loss(net, data_iter, loss))
                animator.add(epoch + (i + 1) / num_batches, (losses[-1],))
                timer.start()
    animator.close()
    print(f'loss: {losses[-1]:.3f}, {timer.sum() / num_epochs:.3f} sec/epoch')
    return timer.cumsum(), losses
