"""Recurrent language models: from scratch, sampling, clipping and training (section 8.5)."""
import operator
import weakref

import numpy
from mxnet import autograd, gluon, init, np, npx

from d2l.data.arrays import positive_int
from d2l.ops import global_norm_clip
from d2l.train.optimizers import fused
from d2l.train.regression import sgd
from d2l.utils.animator import Animator
from d2l.utils.parameters import parameters_of
from d2l.utils.timing import Accumulator, Timer

_EPOCHS_PER_POINT = 10


class RNNModelScratch:
    """A recurrent language model of three functions, over one-hot tokens (section 8.5).

    get_params(vocab_size, num_hiddens, device) returns the list ``params`` of arrays with
    gradients, init_state(batch_size, num_hiddens, device) the first state, and
    forward_fn(inputs, state, params) the scores of the tokens that follow and the new state.
    inputs has shape (steps, batch, vocab_size).
    """

    def __init__(self, vocab_size, num_hiddens, device, get_params, init_state, forward_fn):
        self.vocab_size, self.num_hiddens = vocab_size, num_hiddens
        self.params = get_params(vocab_size, num_hiddens, device)
        self.init_state, self.forward_fn = init_state, forward_fn

    def __call__(self, X, state):
        """Return what forward_fn does for token numbers X, (batch, steps), of any dtype."""
        return self.forward_fn(npx.one_hot(X.T, self.vocab_size), state, self.params)

    def begin_state(self, batch_size, ctx):
        """Return the first state for a batch, on a device."""
        return self.init_state(batch_size, self.num_hiddens, ctx)


def predict_ch8(prefix, num_preds, model, vocab, device):
    """Return a text that begins with prefix, continued by num_preds tokens (section 8.5).

    prefix is a str for a vocabulary of characters, or a list of tokens.  Each further token is
    the one with the highest score after those before; they are joined without spaces.  model is
    an `RNNModelScratch` or `d2l.nn.rnn.RNNModel` on device and gets one token at a time.  The
    device is waited for once, at the end.

    Raises ValueError for an empty prefix or a negative num_preds.
    """
    if not prefix:
        raise ValueError(f'predict_ch8: prefix must have at least one token, got {prefix!r}')
    if num_preds < 0:
        raise ValueError(f'predict_ch8: num_preds must not be negative, got {num_preds}')
    known = [vocab[token] for token in prefix]
    tokens = np.array([known], dtype='float32', ctx=device)
    state = model.begin_state(batch_size=1, ctx=device)
    for i in range(len(known) - 1):
        _, state = model(tokens[:, i:i + 1], state)
    newest, predicted = tokens[:, -1:], []
    for _ in range(num_preds):
        scores, state = model(newest, state)
        # It stays an array: reading it would wait for the device at each token.
        newest = scores.argmax(axis=1).reshape(1, 1).astype('float32')
        predicted.append(newest)
    if predicted:
        known += np.concatenate(predicted, axis=1)[0].astype('int64').asnumpy().tolist()
    return ''.join(vocab.idx_to_token[index] for index in known)


def grad_clipping(model, theta):
    """Scale the gradients, in place, so that their common norm is at most theta (section 8.5).

    The norm is that of all gradients as one vector.  model is a Block, or has a list ``params``
    of arrays.  Parameters without gradient, such as frozen ones and running statistics, do not
    count.  Of a Block on several devices the gradients are added up, as gluon.Trainer does, to
    get the norm; those of each device are scaled by the same factor.

    Nothing is read back: the factor is computed on the device, like the gradients.  It is in
    float64, where squares of float32 do not overflow.  If a gradient is NaN or infinite, all stay
    as they are.

    Raises ValueError for a negative theta.
    """
    if not theta >= 0:
        raise ValueError(f'grad_clipping: theta must not be negative, got {theta}')
    _clip(model, theta)


def clip_and_divide(model, theta, divisor):
    """Like `grad_clipping`, and then divide the gradients by an array of one element."""
    _clip(model, theta, divisor.astype('float64'))


def train_epoch_ch8(model, train_iter, loss, updater, device, use_random_iter):
    """Train for one epoch and return (perplexity, tokens a second) (section 8.5).

    train_iter gives pairs (X, Y) of token numbers, (batch, steps), where Y is X one step later.
    loss(scores, y) returns the loss of each token.  updater is a gluon.Trainer or a function of
    the batch size, which is always 1, since the loss is a mean over tokens.  The gradients are
    clipped to norm 1.

    The state goes on from batch to batch, without its history; with use_random_iter, and where
    the batch size changes, it begins anew.  The perplexity is inf where a float cannot hold it.

    Raises ValueError when train_iter is empty.
    """
    if isinstance(updater, gluon.Trainer):
        updater = updater.step
    state, batch_size = None, None
    timer, metric = Timer(), Accumulator(2)
    for X, Y in train_iter:
        if use_random_iter or X.shape[0] != batch_size:
            batch_size = X.shape[0]
            state = model.begin_state(batch_size=batch_size, ctx=device)
        else:
            state = _detached(state)
        X, y = X.as_in_ctx(device), Y.T.reshape(-1).as_in_ctx(device)
        with autograd.record():
            scores, state = model(X, state)
            l = loss(scores, y).mean()
        l.backward()
        grad_clipping(model, 1)
        updater(1)
        metric.add(l * y.size, y.size)
    if metric[1] == 0:
        raise ValueError('train_epoch_ch8: train_iter must give at least one batch, got none')
    with numpy.errstate(over='ignore'):
        perplexity = float(numpy.exp(metric[0] / metric[1]))
    return perplexity, metric[1] / timer.stop()


