"""Sequence to sequence: against an LSTM in NumPy, in every mode, and with readers' decoders."""
import logging
import warnings

import numpy as onp
import pytest
from mxnet import autograd, gluon, np
from mxnet.gluon import nn, rnn

from d2l.nn.attention import MLPAttention
from d2l.nn.encoder_decoder import Decoder, EncoderDecoder
from d2l.nn.seq2seq import Seq2SeqDecoder, Seq2SeqEncoder

RNG = onp.random.RandomState(0)
SOURCE = RNG.randint(0, 7, size=(3, 5)).astype('int32')
TARGET = RNG.randint(0, 8, size=(3, 4)).astype('int32')
LENGTHS = onp.array([5, 2, 3], 'float32')
STATE = [RNG.normal(size=(2, 3, 6)).astype('float32') for _ in range(2)]


def translator():
    return EncoderDecoder(Seq2SeqEncoder(7, 4, 6, 2), Seq2SeqDecoder(8, 5, 6, 2))


MODES = {
    'Seq2SeqEncoder': [(lambda: Seq2SeqEncoder(7, 4, 6, 1), [SOURCE]),
                       (lambda: Seq2SeqEncoder(7, 4, 6, 2), [SOURCE])],
    'Seq2SeqDecoder': [(lambda: Seq2SeqDecoder(8, 5, 6, 2), [TARGET, STATE])],
    'EncoderDecoder': [(translator, [SOURCE, TARGET]),
                       (translator, [SOURCE, TARGET, LENGTHS]),
                       (translator, [SOURCE, TARGET, LENGTHS, LENGTHS.astype('int32')])]}


def initialized(block):
    block.initialize()
    return block


def sigmoid(x):
    return 1 / (1 + onp.exp(-x))


def lstm(X, layer, states):
    """(output, h, c) of Gluon's LSTM for X (steps, batch, units), one step at a time."""
    hs, cs = [], []
    for k in range(layer._num_layers):
        Wx, Wh, bx, bh = (getattr(layer, f'l{k}_{name}').data().asnumpy().astype('float64')
                          for name in ('i2h_weight', 'h2h_weight', 'i2h_bias', 'h2h_bias'))
        h, c, outputs = states[0][k], states[1][k], []
        for x in X:
            i, f, g, o = onp.split(x @ Wx.T + bx + h @ Wh.T + bh, 4, axis=1)
            c = sigmoid(f) * c + sigmoid(i) * onp.tanh(g)
            h = sigmoid(o) * onp.tanh(c)
            outputs.append(h)
        X = onp.stack(outputs)
        hs.append(h)
        cs.append(c)
    return X, onp.stack(hs), onp.stack(cs)


def check(arrays, expected):
    for array, truth in zip(arrays, expected):
        onp.testing.assert_allclose(array.asnumpy(), truth, rtol=1e-5, atol=1e-6)


def test_encoder_and_decoder_are_lstms():
    net = initialized(translator())
    table, other = (part.embedding.weight.data().asnumpy() for part in (net.encoder, net.decoder))
    out, state = net.encoder(np.array(SOURCE), np.array(LENGTHS))
    assert isinstance(state, list)
    expected = lstm(table[SOURCE.T], net.encoder.rnn, onp.zeros((2, 2, 3, 6)))
    check([out, *state], expected)
    assert net.decoder.init_state((out, state), np.array(LENGTHS)) is state
    scores, state = net(np.array(SOURCE), np.array(TARGET), np.array(LENGTHS))
    V, c = (p.data().asnumpy() for p in (net.decoder.dense.weight, net.decoder.dense.bias))
    out, *states = lstm(other[TARGET.T], net.decoder.rnn, expected[1:])
    check([scores, *state], [(out @ V.T + c).swapaxes(0, 1), *states])


def test_shapes_of_the_book():
    encoder = initialized(Seq2SeqEncoder(vocab_size=10, embed_size=8, num_hiddens=16,
                                         num_layers=2))
    out, state = encoder(np.zeros((4, 7)))
    assert out.shape == (7, 4, 16)
    assert len(state) == 2 and state[0].shape == (2, 4, 16) and state[1].shape == (2, 4, 16)
    decoder = initialized(Seq2SeqDecoder(vocab_size=10, embed_size=8, num_hiddens=16,
                                         num_layers=2))
    out, state = decoder(np.zeros((4, 7)), decoder.init_state((out, state)))
    assert out.shape == (4, 7, 10)
    assert len(state) == 2 and state[0].shape == (2, 4, 16) and state[1].shape == (2, 4, 16)


