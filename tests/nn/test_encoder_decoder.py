"""The interfaces of section 9.6 as readers fill them in: plain, hybridizable, and mixed."""
import logging

import numpy as onp
import pytest
from mxnet import autograd, np
from mxnet.gluon import nn

from d2l.nn.encoder_decoder import Decoder, Encoder, EncoderDecoder

X = onp.random.RandomState(0).normal(size=(2, 3, 4)).astype('float32')


MODES = {'EncoderDecoder': [
    (lambda: EncoderDecoder(CompiledEncoder(), CompiledDecoder()), [X, X, lengths])
    for lengths in (None, onp.array([3, 1], 'float32'))]}


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
