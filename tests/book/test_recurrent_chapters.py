"""A reader's sessions with chapters 8 to 10: plain blocks of the reader's around the package's."""
import math

import pytest
from mxnet import autograd, gluon, init, np, npx
from mxnet.gluon import nn, rnn

from d2l import mxnet as d2l
from tests.nn.test_seq2seq import AttentionDecoder


def test_a_noisy_sine(reader):
    """Section 8.1: a table filled column by column, lines of different length in one plot."""
    T, tau = 200, 4
    steps = d2l.arange(0, T)
    x = d2l.sin(0.05 * steps) + 0.2 * d2l.normal(size=T)
    d2l.plot(steps, [x])
    features = d2l.zeros((T - tau, tau))
    for i in range(tau):
        features[:, i] = x[i:T - tau + i]
    labels = d2l.reshape(x[tau:], (-1, 1))
    train_iter = d2l.load_array((features[:100], labels[:100]), 16, is_train=True)
    net = nn.Sequential()
    net.add(nn.Dense(10, activation='relu'), nn.Dense(1))
    net.initialize(init.Xavier())
    loss = gluon.loss.L2Loss()
    trainer = gluon.Trainer(net.collect_params(), 'adam', {'learning_rate': 0.01})
    for epoch in range(2):
        for X, y in train_iter:
            with autograd.record():
                l = loss(net(X), y)
            l.backward()
            trainer.step(16)
        print(f'epoch {epoch + 1}, loss: {d2l.evaluate_loss(net, train_iter, loss):f}')
    onestep = net(features)
    d2l.plot([steps, steps[tau:]], [x, onestep], legend=['data', 'one step'])
    multistep = d2l.zeros(T)
    multistep[:100] = x[:100]
    for i in range(100, T):
        multistep[i] = d2l.reshape(net(multistep[i - tau:i].reshape(1, -1)), 1)
    d2l.plot([steps, steps[tau:], steps[100:]],
             [d2l.numpy(x), d2l.numpy(onestep), d2l.numpy(multistep[100:])],
             legend=['data', 'one step', 'many steps'], figsize=(4.5, 2.5))
    assert [len(line.get_xdata()) for line in d2l.plt.gca().lines] == [200, 196, 100]
    assert reader().count('loss: ') == 2


def test_words_and_their_frequencies(hub_data, reader):
    """Sections 8.2 and 8.3."""
    hub_data(real=False)
    tokens = d2l.tokenize(d2l.read_time_machine())
    vocab = d2l.Vocab(tokens)
    print(list(vocab.token_to_idx.items())[:10], tokens[8], vocab[tokens[8]])
    print(vocab.token_freqs[:10])
    freqs = [freq for token, freq in vocab.token_freqs]
    pairs = d2l.Vocab([list(zip(line[:-1], line[1:])) for line in tokens])
    triples = d2l.Vocab([list(zip(line[:-2], line[1:-1], line[2:])) for line in tokens])
    print(pairs.token_freqs[:10], triples.token_freqs[:10])
    d2l.plot([freqs] + [[freq for _, freq in more.token_freqs] for more in (pairs, triples)],
             xlabel='rank', ylabel='count', xscale='log', yscale='log',
             legend=['words', 'pairs', 'triples'])
    assert len(d2l.plt.gca().lines) == 3
    assert pairs[('of', 'the')] == 1
    for sample in (d2l.seq_data_iter_random, d2l.seq_data_iter_sequential):
        for X, Y in sample(list(range(30)), batch_size=2, num_steps=6):
            print('X: ', X, '\nY:', Y)
            assert (Y - X == 1).all()
    assert "('the', " in reader()


def gru_from_scratch(vocab_size, num_hiddens):
    """Three functions for RNNModelScratch, as sections 8.5 and 9.1 write them."""
    def get_params(vocab_size, num_hiddens, device):
        def three():
            return (np.random.normal(scale=0.01, size=(vocab_size, num_hiddens), ctx=device),
                    np.random.normal(scale=0.01, size=(num_hiddens, num_hiddens), ctx=device),
                    np.zeros(num_hiddens, ctx=device))
        params = [*three(), *three(),
                  np.random.normal(scale=0.01, size=(num_hiddens, vocab_size), ctx=device),
                  np.zeros(vocab_size, ctx=device)]
        for param in params:
            param.attach_grad()
        return params

    def init_state(batch_size, num_hiddens, device):
        return (np.zeros(shape=(batch_size, num_hiddens), ctx=device), )

    def forward(inputs, state, params):
        W_xz, W_hz, b_z, W_xh, W_hh, b_h, W_hq, b_q = params
        H, = state
        outputs = []
        for X in inputs:
            Z = npx.sigmoid(np.dot(X, W_xz) + np.dot(H, W_hz) + b_z)
            H = Z * H + (1 - Z) * np.tanh(np.dot(X, W_xh) + np.dot(H, W_hh) + b_h)
            outputs.append(np.dot(H, W_hq) + b_q)
        return np.concatenate(outputs, axis=0), (H,)
    return get_params, init_state, forward


