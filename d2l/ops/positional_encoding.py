"""Sines and cosines of positions."""
import mxnet as mx

from d2l.ops._operator import operator


@operator('data', 'past')
def positional_encoding(F, data, past=None, num_hiddens=1, dtype='float32'):
    """The codes of the positions of data's steps: sines and cosines of many wavelengths.

    At position i, column 2j is ``sin(i / 10000^(2j / num_hiddens))`` and column 2j + 1 the cosine
    of the same.  The positions are 0, 1, ...; after ``past`` they go on from its number of steps.

    Parameters
    ----------
    data : array or symbol of shape (batch, steps, ...)
        Any integer or floating-point dtype.  Only the number of steps counts.
    past : None, or array or symbol of shape (batch, past_steps, ...)
        Likewise; its other axes need not be those of data.
    num_hiddens : int >= 1
        The number of columns; an odd one ends with a sine.
    dtype : 'float16', 'float32' or 'float64'

    Returns
    -------
    array or symbol of shape (1, steps, num_hiddens) and the given dtype
        Computed in double and rounded once.

    Raises
    ------
    MXNetError
        For data or past with fewer than two axes, for num_hiddens below 1 (or above 2 ** 20), and
        for another dtype.

    The gradients of data and past are zero.  On a CPU the kernel copies rows of a table, which the
    process keeps; what would take more than 64 MB is computed anew in each call.
    Source: Vaswani et al., Attention Is All You Need, 2017, section 3.5.
    """
    positions = _step_numbers(F, data)
    if past is not None:
        # A symbol does not know its shape.
        positions = positions + (past.shape[1] if F is mx.nd else
                                 F.np.sum(F.np.ones_like(_step_numbers(F, past))))
    powers = F.np.arange(0, num_hiddens, 2, dtype='float64') / num_hiddens
    angles = F.np.expand_dims(positions, 1) / F.np.expand_dims(F.np.power(10000, powers), 0)
    codes = F.np.stack([F.np.sin(angles), F.np.cos(angles)], axis=2)
    codes = F.npx.reshape(codes, (-2, -5))
    if num_hiddens % 2:
        codes = F.npx.slice(codes, (0, 0), (None, num_hiddens))
    return F.np.expand_dims(codes, 0).astype(dtype)


def _step_numbers(F, data):
    """0, 1, ... for the steps of data (batch, steps, ...), float64 (steps,)."""
    example = F.npx.slice(data, (0, None), (1, None)).astype('float64')
    return F.npx.arange_like(example, axis=1)
