"""Activation functions of every element."""
from d2l.ops._operator import operator

# npx.activation is faster (it has oneDNN's tanh), but in MXNet 1.9.1 has no float64.
_COMPOSED = {
    'exp': lambda F, data: F.np.exp(data),
    'gelu': lambda F, data: F.npx.leaky_relu(data, act_type='gelu'),
    'relu': lambda F, data: F.npx.relu(data),
    'sigmoid': lambda F, data: F.npx.sigmoid(data),
    'tanh': lambda F, data: F.np.tanh(data),
}


@operator('data')
def activation(F, data, act_type='relu'):
    """An activation function of every element.

    Parameters
    ----------
    data : array or symbol of any shape
        float16, float32 or float64.  float16 is computed in float32.
    act_type : str
        ``'relu'``, max(data, 0); ``'sigmoid'``; ``'tanh'``; ``'exp'``; or ``'gelu'``, data times
        the probability that a standard normal variable is below it (the exact form, by erf).

    Returns
    -------
    array or symbol of data's shape and dtype
        In float32 within 2 ulp, gelu within a relative error of 5e-7 for data above -2.5.

    Raises
    ------
    MXNetError
        For another act_type (without the library: ValueError), and for integers.

    Differentiable in data; the gradient of relu at 0 is 0.
    Source: Dive into Deep Learning, section 4.1; Hendrycks and Gimpel, Gaussian Error Linear Units,
    2016, section 2.
    """
    if act_type not in _COMPOSED:
        *names, last = _COMPOSED
        raise ValueError('activation: act_type must be {} or {}, got {}'.format(
            ', '.join(names), last, act_type))
    return _COMPOSED[act_type](F, data)