def test_a_language_model_from_scratch(hub_data, reader):
    """Sections 8.5 and 9.1, and the loops as a reader writes them."""
    hub_data(real=False)
    device = d2l.try_gpu()
    train_iter, vocab = d2l.load_data_time_machine(16, 8, max_tokens=600)
    model = d2l.RNNModelScratch(len(vocab), 8, device, *gru_from_scratch(len(vocab), 8))
    X = d2l.reshape(d2l.arange(10), (2, 5))
    state = model.begin_state(X.shape[0], device)
    Y, new_state = model(X.as_in_context(device), state)
    assert Y.shape == (10, len(vocab)) and len(new_state) == 1 and new_state[0].shape == (2, 8)
    print(d2l.predict_ch8('time traveller ', 10, model, vocab, device))
    for use_random_iter in (False, True):
        train_iter, vocab = d2l.load_data_time_machine(16, 8, use_random_iter=use_random_iter,
                                                       max_tokens=600)
        d2l.train_ch8(model, train_iter, vocab, 1, 2, device, use_random_iter=use_random_iter)
    # A loop of the reader's own, with the state that goes on, history and all.
    loss, metric, state = gluon.loss.SoftmaxCrossEntropyLoss(), d2l.Accumulator(2), None
    timer, animator = d2l.Timer(), d2l.Animator(xlabel='epoch', ylabel='perplexity',
                                                legend=['train'], xlim=[1, 2])
    for X, Y in train_iter:
        if state is None:
            state = model.begin_state(batch_size=X.shape[0], ctx=device)
        else:
            for s in state:
                s.detach()
        y = Y.T.reshape(-1)
        with autograd.record():
            y_hat, state = model(X.as_in_ctx(device), state)
            l = loss(y_hat, y.as_in_ctx(device)).mean()
        l.backward()
        d2l.grad_clipping(model, 1)
        d2l.sgd(model.params, 1, batch_size=1)
        metric.add(l * d2l.size(y), d2l.size(y))
    animator.add(1, [math.exp(metric[0] / metric[1])])
    print(f'{metric[1] / timer.stop():.1f} tokens/sec')
    assert reader().count('perplexity ') == 2


@pytest.mark.parametrize('layer', [
    lambda: rnn.RNN(8), lambda: rnn.GRU(8), lambda: rnn.LSTM(8, 2),
    lambda: rnn.LSTM(8, 2, bidirectional=True)], ids=['rnn', 'gru', 'deep', 'bidirectional'])
def test_a_concise_language_model(layer, hub_data, reader):
    """Sections 8.6 and 9.1 to 9.4."""
    class ReadersModel(nn.Block):
        def __init__(self, rnn_layer, vocab_size, **kwargs):
            super().__init__(**kwargs)
            self.rnn, self.vocab_size = rnn_layer, vocab_size
            self.dense = nn.Dense(vocab_size)

        def forward(self, inputs, state):
            Y, state = self.rnn(npx.one_hot(inputs.T, self.vocab_size), state)
            return self.dense(Y.reshape(-1, Y.shape[-1])), state

        def begin_state(self, *args, **kwargs):
            return self.rnn.begin_state(*args, **kwargs)

    hub_data(real=False)
    device = d2l.try_gpu()
    train_iter, vocab = d2l.load_data_time_machine(16, 8, max_tokens=400)
    for make in (ReadersModel, d2l.RNNModel):
        model = make(layer(), len(vocab))
        model.initialize(force_reinit=True, ctx=device)
        print(d2l.predict_ch8('time traveller', 10, model, vocab, device))
        d2l.train_ch8(model, train_iter, vocab, 1, 1, device)
    assert reader().count('tokens/sec on cpu(0)') == 2


