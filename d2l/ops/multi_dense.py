"""Two or three matrix products of the same data: queries, keys and values of attention."""
from d2l.ops._operator import operator
from d2l.ops.dense import dense


def _layers(data, weight_0, weight_1, weight_2=None, *biases):
    return 3 if weight_2 is not None else 2


@operator('data', 'weight_0', 'weight_1', 'weight_2', 'bias_0', 'bias_1', 'bias_2', weight_0=2,
          weight_1=2, weight_2=2, bias_0=1, bias_1=1, bias_2=1, results=_layers)
def multi_dense(F, data, weight_0, weight_1, weight_2=None, bias_0=None, bias_1=None, bias_2=None,
                units=1):
    """Multiply every row of data by two or three matrices, and add a bias to each product.

    ``data weight_i^T + bias_i``, over the last axis of data, for each i: two or three calls of
    `dense` in one.

    Parameters
    ----------
    data : array or symbol of shape (..., in_units)
        float16 (summed in float32), float32 or float64.
    weight_0, weight_1 : of shape (units, in_units), of data's dtype
    weight_2 : the same, or None
    bias_0, bias_1, bias_2 : each None, or of shape (units,) and data's dtype
        bias_2 only with weight_2.
    units : int >= 1

    Returns
    -------
    list of two arrays or symbols, with weight_2 of three, of shape (..., units) and data's dtype

    Raises
    ------
    MXNetError
        For a scalar, for axes that do not fit each other, for another dtype, for units below 1,
        and for bias_2 without weight_2.

    Differentiable in all arrays.  The gradient of data is the sum of those of the layers, in their
    order.  The result does not depend on the number of threads.  Where products are small, MXNet's
    engine takes longer to begin an operator than the operator takes: one call spares it two, and
    in backward two more and the sum of their gradients.
    Source: Vaswani et al., 2017, section 3.2.2; for the products see `dense`.
    """
    weights, biases = (weight_0, weight_1, weight_2), (bias_0, bias_1, bias_2)
    return [dense.body(F, data, weight, bias, units=units)
            for weight, bias in zip(weights, biases) if weight is not None]
