"""Residual connection, dropout and layer normalization in one pass."""
from d2l.ops._operator import operator
from d2l.ops.layer_norm import layer_norm


@operator('X', 'Y', 'gamma', 'beta', 'seed', gamma=1, beta=1, seed=1)
def add_norm(F, X, Y, gamma, beta, seed=None, p=0.0, eps=1e-5):
    """Layer normalization of ``X + dropout(Y)`` over the last axis.

    Parameters
    ----------
    X, Y : array or symbol of shape (..., channels)
        The same shape and dtype for both: float16 (computed in float32), float32 or float64.
    gamma, beta : array or symbol of shape (channels,), of X's dtype
        Scale and shift.
    seed : None, or float32 array or symbol of shape (64,)
        From ``d2l.ops.random_seed``: it says whether to drop at all, and what.  None: nothing is
        dropped.
    p : 0 <= float < 1
        The rate at which entries of Y become 0; the others are divided by 1 - p.
    eps : float >= 0
        Added to the variance.

    Returns
    -------
    array or symbol of X's shape and dtype
        See `layer_norm` and `dropout`; the sum is not rounded to float16 in between.

    Raises
    ------
    MXNetError
        For a scalar, for an argument of another shape or dtype than said above, and for p and eps
        outside their ranges.

    Differentiable in all but seed, whose gradient is zero.  Neither the sum nor the mask is stored:
    backward computes both again.  The result does not depend on the number of threads.  Where the
    kernel does not run, MXNet's dropout drops other entries than those of seed.
    Source: Vaswani et al., Attention Is All You Need, 2017, section 5.4; Dive into Deep Learning,
    section 10.3.
    """
    if seed is not None and p:
        Y = F.npx.dropout(Y, p=p)
    return layer_norm.body(F, X + Y, gamma, beta, eps=eps)
