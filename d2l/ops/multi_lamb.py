"""One step of LAMB for all weights at once."""
from mxnet import nd

from d2l.ops._update import classic, numbers, update


@update('weights', 'grads', 'means', 'variances', 'rounded')
def multi_lamb(weights, grads, means, variances, rounded=None, lrs=0.001, wds=0.0, steps=1,
               beta1=0.9, beta2=0.999, epsilon=1e-6, rescale_grad=1.0, clip_gradient=0.0,
               lower_bound=0.0, upper_bound=0.0, bias_correction=True):
    """Update all weights, and the means and variances of their gradients, in place by LAMB.

    With g = clip(rescale_grad * grad), m = beta1 * m + (1 - beta1) * g and
    v = beta2 * v + (1 - beta2) * g ** 2, for each array:

        u = m / (1 - beta1 ** t) / (sqrt(v / (1 - beta2 ** t)) + epsilon) + wd * weight
        weight -= lr * phi(norm(weight)) / norm(u) * u

    phi limits a norm to lower_bound .. upper_bound.  Where the norm of the weights or of u is 0, 1
    stands for the quotient.

    Parameters
    ----------
    weights : list of arrays
        float16 (computed in float32), float32 or float64, all the same; any shapes.
    grads, means, variances : lists of arrays of the same shapes and dtype
    rounded : None, or list of float16 arrays of the same shapes
        For mixed precision: the other arrays are float32, but grads float16; the new weights are
        also written here.
    lrs, wds : float or list of floats
        Learning rates and weight decays, one for all arrays or one for each.
    steps : int or list of ints >= 1
        t, the number of this step: 1 for the first one.
    beta1, beta2 : float in [0, 1)
    epsilon : float >= 0
    rescale_grad : float
    clip_gradient : float >= 0
        The gradients are clipped to -clip_gradient .. clip_gradient; 0: they are not.
    lower_bound, upper_bound : float >= 0
        0: no bound.
    bias_correction : bool
        False: 1 stands for the terms with t.

    Raises
    ------
    TypeError or ValueError
        Unless every argument is a list of dense arrays, all lists of the same length.
    MXNetError
        For other shapes, dtypes and numbers.

    Imperative only, not differentiable.
    Source: You et al., 2020, algorithm 2.
    """
    count = len(weights)
    weights, grads, means, variances, rounded = classic(weights, grads, means, variances, rounded)
    lrs, wds, steps = numbers(lrs, count), numbers(wds, count), numbers(steps, count)
    for i, weight in enumerate(weights):
        u = nd.lamb_update_phase1(
            weight, grads[i].astype(weight.dtype), means[i], variances[i], beta1=beta1,
            beta2=beta2, epsilon=epsilon, t=steps[i], bias_correction=bias_correction, wd=wds[i],
            rescale_grad=rescale_grad, clip_gradient=clip_gradient or -1.0)
        nd.lamb_update_phase2(weight, u, weight.norm(), u.norm(), out=weight, lr=lrs[i],
                              lower_bound=lower_bound or -1.0, upper_bound=upper_bound or -1.0)
        if rounded is not None:
            nd.cast(weight, dtype='float16', out=rounded[i])
