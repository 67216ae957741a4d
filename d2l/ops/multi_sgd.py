"""One step of stochastic gradient descent for all weights at once."""
from mxnet import nd

from d2l.ops._update import classic, numbers, update


@update('weights', 'grads', 'momenta', 'rounded')
def multi_sgd(weights, grads, momenta=None, rounded=None, lrs=0.01, wds=0.0, momentum=0.0,
              rescale_grad=1.0, clip_gradient=0.0):
    """Update all weights in place by stochastic gradient descent, with or without momentum.

    With g = clip(rescale_grad * grad) + wd * weight: m = momentum * m - lr * g, weight += m;
    without momenta, weight -= lr * g.

    Parameters
    ----------
    weights : list of arrays
        float16 (computed in float32), float32 or float64, all the same; any shapes.
    grads : list of arrays of the same shapes and dtype
    momenta : None, or list of arrays of the same shapes and dtype
    rounded : None, or list of float16 arrays of the same shapes
        For mixed precision: weights and momenta are float32 and grads float16; the new weights
        are also written here.
    lrs, wds : float or list of floats
        Learning rates and weight decays, one for all arrays or one for each.
    momentum : float >= 0
    rescale_grad : float
    clip_gradient : float >= 0
        The gradients are clipped to -clip_gradient .. clip_gradient; 0: they are not.

    Raises
    ------
    TypeError or ValueError
        Unless every argument is a list of dense arrays, all lists of the same length.
    MXNetError
        For other shapes, dtypes and numbers.

    Imperative only, not differentiable.
    Source: Sutskever, Martens, Dahl and Hinton, 2013, section 2, in the form of MXNet's SGD.
    """
    count = len(weights)
    weights, grads, momenta, rounded = classic(weights, grads, momenta, rounded)
    lrs, wds = numbers(lrs, count), numbers(wds, count)
    for i, weight in enumerate(weights):
        common = dict(out=weight, lr=lrs[i], wd=wds[i], rescale_grad=rescale_grad,
                      clip_gradient=clip_gradient or -1.0)
        grad = grads[i].astype(weight.dtype)
        if momenta is None:
            nd.sgd_update(weight, grad, **common)
        else:
            nd.sgd_mom_update(weight, grad, momenta[i], momentum=momentum, **common)
        if rounded is not None:
            nd.cast(weight, dtype='float16', out=rounded[i])
