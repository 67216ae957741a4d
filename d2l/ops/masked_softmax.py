"""Softmax over the last axis, masked by valid lengths."""
from d2l.ops._operator import operator


@operator('data', 'valid_len')
def masked_softmax(F, data, valid_len=None):
    """Softmax over the last axis of which only the first ``valid_len`` entries count.

    Parameters
    ----------
    data : array or symbol of shape (batch, queries, keys)
        Or (batch, ..., keys) with other axes between.  float16 (computed in float32), float32 or
        float64.
    valid_len : None, or array or symbol of shape (batch,) or (batch, queries)
        How many of the keys count, for an example or (if data has three axes) for each of its
        queries; any integer or floating-point dtype.  A fraction counts upward (2.5 is 3), what
        is below 0 or above the number of keys is clipped, NaN is 0.  None: plain softmax.

    Returns
    -------
    array or symbol of data's shape and dtype
        Masked entries are exactly 0, and what data holds there (infinity and NaN too) has no
        influence.  A row without valid entries is uniform, 1 / keys, with gradient 0, as in the
        book, which gives all its entries the same score.

    Raises
    ------
    MXNetError
        With a valid_len: for data with fewer than two axes or of an integer dtype, and for a
        valid_len of another shape.

    Differentiable in data; valid_len gets a zero gradient.
    Source: Dive into Deep Learning, section 10.1.
    """
    if valid_len is None:
        return F.npx.softmax(data, axis=-1)
    # Reversed axes let both shapes of valid_len broadcast without asking for ndim, which a symbol
    # does not know: (keys, queries, batch) against (batch,) or (queries, batch).
    zeros = F.np.zeros_like(data).astype('float32')  # float16 cannot count beyond 2048
    positions = zeros + F.npx.arange_like(zeros, axis=-1)
    valid = F.np.transpose(positions) < F.np.transpose(valid_len.astype('float32'))
    scores = F.np.transpose(data)
    scores = F.np.where(valid, scores, F.np.full_like(scores, -1e6))
    return F.npx.softmax(F.np.transpose(scores), axis=-1)
