"""Clipping of all gradients by their common norm."""
from mxnet import np
from mxnet.util import np_array, np_shape

from d2l.ops._update import update


@update('grads', single=('divisor',))
def global_norm_clip(grads, divisor=None, theta=1.0):
    """Scale gradients in place so that their norm, as one vector, is at most theta.

    Every gradient is multiplied by min(1, theta / norm), and divided by divisor if there is one.
    Nothing is read back: the factor stays on the device.

    Parameters
    ----------
    grads : list of arrays
        float16, float32 or float64, not necessarily all the same; any shapes.
    divisor : None, or float64 array of one element
    theta : float >= 0

    Returns
    -------
    float64 array of shape (1,)
        The norm before clipping.  The squares are summed in float64, where those of float32 do not
        overflow.  If it is infinite or NaN, the gradients are not clipped.

    Raises
    ------
    TypeError
        Unless grads is a list of dense arrays.
    MXNetError
        For other dtypes, another shape of divisor, and a negative theta.

    Imperative only, not differentiable.
    Source: Pascanu, Mikolov and Bengio, 2013, section 3.2; Dive into Deep Learning, section 8.5.
    """
    with np_shape(True), np_array(True):
        grads = [g.as_np_ndarray() for g in grads]
        norm = np.sqrt(sum(np.square(g.astype('float64')).sum() for g in grads)).reshape(1)
        one, theta = np.ones_like(norm), float(theta)
        factor = np.where(np.isfinite(norm), np.where(norm > theta, theta / norm, one), one)
        if divisor is not None:
            factor = factor / divisor.as_np_ndarray().reshape(1)
        for g in grads:
            g *= factor.astype(g.dtype)
    return norm
