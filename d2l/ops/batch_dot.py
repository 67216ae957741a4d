"""Products of the matrices of two batches."""
import mxnet as mx
import numpy as onp

from d2l.ops._operator import operator


@operator('a', 'b', a=3, b=3)
def batch_dot(F, a, b, transpose_a=False, transpose_b=False):
    """Multiply each matrix of a by that of b in its place.

    Parameters
    ----------
    a : array or symbol of shape (batch, rows, depth), with transpose_a (batch, depth, rows)
        float16 (summed in float32), float32 or float64.
    b : of shape (batch, depth, cols), with transpose_b (batch, cols, depth), of a's dtype
    transpose_a, transpose_b : bool
        Whether to take the transposes of these matrices.

    Returns
    -------
    array or symbol of shape (batch, rows, cols), of a's dtype

    Raises
    ------
    MXNetError
        For arrays without three axes, for axes that do not fit each other, for another dtype.

    Differentiable in both.  The result does not depend on the number of threads.
    Source: ``npx.batch_dot``, whose place it takes; Goto and van de Geijn, Anatomy of
    High-Performance Matrix Multiplication, 2008.
    """
    half = F is mx.nd and a.dtype == onp.float16  # MXNet has no such product on a CPU
    if half:
        a, b = a.astype('float32'), b.astype('float32')
    product = F.npx.batch_dot(a, b, transpose_a=transpose_a, transpose_b=transpose_b)
    return product.astype('float16') if half else product
