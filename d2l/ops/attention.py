"""Scaled dot product attention with several heads, without storing its weights."""
import mxnet as mx
import numpy as onp

from d2l.ops._operator import operator
from d2l.ops.masked_softmax import masked_softmax


@operator('query', 'key', 'value', 'valid_len', 'seed', query=3, key=3, value=3, seed=1)
def attention(F, query, key, value, valid_len=None, seed=None, num_heads=1, causal=False,
              scale=0.0, dropout=0.0):
    """Sum the values, weighted by softmax(scale * query key^T) over the valid keys, head by head.

    Head h of H is the h-th of H equal parts of the last axes; it stays in its place, so that
    nothing is transposed before or after.  The kernel never stores the weights, neither forward
    nor for backward, which computes them again: its memory grows with queries + keys, not with
    their product.

    Parameters
    ----------
    query : array or symbol of shape (batch, queries, num_heads * d)
        float16 (computed in float32), float32 or float64.
    key : of shape (batch, keys, num_heads * d), of query's dtype
    value : of shape (batch, keys, num_heads * v), of query's dtype
    valid_len : None, or array or symbol of shape (batch,) or (batch, queries)
        How many of the first keys count, for an example or for each of its queries, as in
        `masked_softmax`.  None: all.
    seed : None, or float32 array or symbol of shape (64,)
        From ``d2l.ops.random_seed``, for dropout.  None: there is none.
    num_heads : int >= 1
    causal : bool
        Whether query i looks at no key after its own.  That is key i; where there are more keys
        than queries, the first ones are of earlier steps, and the last query's own is the last.
    scale : float >= 0
        Factor of the scores; 0 stands for 1 / sqrt(d).
    dropout : 0 <= float < 1
        The rate at which weights are dropped in train mode, the others being divided by
        1 - dropout; backward draws the same ones again.

    Returns
    -------
    array or symbol of shape (batch, queries, num_heads * v), of query's dtype
        A query without valid keys gets the mean of all values, as in the book, which gives all
        keys the same score; it has gradient 0.

    Raises
    ------
    MXNetError
        For arrays without three axes, for axes that do not fit each other or that num_heads does
        not divide, for another dtype, for a negative or infinite scale, and for another dropout.

    Differentiable in query, key and value; valid_len and seed get zero gradients.  On a CPU queries
    whose gradient is zero, as padding leaves them, cost nothing in backward.  The result does not
    depend on the number of threads.  Where the kernel does not run, MXNet's dropout drops
    other weights than those of seed.
    Source: Vaswani et al., Attention Is All You Need, 2017, section 3.2; Dao et al.,
    FlashAttention, 2022.
    """
    half = F is mx.nd and query.dtype == onp.float16  # MXNet has no such product on a CPU
    if half:
        query, key, value = (X.astype('float32') for X in (query, key, value))
    query, key, value = (_fold_heads(F, X, num_heads) for X in (query, key, value))
    # A symbol does not know its shape: count the entries of one vector.
    vector = F.npx.slice(query, (0, 0, None), (1, 1, None))
    scores = F.npx.batch_dot(
        query * scale if scale else query / F.np.sqrt(F.np.sum(F.np.ones_like(vector))), key,
        transpose_b=True)
    if causal:
        keys = F.npx.arange_like(scores, axis=-1)
        queries = F.np.expand_dims(F.npx.arange_like(scores, axis=1), 1)
        row = F.npx.slice(scores, (0, 0, None), (1, 1, None))
        column = F.npx.slice(scores, (0, None, 0), (1, None, 1))
        earlier = F.npx.relu(F.np.sum(F.np.ones_like(row)) - F.np.sum(F.np.ones_like(column)))
        scores = F.np.where(keys <= queries + earlier, scores, F.np.full_like(scores, -1e6))
    if valid_len is not None:
        valid_len = F.np.repeat(valid_len, num_heads, axis=0)
    weights = masked_softmax.body(F, scores, valid_len)
    if seed is not None:
        weights = F.npx.dropout(weights, p=dropout)
    output = F.npx.batch_dot(weights, value)
    output = F.np.transpose(F.npx.reshape(output, (-6, -1, num_heads, -4)), (0, 2, 1, 3))
    output = F.npx.reshape(output, (-2, -2, -5))
    return output.astype('float16') if half else output


def _fold_heads(F, X, num_heads):
    """(batch, steps, num_heads * d) to (batch * num_heads, steps, d)."""
    X = F.np.transpose(F.npx.reshape(X, (-2, -2, num_heads, -1)), (0, 2, 1, 3))
    return F.npx.reshape(X, (-5, -4))
