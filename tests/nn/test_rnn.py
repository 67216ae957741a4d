"""RNNModel: each layer in every mode, layers that readers write, dtypes, names in files."""
import logging

import mxnet as mx
import numpy as onp
import pytest
from mxnet import autograd, init, np
from mxnet.gluon import nn, rnn

from d2l.nn.rnn import RNNModel
from d2l.testing import check_block

RNG = onp.random.RandomState(0)
TOKENS = RNG.randint(0, 7, size=(3, 5)).astype('int32')
LAYERS = [(layer, options) for layer in (rnn.RNN, rnn.GRU, rnn.LSTM)
          for options in ({}, {'num_layers': 2}, {'num_layers': 2, 'bidirectional': True})]


def row(layer, options):
    states = [RNG.normal(size=state.shape).astype('float32')
              for state in layer(4, **options).begin_state(3)]
    return lambda: RNNModel(layer(4, **options), 7), [TOKENS, states]


MODES = {'RNNModel': [row(*pair) for pair in LAYERS]}


def initialized(model):
    model.initialize()
    return model


class PlainLayer(nn.Block):
    """As a reader would write it; output and state can be told from one another."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = nn.Dense(4, flatten=False, activation='tanh')

    def begin_state(self, batch_size, ctx=None):
        return [np.zeros((batch_size, 4), ctx=ctx)]

    def forward(self, X, state):
        H, outputs = state[0], []
        for x in X:
            H = self.dense(x) + H
            outputs.append(H)
        return np.stack(outputs), [H]


def test_model_of_the_book():
    model = initialized(RNNModel(rnn.RNN(256), 28))
    state = model.begin_state(batch_size=2, ctx=mx.cpu())
    assert len(state) == 1 and state[0].shape == (1, 2, 256)
    scores, state = model(np.random.randint(0, 28, (2, 35)), state)
    assert scores.shape == (2 * 35, 28) and state[0].shape == (1, 2, 256)


def test_scores_of_a_step_stand_together():
    """Against numpy, with a layer that is one line of numpy as well."""
    model = initialized(RNNModel(PlainLayer(), 7))
    scores, state = model(np.array(TOKENS), model.begin_state(3))
    W, b = (p.data().asnumpy() for p in (model.rnn.dense.weight, model.rnn.dense.bias))
    V, c = (p.data().asnumpy() for p in (model.dense.weight, model.dense.bias))
    H = onp.cumsum(onp.tanh(W.T[TOKENS.T] + b), axis=0)
    onp.testing.assert_allclose(scores.asnumpy(), (H @ V.T + c).reshape(15, 7), rtol=1e-5,
                                atol=1e-6)
    onp.testing.assert_allclose(state[0].asnumpy(), H[-1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('layer', [rnn.RNN, rnn.GRU, rnn.LSTM])
def test_state_continues_the_sequence(layer):
    model = initialized(RNNModel(layer(4, num_layers=2), 7))
    tokens = np.array(TOKENS)
    whole, last = model(tokens, model.begin_state(3))
    for hybridize in (False, True):
        model.hybridize(hybridize)
        first, state = model(tokens[:, :2], model.begin_state(3))
        second, state = model(tokens[:, 2:], state)
        onp.testing.assert_allclose(np.concatenate([first, second]).asnumpy(), whole.asnumpy(),
                                    rtol=1e-5, atol=1e-6)
        for s, t in zip(state, last):
            onp.testing.assert_allclose(s.asnumpy(), t.asnumpy(), rtol=1e-5, atol=1e-6)


def test_one_compiled_model_takes_other_batches_lengths_and_dtypes():
    model = initialized(RNNModel(rnn.GRU(4), 7))
    calls = [(TOKENS, 'float32'), (TOKENS[:1, :2], 'float32'), (TOKENS, 'int64'),
             (TOKENS[:2], 'int32')]
    expected = [model(np.array(t, dtype=d), model.begin_state(len(t)))[0] for t, d in calls]
    model.hybridize()
    for (tokens, dtype), y in zip(calls, expected):
        again, _ = model(np.array(tokens, dtype=dtype), model.begin_state(len(tokens)))
        onp.testing.assert_allclose(again.asnumpy(), y.asnumpy(), rtol=1e-5, atol=1e-6)


def test_state_may_be_a_tuple_or_an_array():
    model = initialized(RNNModel(rnn.GRU(4), 7))
    (state,) = model.begin_state(3)
    expected, _ = model(np.array(TOKENS), [state])
    for hybridize in (False, True):
        model.hybridize(hybridize)
        for form in ((state,), state, [state]):
            y, new = model(np.array(TOKENS), form)
            onp.testing.assert_allclose(y.asnumpy(), expected.asnumpy(), rtol=1e-5, atol=1e-6)
            assert len(new) == 1


def test_float64():
    """Whether the model is cast or the layer has it from the start."""
    cast = initialized(RNNModel(rnn.LSTM(4), 7))
    cast(np.array(TOKENS), cast.begin_state(3))
    cast.cast('float64')
    born = RNNModel(rnn.LSTM(4, dtype='float64'), 7)
    born.initialize(init.One())
    for model in (cast, born):
        for hybridize in (False, True):
            model.hybridize(hybridize)
            y, state = model(np.array(TOKENS), model.begin_state(3))
            assert y.dtype == state[0].dtype == 'float64'


def test_a_plain_layer_is_left_as_it_is(caplog):
    model = initialized(RNNModel(PlainLayer(), 7))
    state = model.begin_state(3, ctx=mx.cpu())

    def run():
        with autograd.record():
            y, _ = model(np.array(TOKENS), state)
        y.backward()
        return [y.asnumpy()] + [p.grad().asnumpy() for p in model.collect_params().values()]
    expected = run()
    with caplog.at_level(logging.WARNING, 'd2l'):
        model.hybridize()
    (record,) = caplog.records
    assert 'RNNModel is not compiled as a whole, since rnn is a plain PlainLayer' in \
        record.getMessage()
    assert model.dense._active and model.rnn.dense._active
    for got, want in zip(run(), expected):
        onp.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_a_hybridizable_layer_of_the_reader():
    class Layer(nn.HybridBlock):
        def hybrid_forward(self, F, X, state):
            (state,) = state
            Y = X + F.np.expand_dims(state, 0)
            return Y, [F.np.sum(Y, axis=0)]

    check_block(lambda: initialized(RNNModel(Layer(), 7)),
                [TOKENS, [RNG.normal(size=(3, 7)).astype('float32')]])


def test_layout():
    with pytest.raises(ValueError, match="RNNModel: rnn_layer must have the layout 'TNC', got"):
        RNNModel(rnn.GRU(4, layout='NTC'), 7)


def test_names_in_saved_files():
    assert sorted(RNNModel(rnn.GRU(4), 7)._collect_params_with_prefix()) == [
        'dense.bias', 'dense.weight', 'rnn._unfused.0.h2h_bias', 'rnn._unfused.0.h2h_weight',
        'rnn._unfused.0.i2h_bias', 'rnn._unfused.0.i2h_weight']
