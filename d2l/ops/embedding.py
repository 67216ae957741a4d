"""Rows of a table with positions and segments: the input of a Transformer or of BERT."""
from d2l.ops._operator import operator


@operator('weight', 'data', 'position', 'segment_weight', 'segments', weight=2, position=3,
          segment_weight=2)
def embedding(F, weight, data, position=None, segment_weight=None, segments=None, scale=1.0):
    """Rows of ``weight`` at the indices ``data``, times ``scale``, plus positions and segments.

    ``weight[data] * scale + position[0, :steps] + segment_weight[segments]`` in one pass; steps is
    the length of data's last axis.

    Parameters
    ----------
    weight : array or symbol of shape (vocab, num_hiddens)
        float16 (computed in float32), float32 or float64.
    data : array or symbol of shape (batch, steps), or (..., steps)
        Indices of any integer or floating-point dtype.  One outside of 0 .. vocab - 1 counts as the
        nearest inside, as in MXNet's Embedding; a fraction is dropped, NaN is 0.
    position : None, or array or symbol of shape (1, max_steps, num_hiddens), of weight's dtype
        Row t is added at step t; max_steps is at least steps.
    segment_weight : None, or array or symbol of shape (count, num_hiddens), of weight's dtype
    segments : None, or array or symbol of data's shape
        Indices of rows of segment_weight, as data is of weight; given if that is.
    scale : float > 0
        Transformers take num_hiddens ** 0.5.

    Returns
    -------
    array or symbol of data's shape with num_hiddens added, and weight's dtype

    Raises
    ------
    MXNetError
        For a weight or segment_weight without rows, for data without axes, for other shapes that
        do not fit, for weights of an integer dtype or of differing ones, and for a scale that is
        not a finite number > 0.

    Differentiable in weight, position and segment_weight; data and segments get a zero gradient.
    The gradients are dense, but only rows that occur are summed, in double, in an order that does
    not depend on the number of threads.
    Source: Vaswani et al., Attention Is All You Need, 2017, sections 3.4 and 3.5; Devlin et al.,
    BERT, 2018, figure 2.
    """
    out = F.np.take(weight, data, axis=0, mode='clip') * scale
    if position is not None:
        steps = F.npx.arange_like(F.np.zeros_like(data).astype('float32'), axis=-1)
        out = out + F.np.squeeze(F.np.take(position, steps, axis=1, mode='clip'), axis=0)
    if segment_weight is not None:
        out = out + F.np.take(segment_weight, segments, axis=0, mode='clip')
    return out
