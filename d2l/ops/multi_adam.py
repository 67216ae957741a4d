"""One step of Adam or AdamW for all weights at once."""
import math

from mxnet import nd

from d2l.ops._update import classic, numbers, update


@update('weights', 'grads', 'means', 'variances', 'rounded')
def multi_adam(weights, grads, means, variances, rounded=None, lrs=0.001, wds=0.0, steps=1,
               beta1=0.9, beta2=0.999, epsilon=1e-8, rescale_grad=1.0, clip_gradient=0.0,
               bias_correction=True, decoupled=False):
    """Update all weights, and the means and variances of their gradients, in place by Adam.

    With g = clip(rescale_grad * grad + wd * weight), m = beta1 * m + (1 - beta1) * g and
    v = beta2 * v + (1 - beta2) * g ** 2:

        weight -= lr * sqrt(1 - beta2 ** t) / (1 - beta1 ** t) * m / (sqrt(v) + epsilon)

    With decoupled, which is AdamW, the decay has no part in g:

        weight -= lr * (m / (1 - beta1 ** t) / (sqrt(v / (1 - beta2 ** t)) + epsilon) + wd * weight)

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
        g is clipped to -clip_gradient .. clip_gradient; 0: it is not.
    bias_correction : bool
        False: 1 stands for the terms with t.
    decoupled : bool

    Raises
    ------
    TypeError or ValueError
        Unless every argument is a list of dense arrays, all lists of the same length.
    MXNetError
        For other shapes, dtypes and numbers.

    Imperative only, not differentiable.
    Source: Kingma and Ba, 2015, the last form of section 2, which is that of MXNet's Adam;
    Loshchilov and Hutter, 2019, algorithm 2.
    """
    count = len(weights)
    weights, grads, means, variances, rounded = classic(weights, grads, means, variances, rounded)
    lrs, wds, steps = numbers(lrs, count), numbers(wds, count), numbers(steps, count)
    common = dict(beta1=beta1, beta2=beta2, rescale_grad=rescale_grad,
                  clip_gradient=clip_gradient or -1.0)
    for i, weight in enumerate(weights):
        c1 = 1 - beta1 ** steps[i] if bias_correction else 1
        c2 = 1 - beta2 ** steps[i] if bias_correction else 1
        lr, wd, eps, grad = lrs[i] * math.sqrt(c2) / c1, wds[i], epsilon, grads[i]
        if decoupled:
            # m / c1 / (sqrt(v / c2) + eps) = sqrt(c2) / c1 * m / (sqrt(v) + eps * sqrt(c2))
            weight *= 1 - lrs[i] * wd
            wd, eps = 0, epsilon * math.sqrt(c2)
        nd.adam_update(weight, grad.astype(weight.dtype), means[i], variances[i], out=weight,
                       lr=lr, wd=wd, epsilon=eps, **common)
        if rounded is not None:
            nd.cast(weight, dtype='float16', out=rounded[i])


def multi_adamw(weights, grads, means, variances, rounded=None, **attrs):
    """`multi_adam` with decoupled weight decay (Loshchilov and Hutter, 2019, algorithm 2)."""
    return multi_adam(weights, grads, means, variances, rounded, decoupled=True, **attrs)