@pytest.mark.parametrize('hybridize', [False, True])
def test_first_state_is_zero_whatever_the_input_holds(hybridize):
    """A state made by multiplying the input with 0 would be NaN."""
    encoder = initialized(Seq2SeqEncoder(7, 4, 6, 2))
    encoder.hybridize(hybridize)
    clean, _ = encoder(np.array(SOURCE))
    table = encoder.embedding.weight.data()
    table[6] = onp.nan
    table[5] = onp.inf
    tokens = onp.where(SOURCE > 4, 4, SOURCE)
    tokens[0] = 6, 5, 6, 5, 6
    out, _ = encoder(np.array(tokens))
    assert onp.isfinite(out[:, 1:].asnumpy()).all() and onp.isnan(out[:, 0].asnumpy()).all()
    same = (SOURCE[1:] < 5).all(axis=1)
    assert (out[:, 1:].asnumpy()[:, same] == clean[:, 1:].asnumpy()[:, same]).all()
    for dtype in ('float32', 'float64'):
        x = np.array([[0, onp.nan, 1], [2, onp.inf, -onp.inf], [1, 2, 3]], dtype=dtype)
        assert onp.isfinite(encoder(x)[0][0].asnumpy()).all()


@pytest.mark.parametrize('hybridize', [False, True])
def test_dtype_follows(hybridize):
    net = initialized(translator())
    net.cast('float64')
    net.hybridize(hybridize)
    for dtype in ('int32', 'float32', 'float64'):
        y, state = net(np.array(SOURCE, dtype=dtype), np.array(TARGET, dtype=dtype))
        assert {str(array.dtype) for array in (y, *state)} == {'float64'}


def test_a_bidirectional_layer_in_the_encoder():
    encoder = Seq2SeqEncoder(7, 4, 6, 1)
    encoder.rnn = rnn.LSTM(6, bidirectional=True)
    initialized(encoder)
    table = encoder.embedding.weight.data().asnumpy()
    out, state = encoder.rnn(np.array(table[SOURCE.T]), encoder.rnn.begin_state(3))
    for hybridize in (False, True):
        encoder.hybridize(hybridize)
        y, new = encoder(np.array(SOURCE))
        check([y, *new], [a.asnumpy() for a in (out, *state)])


def test_dropout_reaches_the_layers():
    """What they do with it is MXNet's: on the CPU nothing."""
    for part in (Seq2SeqEncoder(7, 4, 6, 2, 0.5), Seq2SeqDecoder(7, 4, 6, 2, dropout=0.5)):
        assert part.rnn._dropout == 0.5


def test_unused_lengths_leave_no_trace_in_the_encoders_graph(tmp_path):
    encoder = initialized(Seq2SeqEncoder(7, 4, 6, 2))
    encoder.hybridize()
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        out, _ = encoder(np.array(SOURCE), np.array(LENGTHS))
    encoder.export(str(tmp_path / 'encoder'))
    again = gluon.SymbolBlock.imports(str(tmp_path / 'encoder-symbol.json'), ['data'],
                                      str(tmp_path / 'encoder-0000.params'))
    check([again(np.array(SOURCE))[0]], [out.asnumpy()])


def test_unused_lengths_do_not_disturb_a_net_compiled_before_its_first_call():
    """Shapes that are still to be found are looked for with all inputs, which MXNet refuses."""
    net = initialized(translator())
    net.hybridize()
    arrays = [np.array(a) for a in (SOURCE, TARGET, LENGTHS, LENGTHS)]
    y, _ = net(*arrays)
    net.hybridize(False)
    check([y], [net(*arrays)[0].asnumpy()])