def train_ch8(model, train_iter, vocab, lr, num_epochs, device, use_random_iter=False, *,
              animator=None, force_reinit=True):
    """Train a language model with SGD, draw its perplexity and print samples (section 8.5).

    model is an `RNNModelScratch`, or a Block like `d2l.nn.rnn.RNNModel`.  A Block is first
    initialised with Normal(0.01): parameters that it has already are lost, unless force_reinit is
    False, which initialises only those that have no values.  The other arguments are those of
    `train_epoch_ch8`; train_iter is gone through num_epochs times.

    The perplexities of the first epoch, of every tenth after it and of the last go to the
    animator, if one is given: the caller can then save its figure.  Prints the last perplexity,
    the tokens a second of the last epoch, and how the model goes on after 'time traveller' and
    'traveller', 50 tokens each.

    Raises ValueError when there is no batch, TypeError or ValueError unless num_epochs is an
    integer of at least 1.
    """
    num_epochs = positive_int('train_ch8: num_epochs', num_epochs)
    if isinstance(model, gluon.Block):
        model.initialize(init=init.Normal(0.01), ctx=device, force_reinit=force_reinit)
        updater = gluon.Trainer(model.collect_params(), fused('sgd'), {'learning_rate': lr})
    else:
        def updater(batch_size):
            sgd(model.params, lr, batch_size)
    loss = gluon.loss.SoftmaxCrossEntropyLoss()
    if animator is None:
        animator = Animator(xlabel='epoch', ylabel='perplexity', legend=['train'],
                            xlim=[1, num_epochs] if num_epochs > 1 else None)
    for epoch in range(num_epochs):
        ppl, speed = train_epoch_ch8(model, train_iter, loss, updater, device, use_random_iter)
        if epoch % _EPOCHS_PER_POINT == 0 or epoch + 1 == num_epochs:
            animator.add(epoch + 1, [ppl])
    animator.close()
    print(f'perplexity {ppl:.1f}, {speed:.1f} tokens/sec on {device}')
    for prefix in ('time traveller', 'traveller'):
        print(predict_ch8(prefix, 50, model, vocab, device))


def _gradients(model):
    """The gradients of each parameter that has any, a list with one for each device."""
    if isinstance(model, gluon.Block):
        return [p._grad for p in parameters_of(model)
                if p._grad is not None and p._grad_req != 'null']
    return [[param.grad] for param in model.params if param.grad is not None]


# Block -> its gradients when it was clipped last, and what clips them if they are on one device.
_last_clipped = weakref.WeakKeyDictionary()


def _clip(model, theta, divisor=None):
    gradients = _gradients(model)
    if not gradients:
        return
    device = gradients[0][0].ctx
    if divisor is not None:
        divisor = divisor.as_in_ctx(device)
    flat = [part for parts in gradients for part in parts]
    is_block = isinstance(model, gluon.Block)  # another's ``grad`` is a new object each time
    seen, clip = _last_clipped.get(model, ((), None)) if is_block else ((), None)
    if len(flat) != len(seen) or not all(map(operator.is_, flat, seen)):
        on_one = all(len(parts) == 1 and parts[0].ctx == device for parts in gradients)
        clip = global_norm_clip.bind(flat) if on_one else None
        if is_block:
            _last_clipped[model] = flat, clip
    if clip is not None:
        clip(divisor=divisor, theta=theta)
        return
    # The sums over the devices are clipped like gradients, and their norm before that is left.
    totals = [sum(part.as_in_ctx(device).astype('float64') for part in parts)
              for parts in gradients]
    norm = global_norm_clip(totals, theta=theta)
    one = np.ones_like(norm)
    factor = np.where(np.isfinite(norm), np.where(norm > theta, theta / norm, one), one)
    if divisor is not None:
        factor = factor / divisor
    for parts in gradients:
        for part in parts:
            part *= factor.astype(part.dtype).as_in_ctx(part.ctx)


def _detached(state):
    """The same values without their history, in the same lists and tuples."""
    if isinstance(state, tuple):
        return tuple(_detached(item) for item in state)
    if isinstance(state, list):
        return [_detached(item) for item in state]
    return state.detach()
