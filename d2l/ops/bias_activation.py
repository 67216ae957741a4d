"""Activation functions of data + bias."""
from d2l.ops._operator import operator
from d2l.ops.activation import activation


@operator('data', 'bias', bias=1)
def bias_activation(F, data, bias, act_type='relu'):
    """Add a bias along the last axis, then apply an activation function, in one pass.

    Parameters
    ----------
    data : array or symbol of shape (..., units)
        float16, float32 or float64.  float16 is computed in float32.
    bias : array or symbol of shape (units,), of data's dtype
    act_type : str
        ``'relu'``, ``'sigmoid'``, ``'tanh'``, ``'exp'`` or ``'gelu'``, see `activation`.

    Returns
    -------
    array or symbol of data's shape and dtype

    Raises
    ------
    MXNetError
        For a scalar, for a bias of another shape or dtype, for integers, and for another act_type
        (without the library: ValueError).

    Differentiable in data and bias.  The result does not depend on the number of threads.
    Source: as `activation`.
    """
    return activation.body(F, data + bias, act_type=act_type)
