"""The interfaces of section 9.6 as readers fill them in, plain, hybridizable and mixed; search."""
import logging

import numpy as onp
import pytest
from mxnet import autograd, init, np, npx
from mxnet.gluon import nn

from d2l.deploy.export import export_model, load_model
from d2l.nn._block import HybridBlock
from d2l.nn.encoder_decoder import (
    Decoder,
    Encoder,
    EncoderDecoder,
    GreedySearch,
    without_state,
)
from d2l.nn.seq2seq import Seq2SeqDecoder, Seq2SeqEncoder
from d2l.nn.transformer import TransformerEncoder
from d2l.nn.transformer_decoder import TransformerDecoder

X = onp.random.RandomState(0).normal(size=(2, 3, 4)).astype('float32')
SOURCE = onp.random.RandomState(1).randint(0, 9, size=(3, 4)).astype('int32')


def recurrent():
    return EncoderDecoder(Seq2SeqEncoder(9, 4, 6, 2), Seq2SeqDecoder(11, 5, 6, 2))


def transformer():
    return EncoderDecoder(TransformerEncoder(9, 6, 8, 3, 2, 0.0),
                          TransformerDecoder(11, 6, 8, 3, 2, 0.0))


MODES = {'EncoderDecoder': [
    (lambda: EncoderDecoder(CompiledEncoder(), CompiledDecoder()), [X, X, lengths])
    for lengths in (None, onp.array([3, 1], 'float32'))],
    'GreedySearch': [(lambda: GreedySearch(recurrent(), 3, 4), [SOURCE]),
                     (lambda: GreedySearch(transformer(), 3, 4), [SOURCE, onp.array([4, 2, 1])])]}