class MaskedLayer(nn.Block):
    """Section 10.3: one layer of the decoder, with the keys of earlier steps in the state."""

    def __init__(self, num_hiddens, ffn_num_hiddens, num_heads, dropout, i, **kwargs):
        super().__init__(**kwargs)
        self.i = i
        self.attention1 = d2l.MultiHeadAttention(num_hiddens, num_heads, dropout)
        self.addnorm1 = d2l.AddNorm(dropout)
        self.attention2 = d2l.MultiHeadAttention(num_hiddens, num_heads, dropout)
        self.addnorm2 = d2l.AddNorm(dropout)
        self.ffn = d2l.PositionWiseFFN(ffn_num_hiddens, num_hiddens)
        self.addnorm3 = d2l.AddNorm(dropout)

    def forward(self, X, state):
        enc_outputs, enc_valid_len = state[0], state[1]
        before = state[2][self.i]
        keys = X if before is None else np.concatenate((before, X), axis=1)
        state[2][self.i] = keys
        valid_len = None
        if autograd.is_training():
            batch_size, num_steps, _ = X.shape
            valid_len = np.tile(np.arange(1, num_steps + 1, ctx=X.ctx), (batch_size, 1))
        Y = self.addnorm1(X, self.attention1(X, keys, keys, valid_len))
        Z = self.addnorm2(Y, self.attention2(Y, enc_outputs, enc_outputs, enc_valid_len))
        return self.addnorm3(Z, self.ffn(Z)), state


class StackedDecoder(d2l.Decoder):
    def __init__(self, vocab_size, num_hiddens, ffn_num_hiddens, num_heads, num_layers, dropout,
                 **kwargs):
        super().__init__(**kwargs)
        self.num_hiddens, self.num_layers = num_hiddens, num_layers
        self.embedding = nn.Embedding(vocab_size, num_hiddens)
        self.positions = d2l.PositionalEncoding(num_hiddens, dropout)
        self.blks = nn.Sequential()
        for i in range(num_layers):
            self.blks.add(MaskedLayer(num_hiddens, ffn_num_hiddens, num_heads, dropout, i))
        self.dense = nn.Dense(vocab_size, flatten=False)

    def init_state(self, enc_outputs, enc_valid_len, *args):
        return [enc_outputs, enc_valid_len, [None] * self.num_layers]

    def forward(self, X, state):
        X = self.positions(self.embedding(X) * math.sqrt(self.num_hiddens))
        for blk in self.blks:
            X, state = blk(X, state)
        return self.dense(X), state


class ReadersEncoder(d2l.Encoder):
    """Section 9.7: states from the layer itself, with the sizes of the input."""

    def __init__(self, vocab_size, embed_size, num_hiddens, num_layers, dropout=0, **kwargs):
        super().__init__(**kwargs)
        self.embedding = nn.Embedding(vocab_size, embed_size)
        self.rnn = rnn.LSTM(num_hiddens, num_layers, dropout=dropout)

    def forward(self, X, *args):
        X = self.embedding(X).swapaxes(0, 1)
        return self.rnn(X, self.rnn.begin_state(batch_size=X.shape[1], ctx=X.ctx))


TRANSLATORS = {
    'two LSTMs': lambda src, tgt: (d2l.Seq2SeqEncoder(src, 8, 8, 2, 0.1),
                                   d2l.Seq2SeqDecoder(tgt, 8, 8, 2, 0.1)),
    "the reader's encoder": lambda src, tgt: (ReadersEncoder(src, 8, 8, 2),
                                              d2l.Seq2SeqDecoder(tgt, 8, 8, 2)),
    'attention': lambda src, tgt: (d2l.Seq2SeqEncoder(src, 8, 8, 2, 0.1),
                                   AttentionDecoder(tgt, 8, 8, 2, 0.1)),
    'Transformer': lambda src, tgt: (d2l.TransformerEncoder(src, 8, 16, 2, 2, 0.1),
                                     StackedDecoder(tgt, 8, 16, 2, 2, 0.1))}


