"""Dropout."""
from d2l.ops._operator import operator


@operator('data', 'seed', seed=1)
def dropout(F, data, seed, p=0.5):
    """Set entries to 0 with probability ``p`` and divide the others by ``1 - p``.

    Parameters
    ----------
    data : array or symbol of any shape
        float16 (computed in float32), float32 or float64.
    seed : float32 array or symbol of shape (64,)
        From ``d2l.ops.random_seed``: it says whether to drop at all, and what.  The same seed
        drops the same entries, whatever the shape and dtype of data and the number of threads.
    p : 0 <= float < 1
        The rate.

    Returns
    -------
    array or symbol of data's shape and dtype
        In predict mode, and with p = 0, data itself, to the last bit.  What is dropped is exactly
        0, even where data is infinite or NaN.

    Raises
    ------
    MXNetError
        For another p, for a seed of another shape or dtype, and for data of integers.

    Differentiable in data; seed gets a zero gradient.  The mask is not stored: backward draws it
    again.  Where the kernel does not run, MXNet's dropout drops other entries than those of seed.
    Source: Srivastava et al., Dropout, 2014; Dive into Deep Learning, section 4.6.
    """
    return F.npx.dropout(data, p=p)
