"""Additive attention, without storing its hidden features or its weights."""
import mxnet as mx
import numpy as onp

from d2l.ops._operator import operator
from d2l.ops.masked_softmax import masked_softmax


@operator('query', 'key', 'value', 'v', 'valid_len', 'seed', query=3, key=3, value=3, v=1, seed=1)
def additive_attention(F, query, key, value, v, valid_len=None, seed=None, dropout=0.0):
    """Sum the values, weighted by softmax(v^T tanh(query + key)) over the valid keys.

    The queries and keys are already projected: W_q q and W_k k in the terms of the source.  The
    kernel stores neither the features (batch, queries, keys, hidden) nor the weights, and backward
    computes them again: its memory grows with queries + keys, not with their product.

    Parameters
    ----------
    query : array or symbol of shape (batch, queries, hidden)
        float16 (computed in float32), float32 or float64.
    key : of shape (batch, keys, hidden), of query's dtype
    value : of shape (batch, keys, values), of query's dtype
    v : of shape (hidden,), of query's dtype
    valid_len : None, or array or symbol of shape (batch,) or (batch, queries)
        How many of the first keys count, for an example or for each of its queries, as in
        `masked_softmax`.  None: all.
    seed : None, or float32 array or symbol of shape (64,)
        From ``d2l.ops.random_seed``, for dropout.  None: there is none.
    dropout : 0 <= float < 1
        The rate at which weights are dropped in train mode, the others being divided by
        1 - dropout; backward draws the same ones again.

    Returns
    -------
    array or symbol of shape (batch, queries, values), of query's dtype
        A query without valid keys gets the mean of all values, as in the book, which gives all
        keys the same score; it has gradient 0.  In float32 the error of a score is a few units in
        the last place of the sum of abs(v), even where tanh is small.

    Raises
    ------
    MXNetError
        For arrays without three axes, for axes that do not fit each other, for another dtype, and
        for another dropout.

    Differentiable in query, key, value and v; valid_len and seed get zero gradients.  The result
    does not depend on the number of threads.  Where the kernel does not run, MXNet's dropout drops
    other weights than those of seed.
    Source: Bahdanau et al., Neural machine translation by jointly learning to align and translate,
    2015, section 3.1 and appendix A.1.2.
    """
    half = F is mx.nd and query.dtype == onp.float16  # MXNet has no such product on a CPU
    if half:
        query, key, value, v = (X.astype('float32') for X in (query, key, value, v))
    features = F.np.tanh(F.np.expand_dims(query, 2) + F.np.expand_dims(key, 1))
    scores = F.npx.fully_connected(features, F.np.expand_dims(v, 0), num_hidden=1, no_bias=True,
                                   flatten=False)
    weights = masked_softmax.body(F, F.np.squeeze(scores, axis=-1), valid_len)
    if seed is not None:
        weights = F.npx.dropout(weights, p=dropout)
    output = F.npx.batch_dot(weights, value)
    return output.astype('float16') if half else output