@pytest.mark.parametrize('name', TRANSLATORS)
def test_a_translator(name, hub_data, reader):
    """Sections 9.5 to 10.3, trained by the package and by a loop of the reader's."""
    hub_data('fra-eng', real=False)
    device = d2l.try_gpu()
    src_vocab, tgt_vocab, train_iter = d2l.load_data_nmt(batch_size=32, num_steps=6,
                                                         num_examples=64)
    for X, X_vlen, Y, Y_vlen in train_iter:
        print('X:', X.astype('int32'), 'valid lengths for X:', X_vlen)
        print('Y:', Y.astype('int32'), 'valid lengths for Y:', Y_vlen)
        break
    model = d2l.EncoderDecoder(*TRANSLATORS[name](len(src_vocab), len(tgt_vocab)))
    d2l.train_s2s_ch9(model, train_iter, 0.005, 1, device)
    loss = d2l.MaskedSoftmaxCELoss()
    trainer = gluon.Trainer(model.collect_params(), 'adam', {'learning_rate': 0.005})
    metric = d2l.Accumulator(2)
    for batch in train_iter:
        X, X_vlen, Y, Y_vlen = [x.as_in_ctx(device) for x in batch]
        Y_input, Y_label, Y_vlen = Y[:, :-1], Y[:, 1:], Y_vlen - 1
        with autograd.record():
            Y_hat, _ = model(X, Y_input, X_vlen, Y_vlen)
            l = loss(Y_hat, Y_label, Y_vlen)
        l.backward()
        d2l.grad_clipping(model, 1)
        num_tokens = Y_vlen.sum()
        trainer.step(num_tokens)
        metric.add(l.sum(), num_tokens)
    assert metric[0] / metric[1] < 2
    for sentence in ['Go .', 'I won !']:
        print(sentence + ' => ' + d2l.predict_s2s_ch9(model, sentence, src_vocab, tgt_vocab, 6,
                                                      device))
    # Token by token, as section 9.7 does.
    words = src_vocab['go .'.split(' ')]
    enc_X = np.array(d2l.truncate_pad(words, 6, src_vocab['<pad>']), ctx=device)
    enc_valid_len = np.array([len(words)], ctx=device)
    state = model.decoder.init_state(model.encoder(np.expand_dims(enc_X, axis=0), enc_valid_len),
                                     enc_valid_len)
    dec_X = np.expand_dims(np.array([tgt_vocab['<bos>']], ctx=device), axis=0)
    tokens = []
    for _ in range(6):
        Y, state = model.decoder(dec_X, state)
        dec_X = Y.argmax(axis=2)
        tokens.append(dec_X.squeeze(axis=0).astype('int32').item())
    print(' '.join(tgt_vocab.to_tokens(tokens)))
    assert reader().count('=> ') == 2


def test_attention_by_hand():
    """Sections 9.7, 10.1 and 10.3: calls on arrays of ones."""
    assert npx.sequence_mask(d2l.ones((2, 3, 4)), np.array([1, 2]), True, value=-1,
                             axis=1).sum() == -12 + 4 * 3
    loss = d2l.MaskedSoftmaxCELoss()
    losses = loss(d2l.ones((3, 4, 10)), d2l.ones((3, 4)), np.array([4, 2, 0]))
    assert [round(float(l), 3) for l in losses] == [2.303, 1.151, 0.0]
    weights = d2l.masked_softmax(np.random.uniform(size=(2, 2, 4)), d2l.tensor([2, 3]))
    assert abs(weights[0, :, :2].sum() - 2) < 1e-5 and weights[1, 0, 3] == 0
    keys, values = d2l.ones((2, 10, 2)), np.arange(40).reshape(1, 10, 4).repeat(2, axis=0)
    for attention in (d2l.DotProductAttention(dropout=0.5), d2l.MLPAttention(units=8, dropout=0.1)):
        attention.initialize()
        Y = attention(d2l.ones((2, 1, 2)), keys, values, np.array([2, 6]))
        assert abs(Y[:, 0, 0] - np.array([2, 10])).max() < 1e-4
    X, valid_len = np.ones((2, 100, 24)), np.array([2, 3])
    block = d2l.EncoderBlock(24, 48, 8, 0.5)
    block.initialize()
    assert block(X, valid_len).shape == X.shape
    encoder = d2l.TransformerEncoder(200, 24, 48, 8, 2, 0.5)
    encoder.initialize()
    assert encoder(np.ones((2, 100)), valid_len).shape == X.shape
    layer = MaskedLayer(24, 48, 8, 0.5, 0)
    layer.initialize()
    assert layer(X, [block(X, valid_len), valid_len, [None]])[0].shape == X.shape
    codes = d2l.PositionalEncoding(20, 0)
    codes.initialize()
    d2l.plot(np.arange(100), codes(np.zeros((1, 100, 20)))[0, :, 4:8].T, figsize=(6, 2.5),
             legend=['dim %d' % p for p in range(4, 8)])
    assert len(d2l.plt.gca().lines) == 4


def test_attention_without_lengths():
    """Section 10.2 looks at the shapes of an untrained decoder's state."""
    encoder, decoder = d2l.Seq2SeqEncoder(10, 8, 16, 2), AttentionDecoder(10, 8, 16, 2)
    encoder.initialize()
    decoder.initialize()
    X = d2l.zeros((4, 7))
    out, state = decoder(X, decoder.init_state(encoder(X), None))
    assert out.shape == (4, 7, 10) and len(state) == 3 and state[0].shape == (4, 7, 16)
    assert len(state[1]) == 2 and state[1][0].shape == (2, 4, 16) and state[2] is None
