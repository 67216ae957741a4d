"""Random seeds for the operators that drop out."""
import mxnet as mx

_SIZE = 64


def random_seed(like):
    """Draw the argument ``seed`` of the operators that drop out.

    Parameters
    ----------
    like : array or symbol
        Says where the seed is to be: on the array's device, or in the symbol's graph.

    Returns
    -------
    float32 array or symbol of shape (64,)
        All ones in predict mode, in which nothing is dropped.  In train mode each entry is 0 or 2:
        64 random bits, other ones at each call, each forward pass of a hybridized net included.

    MXNet draws the bits, and so ``mx.random.seed`` and ``npx.random.seed`` make all that follows
    from them the same again, whatever the number of threads.
    """
    # An operator of ours can see neither MXNet's random numbers nor whether it trains; MXNet's own
    # dropout can, in every mode.
    if isinstance(like, mx.sym.Symbol):
        return mx.sym.npx.dropout(mx.sym.np.ones((_SIZE,), dtype='float32'), p=0.5)
    ones = mx.nd.np.ones((_SIZE,), dtype='float32', ctx=like.ctx)
    return mx.nd.npx.dropout(ones, p=0.5)
