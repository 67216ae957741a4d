"""Attention: what section 10.1 of the book defines."""
from d2l import ops


def masked_softmax(X, valid_len):
    """Softmax over the last axis of X in which only the first valid_len entries count.

    X has shape (batch, queries, keys); valid_len is None, or of shape (batch,) or
    (batch, queries).  See ``d2l.ops.masked_softmax``, which this calls.  (Section 10.1)
    """
    return ops.masked_softmax(X, valid_len)
