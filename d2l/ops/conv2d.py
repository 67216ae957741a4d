"""Two-dimensional convolutions of stride 1 with few channels."""
import mxnet as mx
import numpy as onp

from d2l.ops._operator import operator


@operator('data', 'weight', 'bias', data=4, weight=4, bias=1)
def conv2d(F, data, weight, bias=None, channels=1, kernel_size=1, padding=0):
    """Cross-correlate pictures with square kernels, and add a bias: a convolution of stride 1.

    ``out[n, o, i, j] = bias[o] + sum over c, a, e of
    weight[o, c, a, e] * data[n, c, i + a - padding, j + e - padding]``, data being 0 outside.

    Parameters
    ----------
    data : array or symbol of shape (batch, in_channels, height, width)
        float16 (computed in float32), float32 or float64.
    weight : of shape (channels, in_channels, kernel_size, kernel_size), of data's dtype
    bias : None, or of shape (channels,) and data's dtype
    channels, kernel_size : int >= 1
    padding : int >= 0 and < kernel_size
        How many zeros data has on each of its four sides.

    Returns
    -------
    array or symbol of shape (batch, channels, H, W), of data's dtype
        H is height + 2 * padding - kernel_size + 1, and W likewise.

    Raises
    ------
    MXNetError
        For arrays of other axes, for shapes and dtypes that do not fit, for data smaller than the
        kernel, and for attributes outside their ranges.

    Differentiable in data, weight and bias.  The result does not depend on the number of threads.
    MXNet's own convolution is made for multiples of 16 channels; this one is faster below.
    Source: Dive into Deep Learning, sections 6.2 to 6.4; LeCun et al., 1998.
    """
    half = F is mx.nd and data.dtype == onp.float16  # MXNet has no such product on a CPU
    if half:
        data, weight = data.astype('float32'), weight.astype('float32')
        bias = None if bias is None else bias.astype('float32')
    arrays = [data, weight] if bias is None else [data, weight, bias]
    out = F.npx.convolution(*arrays, no_bias=bias is None, num_filter=channels,
                            kernel=(kernel_size, kernel_size), pad=(padding, padding))
    return out.astype('float16') if half else out
