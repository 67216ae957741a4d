"""The pieces of linear regression, and the loss over a data set."""
import numbers

from mxnet import np

from d2l.utils.timing import Accumulator


def linreg(X, w, b):
    """Return the linear model Xw + b (section 3.2).

    X has shape (n, d), w (d,) or (d, k), b broadcasts to the result of shape (n,) or (n, k).
    """
    return np.dot(X, w) + b


def squared_loss(y_hat, y):
    """Return (y_hat - y)^2 / 2 for each element (section 3.2).

    y has as many elements as y_hat and is read in y_hat's shape, which is also that of the result.
    Raises ValueError for another number of elements.
    """
    if y.size != y_hat.size:
        raise ValueError(f'squared_loss: y must have as many elements as y_hat, got the shapes '
                         f'{y.shape} and {y_hat.shape}')
    return (y_hat - y.reshape(y_hat.shape)) ** 2 / 2


def sgd(params, lr, batch_size):
    """Subtract lr * gradient / batch_size from each array, in place (section 3.2).

    The gradients are those of a sum over batch_size examples.  They stay as they are: with
    attach_grad's default, grad_req 'write', the next backward overwrites them; with 'add' it adds
    to them until the caller sets them to zero.

    Raises ValueError for an array without gradient and a batch_size that is not positive; no array
    has changed then.
    """
    if isinstance(batch_size, numbers.Number) and not batch_size > 0:
        raise ValueError(f'sgd: batch_size must be positive, got {batch_size}')
    params = list(params)
    for i, param in enumerate(params):
        if param.grad is None:
            raise ValueError(f'sgd: params[{i}] has no gradient, call its attach_grad() before '
                             'autograd.record()')
    for param in params:
        param[:] = param - lr * param.grad / batch_size


def evaluate_loss(net, data_iter, loss):
    """Return the mean over a data set of the loss of net, a float (section 4.4).

    data_iter gives pairs (X, y); loss(y_hat, y) returns one or more values for each example, and
    the mean is over all values.  Raises ValueError when there are none.
    """
    metric = Accumulator(2)
    for X, y in data_iter:
        l = loss(net(X), y)
        metric.add(l.sum(), l.size)
    if metric[1] == 0:
        raise ValueError('evaluate_loss: data_iter must give at least one example, got none')
    return metric[0] / metric[1]
