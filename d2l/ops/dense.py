"""A matrix product with bias and activation function: a dense layer."""
import mxnet as mx
import numpy as onp

from d2l.ops._operator import operator
from d2l.ops.activation import activation


@operator('data', 'weight', 'bias', weight=2, bias=1)
def dense(F, data, weight, bias=None, units=1, act_type=None):
    """Multiply every row of data by a matrix, add a bias and apply an activation function.

    ``act_type(data weight^T + bias)``, over the last axis of data, in one pass.

    Parameters
    ----------
    data : array or symbol of shape (..., in_units)
        float16 (summed in float32), float32 or float64.
    weight : of shape (units, in_units), of data's dtype
    bias : None, or of shape (units,) and data's dtype
    units : int >= 1
    act_type : None, 'relu', 'sigmoid' or 'tanh'

    Returns
    -------
    array or symbol of shape (..., units), of data's dtype

    Raises
    ------
    MXNetError
        For a scalar, for axes that do not fit each other, for another dtype, for units below 1,
        and for another act_type.

    Differentiable in data, weight and bias.  The result does not depend on the number of threads.
    MXNet's dense layer looks up in each call how to compute the product; this one begins at once,
    which counts for small layers.  On a CPU rows whose gradient is zero, as padding and tokens
    without a loss leave them, cost nothing in the backward products of large layers; without an
    activation function data there, be it NaN, has no influence on weight's gradient.
    Source: ``npx.fully_connected`` without flattening, whose place it takes; Goto and van de Geijn,
    Anatomy of High-Performance Matrix Multiplication, 2008.
    """
    half = F is mx.nd and data.dtype == onp.float16  # MXNet has no such product on a CPU
    if half:
        data, weight = data.astype('float32'), weight.astype('float32')
        bias = bias if bias is None else bias.astype('float32')
    arrays = (data, weight) if bias is None else (data, weight, bias)
    out = F.npx.fully_connected(*arrays, num_hidden=units, flatten=False, no_bias=bias is None)
    if act_type is not None:
        out = activation.body(F, out, act_type=act_type)
    return out.astype('float16') if half else out