class PlainEncoder(Encoder):
    """As in a cell of the book: forward(), and a Sequential of plain Blocks inside."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.blks = nn.Sequential()
        self.blks.add(PlainDense(), nn.Dense(4, flatten=False))
        self.last = nn.Dense(3, flatten=False)

    def forward(self, X, *args):
        if X.shape[0] > 100:  # what no graph can do
            raise ValueError
        return self.last(self.blks(X))


class PlainDense(nn.Block):
    def __init__(self):
        super().__init__()
        self.dense = nn.Dense(5, flatten=False)

    def forward(self, X):
        return self.dense(X)


class CompiledEncoder(Encoder):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.last = nn.Dense(3, flatten=False)

    def hybrid_forward(self, F, X, lengths=None):
        return self.last(X) if lengths is None else F.npx.sequence_mask(
            self.last(X), lengths, use_sequence_length=True, axis=1)


class CompiledDecoder(Decoder):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = nn.Dense(3, flatten=False)

    def init_state(self, enc_outputs, *args):
        return [enc_outputs, [enc_outputs * 2]]

    def hybrid_forward(self, F, X, state):
        first, (second,) = state
        return self.dense(X) + first, [first, [second + 1]]


class PlainDecoder(CompiledDecoder):
    def forward(self, X, state):
        return self.dense(X) + state[0], state


def test_interfaces_say_what_to_define():
    for call, fragment in [(lambda: Encoder()(np.ones(2)), 'Encoder must define forward'),
                           (lambda: Decoder()(np.ones(2), []), 'Decoder must define forward'),
                           (lambda: Decoder().init_state(None), 'must define init_state')]:
        with pytest.raises(NotImplementedError, match=fragment):
            call()


def test_compiled_as_a_whole(caplog):
    net = EncoderDecoder(CompiledEncoder(), CompiledDecoder())
    net.initialize()
    net.hybridize()
    y, (first, (second,)) = net(np.array(X), np.array(X), np.array([3, 1]))
    onp.testing.assert_allclose(second.asnumpy(), 2 * first.asnumpy() + 1, rtol=1e-6)
    assert net._active and caplog.records == []


@pytest.mark.parametrize('encoder, decoder, reasons', [
    (PlainEncoder, CompiledDecoder,
     ['EncoderDecoder is not compiled as a whole, since encoder cannot be',
      'PlainEncoder is not compiled as a whole, since its forward() is plain Python '
      '(hybrid_forward() would be compiled), blks is a plain Sequential']),
    (CompiledEncoder, PlainDecoder, ['since decoder cannot be', 'PlainDecoder is not compiled']),
    (lambda: PlainDense(), CompiledDecoder, ['since encoder is a plain PlainDense'])])
def test_hybridize_compiles_what_it_can(encoder, decoder, reasons, caplog):
    net = EncoderDecoder(encoder(), decoder())
    net.initialize()
    if isinstance(net.encoder, PlainDense):
        net.encoder.dense = nn.Dense(3, flatten=False)
        net.initialize()
    x = np.array(X)
    x.attach_grad()

    def run():
        with autograd.record():
            y, _ = net(x, x)
        y.backward()
        return [y.asnumpy(), x.grad.asnumpy()] + [
            p.grad().asnumpy() for p in net.collect_params().values()]
    expected = run()
    with caplog.at_level(logging.WARNING, 'd2l'):
        net.hybridize()
    assert not net._active
    for part in (net.encoder, net.decoder):
        dense = getattr(part, 'last', getattr(part, 'dense', None))
        assert dense._active, part
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == len(reasons)
    assert all(reason in message for reason, message in zip(reasons, messages))
    for _ in range(2):
        for got, want in zip(run(), expected):
            onp.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    net.hybridize(False)
    assert not net.decoder.dense._active


def test_static_graphs_reach_the_parts():
    net = EncoderDecoder(PlainEncoder(), CompiledDecoder())
    net.initialize()
    net.hybridize(static_alloc=True, static_shape=True)
    assert dict(net.decoder._flags)['static_shape'] is True
    net(np.array(X), np.array(X))


def test_names_in_saved_files(tmp_path):
    net = EncoderDecoder(PlainEncoder(), CompiledDecoder())
    net.initialize()
    expected, _ = net(np.array(X), np.array(X))
    assert list(net._collect_params_with_prefix())[:2] == ['encoder.blks.0.dense.weight',
                                                           'encoder.blks.0.dense.bias']
    net.save_parameters(str(tmp_path / 'net.params'))
    again = EncoderDecoder(PlainEncoder(), CompiledDecoder())
    again.load_parameters(str(tmp_path / 'net.params'))
    assert (again(np.array(X), np.array(X))[0] == expected).all()


def test_a_child_can_be_replaced_after_compiling():
    net = EncoderDecoder(CompiledEncoder(), CompiledDecoder())
    net.initialize()
    net.hybridize()
    net(np.array(X), np.array(X))
    net.decoder.dense = nn.Dense(3, flatten=False)
    net.decoder.initialize(force_reinit=True)
    net.hybridize()
    y, _ = net(np.array(X), np.array(X))
    net.hybridize(False)
    onp.testing.assert_allclose(net(np.array(X), np.array(X))[0].asnumpy(), y.asnumpy(), rtol=1e-5)


class Nothing(HybridBlock):
    """Returns None, as it got it, among arrays."""

    def hybrid_forward(self, F, X, state):
        first, (second, third) = state
        return X + 1, [first, [second if second is None else second * 2, []], third]


@pytest.mark.parametrize('hybridize', [False, True])
def test_a_graph_returns_none(hybridize):
    net = Nothing()
    net.hybridize(hybridize)
    x = np.array(X)
    for _ in range(2):
        for first, second in ((None, x), (x, None), (None, None), (x, x)):
            y, (a, (b, empty), c) = net(x, [first, [second, x]])
            assert (y == x + 1).all() and empty == [] and (c == x).all()
            assert a is None if first is None else (a == x).all()
            assert b is None if second is None else (b == 2 * x).all()


def gradients(net, *args):
    """Scores and gradients of a step, and what stood in the place of the state."""
    with autograd.record():
        scores, state = net(*args)
    scores.backward()
    parameters = net._collect_params_with_prefix().values()
    return [scores.asnumpy()] + [p.grad().asnumpy() for p in parameters], state


@pytest.mark.parametrize('flags', [None, {}, {'static_alloc': True, 'static_shape': True}])
@pytest.mark.parametrize('make', [recurrent, transformer])
def test_the_state_can_be_left_out(make, flags):
    """In turn with and without, each with a graph of its own, which has just the scores."""
    net = make()
    net.initialize(init.Normal(0.5))
    args = np.array(SOURCE), np.array(SOURCE), np.array([4, 2, 1])
    expected, state = gradients(net, *args)
    if flags is not None:
        net.hybridize(**flags)
    for _ in range(2):
        assert gradients(net, *args)[1] is not None
        with without_state(net):
            got, nothing = gradients(net, *args)
            assert nothing is None
            if flags is not None:
                assert len(net._cached_graph[1].list_outputs()) == 1
        for one, other in zip(got, expected):
            onp.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError), without_state(net):
        raise ValueError
    assert net.returns_state
    assert EncoderDecoder(net.encoder, net.decoder, returns_state=False)(*args)[1] is None
    with without_state(net.decoder):  # what has no such setting stays as it is
        assert not hasattr(net.decoder, 'returns_state')


@pytest.mark.parametrize('where', ['source', 'target'])
@pytest.mark.parametrize('hybridize', [False, True])
def test_lengths_beside_other_gradients(where, hybridize):
    """Whoever asks for the gradient of the lengths gets zeros, and of the state what is due."""
    net = transformer()
    net.initialize(init.Normal(0.5))
    net.hybridize(hybridize)
    lengths = np.array([4, 2, 1], dtype='float32')
    lengths.attach_grad()
    with autograd.record():
        scores, state = net(np.array(SOURCE), np.array(SOURCE), lengths)
        total = scores.sum() if where == 'target' else (state[0] ** 2).sum()
    total.backward()
    assert (lengths.grad == 0).all()
    weight = net.encoder.embedding.weight.grad()
    assert (weight != 0).any()


def searched(net, source, lengths, bos, num_steps):
    """One token after the other, all of the target so far given anew."""
    tokens = onp.full((len(source), 1), bos)
    for _ in range(num_steps):
        scores, _ = net(np.array(source), np.array(tokens), *lengths)
        tokens = onp.concatenate([tokens, scores.asnumpy()[:, -1:].argmax(axis=-1)], axis=1)
    return tokens[:, 1:]


@pytest.mark.parametrize('make', [recurrent, transformer])
@pytest.mark.parametrize('hybridize', [False, True])
def test_greedy_search(make, hybridize):
    npx.random.seed(0)
    net = make()
    net.initialize(init.Normal(0.3))
    lengths = [np.array([4, 2, 1])]
    expected = searched(net, SOURCE, lengths, 3, 7)
    search = GreedySearch(net, 3, 7)
    search.hybridize(hybridize)
    for _ in range(2):
        assert (search(np.array(SOURCE), *lengths).asnumpy() == expected).all()
    assert len(set(expected.ravel())) > 3, 'always the same tokens'


def test_greedy_search_is_exported(tmp_path):
    npx.random.seed(0)
    net = transformer()
    net.initialize(init.Normal(0.3))
    search = GreedySearch(net, 3, 5)
    inputs = np.array(SOURCE), np.array([4, 2, 1])
    expected = search(*inputs).asnumpy()
    export_model(search, str(tmp_path / 'translator'), *inputs)
    assert (load_model(str(tmp_path / 'translator'))(*inputs).asnumpy() == expected).all()