def test_one_compiled_translator_takes_other_batches_and_steps():
    net = initialized(translator())
    calls = [(SOURCE, TARGET), (SOURCE[:1], TARGET[:1, :1]), (SOURCE[:, :2], TARGET)]
    expected = [net(np.array(s), np.array(t), np.array(LENGTHS[:len(s)]))[0] for s, t in calls]
    net.hybridize()
    for (source, target), y in zip(calls, expected):
        again, _ = net(np.array(source), np.array(target), np.array(LENGTHS[:len(source)]))
        check([again], [y.asnumpy()])


class AttentionDecoder(Decoder):
    """As section 10.2 describes it: the LSTM's last hidden state asks the encoder's outputs."""

    def __init__(self, vocab_size, embed_size, num_hiddens, num_layers, dropout=0, **kwargs):
        super().__init__(**kwargs)
        self.attention = MLPAttention(num_hiddens, dropout)
        self.embedding = nn.Embedding(vocab_size, embed_size)
        self.rnn = rnn.LSTM(num_hiddens, num_layers, dropout=dropout)
        self.dense = nn.Dense(vocab_size, flatten=False)

    def init_state(self, enc_outputs, enc_valid_len, *args):
        outputs, hidden_state = enc_outputs
        return outputs.swapaxes(0, 1), hidden_state, enc_valid_len

    def forward(self, X, state):
        enc_outputs, hidden_state, enc_valid_len = state
        outputs = []
        for x in self.embedding(X).swapaxes(0, 1):
            query = np.expand_dims(hidden_state[0][-1], axis=1)
            context = self.attention(query, enc_outputs, enc_outputs, enc_valid_len)
            x = np.concatenate((context, np.expand_dims(x, axis=1)), axis=-1)
            out, hidden_state = self.rnn(x.swapaxes(0, 1), hidden_state)
            outputs.append(out)
        outputs = self.dense(np.concatenate(outputs, axis=0))
        return outputs.swapaxes(0, 1), [enc_outputs, hidden_state, enc_valid_len]


def test_decoder_of_a_reader_with_attention(caplog):
    encoder = initialized(Seq2SeqEncoder(7, 4, 6, 2))
    decoder = initialized(AttentionDecoder(8, 5, 6, 2))
    net = EncoderDecoder(encoder, decoder)
    arrays = [np.array(a) for a in (SOURCE, TARGET, LENGTHS, LENGTHS)]

    def run():
        with autograd.record():
            y, state = net(*arrays)
        y.backward()
        return [a.asnumpy() for a in (y, *state[1])] + [
            p.grad().asnumpy() for p in net.collect_params().values()]
    expected = run()
    assert expected[0].shape == (3, 4, 8) and all(onp.abs(a).max() > 0 for a in expected)
    with caplog.at_level(logging.WARNING, 'd2l'):
        net.hybridize()
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 2
    assert 'EncoderDecoder is not compiled as a whole, since decoder cannot be' in messages[0]
    assert 'AttentionDecoder is not compiled as a whole, since its forward() is plain' in \
        messages[1]
    assert encoder._active and decoder.attention._active and decoder.rnn._active
    assert not net._active and not decoder._active
    for _ in range(2):
        for got, want in zip(run(), expected):
            onp.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-6)


def test_attention_of_a_reader_sees_the_lengths():
    net = EncoderDecoder(Seq2SeqEncoder(7, 4, 6, 2), AttentionDecoder(8, 5, 6, 2))
    initialized(net)
    source, target = np.array(SOURCE), np.array(TARGET)
    outputs, state = net.encoder(source)
    changed = outputs.copy()
    changed[2:, 1] += 100  # beyond the length of example 1
    y = [net.decoder(target, net.decoder.init_state((o, state), np.array(LENGTHS)))[0]
         for o in (outputs, changed)]
    assert (y[0] == y[1]).all()


def test_names_in_saved_files():
    names = sorted(translator()._collect_params_with_prefix())
    layer = [f'_unfused.{k}.{part}_{kind}' for k in range(2) for part in ('h2h', 'i2h')
             for kind in ('bias', 'weight')]
    assert names == sorted(
        ['encoder.embedding.weight', 'decoder.embedding.weight', 'decoder.dense.weight',
         'decoder.dense.bias'] + [f'{p}.rnn.{name}' for p in ('encoder', 'decoder')
                                  for name in layer])
