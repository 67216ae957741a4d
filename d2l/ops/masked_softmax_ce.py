"""Softmax cross entropy of sequences, masked by valid lengths."""
from d2l.ops._operator import operator


@operator('pred', 'label', 'valid_len', pred=3, label=2, valid_len=1)
def masked_softmax_ce(F, pred, label, valid_len, smoothing=0.0):
    """Softmax cross entropy of which only the first ``valid_len`` steps of an example count.

    Parameters
    ----------
    pred : array or symbol of shape (batch, steps, vocab)
        Scores (logits).  float16 (computed in float32), float32 or float64.
    label : array or symbol of shape (batch, steps)
        The right class of each step, in any integer or floating-point dtype.  One outside of
        0 .. vocab - 1 counts as the nearest inside, as in MXNet's ``pick``; a fraction is dropped.
    valid_len : array or symbol of shape (batch,)
        How many of the steps count; any integer or floating-point dtype.  A fraction counts
        upward (2.5 is 3), what is below 0 or above the number of steps is clipped, NaN is 0.
    smoothing : float, >= 0 and < 1
        The target is 1 - smoothing on the label, and smoothing spread evenly over all classes.

    Returns
    -------
    array or symbol of shape (batch,) and pred's dtype
        The sum over the steps that count, divided by the number of all steps; 0 without steps.
        What pred and label hold at the other steps has no influence; the gradient there is 0.

    Raises
    ------
    MXNetError
        For a pred of other axes, without a class or of an integer dtype, for a label or valid_len
        of another shape, and for a smoothing outside its range.

    Differentiable in pred; label and valid_len get a zero gradient.  The result does not depend on
    the number of threads.  Source: Dive into Deep Learning, section 9.7; smoothing: Szegedy et al.,
    Rethinking the Inception Architecture for Computer Vision, 2016, section 7.
    """
    # float32 counts steps also where label is float16.
    zeros = F.np.zeros_like(label).astype('float32')
    positions = zeros + F.npx.arange_like(zeros, axis=1)
    valid = positions < F.np.expand_dims(valid_len.astype('float32'), 1)
    pred = F.np.where(F.np.expand_dims(valid, 2), pred, F.np.zeros_like(pred))
    log_p = F.npx.log_softmax(pred, axis=-1)
    loss = -F.npx.pick(log_p, label, axis=-1)
    if smoothing:
        loss = (1 - smoothing) * loss - smoothing * F.np.mean(log_p, axis=-1)
    return F.np.mean(F.np.where(valid, loss, F.np.zeros_like(loss)), axis=-1)
