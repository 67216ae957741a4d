"""Layer normalization over the last axis."""
from d2l.ops._operator import operator


@operator('data', 'gamma', 'beta', gamma=1, beta=1)
def layer_norm(F, data, gamma, beta, eps=1e-5):
    """Normalize over the last axis, then scale and shift.

    ``y = gamma * (data - mean) / sqrt(variance + eps) + beta``, mean and (biased) variance being
    those of a row along the last axis.

    Parameters
    ----------
    data : array or symbol of shape (..., channels)
        float16, float32 or float64.  float16 is computed in float32.
    gamma, beta : array or symbol of shape (channels,), of data's dtype
        Scale and shift.
    eps : float >= 0
        Added to the variance.  With 0, a constant row divides by zero, as in NumPy.

    Returns
    -------
    array or symbol of data's shape and dtype

    Raises
    ------
    MXNetError
        For a scalar, for gamma or beta of another shape or dtype, for integers, and for a
        negative or infinite eps.

    Differentiable in data, gamma and beta.  The result does not depend on the number of threads.
    Source: Ba, Kiros and Hinton, Layer Normalization, 2016, equations 3 and 4.
    """
    mean = F.np.mean(data, axis=-1, keepdims=True)
    centered = data - mean
    variance = F.np.mean(F.np.square(centered), axis=-1, keepdims=True)
    return centered / F.np.sqrt(variance + eps) * gamma + beta
