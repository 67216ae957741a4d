"""Training and using a translator (section 9.7)."""
from mxnet import autograd, gluon, init, np

from d2l.data.arrays import positive_int
from d2l.data.translation import preprocess_nmt, truncate_pad
from d2l.nn.encoder_decoder import without_state
from d2l.nn.loss import MaskedSoftmaxCELoss
from d2l.train.language_model import clip_and_divide
from d2l.train.optimizers import fused
from d2l.utils.animator import Animator
from d2l.utils.timing import Accumulator, Timer

_EPOCHS_PER_POINT = 10
# Tokens are computed ahead of looking for <eos>: reading one waits for the device, while a token
# too many costs little.
_TOKENS_PER_READ = 4


def train_s2s_ch9(model, data_iter, lr, num_epochs, device, *, animator=None, force_reinit=True):
    """Train an encoder and decoder with Adam, draw the loss and print the result (section 9.7).

    The model is first initialised after Xavier: parameters that it has already are lost, unless
    force_reinit is False, which initialises only those that have no values.  data_iter gives
    batches (X, X_valid_len, Y, Y_valid_len) as `d2l.data.translation.load_data_nmt` does: Y
    begins with <bos>, and the decoder gets all of it but the last step to predict all but the
    first.  Both lengths go to the model as further arguments, the second one less by <bos>.

    In each step the gradients of the summed loss are clipped to norm 1 and then divided by the
    number of tokens that count.  The loss by token (a sum over examples of means over all steps,
    divided by the number of tokens, as in the book) of every tenth epoch and of the last goes to
    the animator, if one is given: the caller can then save its figure.  Prints it for the last
    epoch, and that epoch's tokens a second.

    Raises ValueError when there is no batch, TypeError or ValueError unless num_epochs is an
    integer of at least 1.
    """
    num_epochs = positive_int('train_s2s_ch9: num_epochs', num_epochs)
    model.initialize(init=init.Xavier(), ctx=device, force_reinit=force_reinit)
    trainer = gluon.Trainer(model.collect_params(), fused('adam'), {'learning_rate': lr})
    loss = MaskedSoftmaxCELoss()
    if animator is None:
        animator = Animator(xlabel='epoch', ylabel='loss',
                            xlim=[1, num_epochs] if num_epochs > 1 else None)
    for epoch in range(1, num_epochs + 1):
        timer, metric = Timer(), Accumulator(2)
        for batch in data_iter:
            X, X_valid_len, Y, Y_valid_len = (array.as_in_ctx(device) for array in batch)
            Y_valid_len = Y_valid_len - 1
            num_tokens = Y_valid_len.sum()
            with autograd.record(), without_state(model):
                Y_hat, _ = model(X, Y[:, :-1], X_valid_len, Y_valid_len)
                l = loss(Y_hat, Y[:, 1:], Y_valid_len)
            l.backward()
            # The trainer would have to read the number of tokens to divide by it.
            clip_and_divide(model, 1, np.maximum(num_tokens, 1))
            trainer.step(1)
            metric.add(l.sum(), num_tokens)
        if metric[1] == 0:
            raise ValueError('train_s2s_ch9: data_iter must give at least one token, got none')
        mean_loss, speed = metric[0] / metric[1], metric[1] / timer.stop()
        if epoch % _EPOCHS_PER_POINT == 0 or epoch == num_epochs:
            animator.add(epoch, mean_loss)
    animator.close()
    print(f'loss {mean_loss:.3f}, {speed:.1f} tokens/sec on {device}')


def predict_s2s_ch9(model, src_sentence, src_vocab, tgt_vocab, num_steps, device):
    """Return the translation of a sentence, a str of words joined by spaces (section 9.7).

    The sentence is prepared as the training data were: lower case, punctuation apart, cut or
    padded to num_steps tokens.  Each token of the translation is the one with the highest score
    after those before; it ends before <eos>, or after num_steps tokens.  model has an ``encoder``
    and a ``decoder``, as `d2l.nn.encoder_decoder.EncoderDecoder` does, on device.

    Raises ValueError for a sentence without words, TypeError or ValueError unless num_steps is
    an integer of at least 1.
    """
    num_steps = positive_int('predict_s2s_ch9: num_steps', num_steps)
    words = preprocess_nmt(src_sentence).split()
    if not words:
        raise ValueError('predict_s2s_ch9: src_sentence must have at least one word, got '
                         f'{src_sentence!r}')
    tokens = truncate_pad(src_vocab[words], num_steps, src_vocab['<pad>'])
    enc_X = np.array([tokens], dtype='float32', ctx=device)
    enc_valid_len = np.array([min(len(words), num_steps)], dtype='float32', ctx=device)
    enc_outputs = model.encoder(enc_X, enc_valid_len)
    state = model.decoder.init_state(enc_outputs, enc_valid_len)
    newest = np.array([[tgt_vocab['<bos>']]], dtype='float32', ctx=device)
    predicted, eos = [], tgt_vocab['<eos>']
    while eos not in predicted and len(predicted) < num_steps:
        unread = []
        for _ in range(min(_TOKENS_PER_READ, num_steps - len(predicted))):
            scores, state = model.decoder(newest, state)
            newest = scores.argmax(axis=2).astype('float32')
            unread.append(newest)
        predicted += np.concatenate(unread, axis=1)[0].astype('int64').asnumpy().tolist()
    if eos in predicted:
        predicted = predicted[:predicted.index(eos)]
    return ' '.join(tgt_vocab.to_tokens(predicted))
