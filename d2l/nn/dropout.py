"""Dropout as a block."""
from mxnet.gluon import nn

from d2l import ops
from d2l.nn._block import does_just


class Dropout(nn.Dropout):
    """Gluon's Dropout, run by d2l's kernel (section 4.6; Srivastava et al., 2014).

    Constructor and result are those of ``gluon.nn.Dropout``: in train mode entries become 0 with
    probability ``rate`` and the others are divided by 1 - rate; in predict mode, and with rate 0,
    nothing happens.  ``mx.random.seed`` makes the masks reproducible, whatever the number of
    threads.  With ``axes``, along which a mask is shared, it is Gluon's own.  Hybridizes and
    exports.  Raises MXNetError at the call unless 0 <= rate < 1.
    """

    def hybrid_forward(self, F, x):
        if self._axes or not self._rate:
            return super().hybrid_forward(F, x)
        return ops.dropout(x, ops.random_seed(x), p=self._rate)


def dropped(block, X):
    """What a dropout block makes of X; X itself where it would only copy it."""
    return X if does_just(block, Dropout) and not block._rate else block(X)
