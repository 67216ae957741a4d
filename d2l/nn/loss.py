"""Losses of translation (section 9.7) and of ranking (section 16.5)."""
from mxnet.gluon import loss
from mxnet.ndarray import NDArray

from d2l import ops
from d2l.nn._block import HybridBlock


class MaskedSoftmaxCELoss(loss.SoftmaxCELoss):
    """Softmax cross entropy in which padded steps count nothing (section 9.7).

    pred has shape (batch, steps, vocab), label (batch, steps); of each example, the first
    valid_len (batch,) steps count.  The result (batch,) is the sum over these steps, divided by
    the number of all steps, padding too, as in the book.  Its gradient is 0 at padded steps.

    The arguments of the constructor are those of Gluon's SoftmaxCrossEntropyLoss.  Unless one of
    them is another than its default, the loss is d2l's kernel.
    """

    def hybrid_forward(self, F, pred, label, valid_len):
        if (self._sparse_label and not self._from_logits and self._weight is None
                and (self._axis, self._batch_axis) == (-1, 0)):
            return ops.masked_softmax_ce(pred, label, valid_len)
        # (batch, steps, 1): of pred, since labels may be integers.
        weights = F.np.ones_like(F.npx.slice(pred, (None, None, 0), (None, None, 1)))
        weights = F.npx.sequence_mask(weights, valid_len, use_sequence_length=True, axis=1)
        return super().hybrid_forward(F, pred, label, weights)


class BPRLoss(loss.Loss):
    """Bayesian personalized ranking, -log sigmoid(positive - negative) (section 16.5).

    Rendle et al., 2009, equation 5.  positive and negative are scores of equal shape.  The result
    is the sum over the first axis, which stays with length 1, times weight.  It and its gradient
    are exact for differences of any size.
    """

    def __init__(self, weight=None, batch_axis=0, **kwargs):
        super().__init__(weight, batch_axis, **kwargs)

    def hybrid_forward(self, F, positive, negative):
        d = positive - negative
        # log(1 + exp(-d)), where the exponential is at most 1.  At d = 0 the derivative of relu
        # is 0 and that of the maximum 1: together with the factor -1/2 they make it right there.
        loss = F.npx.relu(-d) + F.np.log1p(F.np.exp(-F.np.maximum(d, -d)))
        return _weighted(F.np.sum(loss, axis=0, keepdims=True), self._weight)


class HingeLossbRec(HybridBlock, loss.Loss):
    """The hinge loss of ranking, max(0, margin - (positive - negative)) (section 16.5).

    positive and negative are scores of equal shape.  The result is the sum over all of them,
    without axes, times weight.  margin is a number, which becomes part of a hybridized block's
    graph, or an array that broadcasts.
    """

    def __init__(self, weight=None, batch_axis=0, **kwargs):
        super().__init__(weight, batch_axis, **kwargs)
        self._margin = 1

    def forward(self, positive, negative, margin=1):
        if isinstance(margin, NDArray) or hasattr(margin, 'list_arguments'):
            return super().forward(positive, negative, margin)
        if margin != self._margin:
            self._margin = margin
            self._clear_cached_op()
        return super().forward(positive, negative)

    def hybrid_forward(self, F, positive, negative, margin=None):
        margin = self._margin if margin is None else margin
        loss = F.npx.relu(margin - (positive - negative))
        return _weighted(F.np.sum(loss), self._weight)


def _weighted(loss, weight):
    return loss if weight is None else loss * weight
