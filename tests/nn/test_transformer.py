"""The blocks of the Transformer's encoder against NumPy, and their names in saved files."""
import mxnet as mx
import numpy as onp
import pytest
from mxnet import autograd, np
from mxnet.gluon import nn

from d2l.nn.layer_norm import LayerNorm
from d2l.nn.transformer import (
    AddNorm,
    EncoderBlock,
    PositionalEncoding,
    PositionWiseFFN,
    TransformerEncoder,
)

RNG = onp.random.RandomState(0)
X = RNG.normal(size=(3, 5, 6)).astype('float32')
Y = RNG.normal(size=(3, 5, 6)).astype('float32')
TOKENS = RNG.randint(0, 9, size=(3, 5)).astype('int32')
LENGTHS = [None, onp.array([5, 2, 1], 'float32'), RNG.randint(1, 6, size=(3, 5)).astype('int32')]
MODES = {
    'PositionWiseFFN': [(lambda: PositionWiseFFN(7, 4), [X])],
    'AddNorm': [(lambda: AddNorm(0.0), [X, Y])],
    'LayerNorm': [(lambda: LayerNorm(), [X]), (lambda: LayerNorm(axis=1), [X])],
    'PositionalEncoding': [(lambda: PositionalEncoding(6, 0.0), [X]),
                           (lambda: PositionalEncoding(5, 0.0), [X[..., :5]])],
    'EncoderBlock': [(lambda: EncoderBlock(6, 8, 3, 0.0), [X, lengths]) for lengths in LENGTHS],
    'TransformerEncoder': [(lambda: TransformerEncoder(9, 6, 8, 3, 2, 0.0), [TOKENS, lengths])
                           for lengths in LENGTHS]}


def layer_norm(x):
    mean, var = x.mean(axis=-1, keepdims=True), x.var(axis=-1, keepdims=True)
    return (x - mean) / onp.sqrt(var + 1e-5)


def codes(steps, num_hiddens):
    """The definition, one entry at a time."""
    P = onp.zeros((steps, num_hiddens))
    for i, j in onp.ndindex(P.shape):
        angle = i / 10000 ** (j // 2 * 2 / num_hiddens)
        P[i, j] = onp.cos(angle) if j % 2 else onp.sin(angle)
    return P


def initialized(block):
    block.initialize()
    return block


def test_ffn():
    ffn = initialized(PositionWiseFFN(4, 8))
    y = ffn(np.ones((2, 3, 4)))
    assert y.shape == (2, 3, 8) and (y[0, 0] == y[1, 2]).all()
    W1, W2 = (d.weight.data().asnumpy() for d in (ffn.dense1, ffn.dense2))
    expected = onp.maximum(X[..., :4] @ W1.T, 0) @ W2.T
    onp.testing.assert_allclose(ffn(np.array(X[..., :4])).asnumpy(), expected, rtol=1e-5, atol=1e-6)


def test_add_norm():
    y = initialized(AddNorm(0.5))(np.array(X), np.array(Y))
    onp.testing.assert_allclose(y.asnumpy(), layer_norm(X.astype('float64') + Y), atol=1e-5)


def test_add_norm_drops_the_second_argument():
    block = initialized(AddNorm(1 - 1e-7))
    with autograd.train_mode():
        y = block(np.array(X), np.array(Y))
    onp.testing.assert_allclose(y.asnumpy(), layer_norm(X.astype('float64')), atol=1e-5)


def test_add_norm_in_train_mode():
    """Imperative and hybridized alike after the same seed; the parameters are those of ln."""
    block, results = initialized(AddNorm(0.4)), []
    for hybridized in (False, True):
        block.hybridize(hybridized)
        block(np.array(X), np.array(Y))
        mx.random.seed(1)
        given = [np.array(X), np.array(Y)]
        for a in given:
            a.attach_grad()
        with autograd.record():
            y = block(*given)
        y.backward(given[0])
        results.append([y.asnumpy()] + [a.grad.asnumpy() for a in given])
    for imperative, hybrid in zip(*results):
        assert onp.array_equal(imperative, hybrid)
    dropped = results[0][2] == 0
    assert 0.2 < dropped.mean() < 0.6
    z = X + onp.where(dropped, 0, Y / 0.6)
    onp.testing.assert_allclose(results[0][0], layer_norm(z.astype('float64')), atol=1e-5)
    assert sorted(block._collect_params_with_prefix()) == ['ln.beta', 'ln.gamma']
    assert all('layernorm' in name for name in block.collect_params())


@pytest.mark.parametrize('num_hiddens', [1, 2, 5, 20, 33])
def test_positional_encoding(num_hiddens):
    """Odd numbers included: the original raised."""
    encoding = initialized(PositionalEncoding(num_hiddens, 0.0))
    y = encoding(np.zeros((2, 60, num_hiddens)))
    for row in y:
        onp.testing.assert_allclose(row.asnumpy(), codes(60, num_hiddens), atol=1e-5)
    assert encoding.P.shape == (1, 1000, num_hiddens)
    assert (encoding.P[0, :60] == y[0]).all()


def test_positional_encoding_beyond_max_len():
    encoding = initialized(PositionalEncoding(4, 0.0, max_len=10))
    assert encoding.P.shape == (1, 10, 4)
    onp.testing.assert_allclose(encoding(np.zeros((1, 2000, 4)))[0].asnumpy(), codes(2000, 4),
                                atol=3e-4)  # 2000 radians in float32


@pytest.mark.parametrize('dtype, atol', [('float16', 2e-3), ('float64', 1e-5)])
def test_positional_encoding_in_another_dtype(dtype, atol):
    encoding = initialized(PositionalEncoding(6, 0.0))
    encoding.cast(dtype)
    y = encoding(np.zeros((1, 300, 6), dtype=dtype))
    assert y.dtype == dtype
    onp.testing.assert_allclose(y[0].asnumpy(), codes(300, 6), atol=atol)


def test_positional_encoding_drops():
    encoding = initialized(PositionalEncoding(4, 0.5))
    with autograd.train_mode():
        y = encoding(np.ones((2, 50, 4)))
    assert 0.3 < (y == 0).mean() < 0.7


def test_positional_encoding_saves_nothing(tmp_path):
    """As in the original, whose files have no entry for it."""
    assert PositionalEncoding(4, 0.0)._collect_params_with_prefix() == {}


def test_encoder_block_masks_every_example_by_its_own_length():
    block = initialized(EncoderBlock(6, 8, 3, 0.0))
    lengths, x = np.array([2, 5, 5]), X.copy()
    before = block(np.array(x), lengths)
    x[0, 2:] = 7
    after = block(np.array(x), lengths)
    assert (before[0, :2] == after[0, :2]).all() and (before[1:] == after[1:]).all()
    assert not (before[0, 2:] == after[0, 2:]).any()


def test_encoder_block_is_its_parts():
    block = initialized(EncoderBlock(6, 8, 3, 0.0))
    y = block(np.array(X))
    Z = block.addnorm1(np.array(X), block.attention(*[np.array(X)] * 3))
    assert (y == block.addnorm2(Z, block.ffn(Z))).all()


def test_lengths_may_be_left_out():
    encoder = initialized(TransformerEncoder(9, 6, 8, 3, 2, 0.0))
    tokens = np.array(TOKENS)
    assert (encoder(tokens) == encoder(tokens, np.array([5, 5, 5]))).all()


def test_positional_encoding_takes_the_arguments_of_a_block():
    assert PositionalEncoding(6, 0.0, prefix='codes_').prefix == 'codes_'


def test_transformer_encoder_of_the_book():
    encoder = initialized(TransformerEncoder(200, 24, 48, 8, 2, 0.5))
    assert encoder(np.ones((2, 100)), np.array([3, 2])).shape == (2, 100, 24)
    X = np.ones((2, 100))
    start = encoder.pos_encoding(encoder.embedding(X) * 24 ** 0.5)
    for block in encoder.blks:
        start = block(start, None)
    onp.testing.assert_allclose(encoder(X, None).asnumpy(), start.asnumpy(), atol=1e-6)


def outputs_and_gradients(encoder, *arrays):
    with autograd.record():
        y = encoder(*arrays)
    y.backward()
    grads = {name: p.grad().asnumpy() for name, p in encoder.collect_params().items()}
    return y.asnumpy(), grads


@pytest.mark.parametrize('watched', ['embedding', 'pos_encoding'])
def test_one_pass_and_its_parts_are_the_same(watched):
    """A hook must see its block run, so that the encoder then takes the parts."""
    encoder = initialized(TransformerEncoder(9, 6, 8, 3, 2, 0.0))
    arrays = np.array(TOKENS), np.array([5, 2, 1])
    y, grads = outputs_and_gradients(encoder, *arrays)
    calls = []
    getattr(encoder, watched).register_forward_hook(lambda *args: calls.append(args))
    y_parts, grads_parts = outputs_and_gradients(encoder, *arrays)
    assert len(calls) == 1
    onp.testing.assert_allclose(y, y_parts, atol=1e-6)
    for name in grads:
        onp.testing.assert_allclose(grads[name], grads_parts[name], atol=1e-5, err_msg=name)


def test_blocks_put_in_the_place_of_embedding_and_positions_run():
    class Ones(PositionalEncoding):
        def hybrid_forward(self, F, X):
            return F.np.ones_like(X)

    class Doubled(nn.Embedding):
        def hybrid_forward(self, F, x, weight):
            return 2 * super().hybrid_forward(F, x, weight)

    encoder, tokens = initialized(TransformerEncoder(9, 6, 8, 3, 0, 0.0)), np.array(TOKENS)
    rows = encoder.embedding(tokens) * 6 ** 0.5
    plain = encoder(tokens)
    encoder.embedding = Doubled(9, 6, params=encoder.embedding.params)
    onp.testing.assert_allclose(encoder(tokens).asnumpy(), (plain + rows).asnumpy(), atol=1e-5)
    encoder.pos_encoding = Ones(6, 0.0)
    assert (encoder(tokens) == 1).all()


def test_names_in_saved_files():
    encoder = TransformerEncoder(200, 24, 48, 8, 1, 0.5, use_bias=True)
    assert sorted(encoder._collect_params_with_prefix()) == sorted(
        ['embedding.weight'] +
        [f'blks.0.attention.W_{k}.{p}' for k in 'qkvo' for p in ('weight', 'bias')] +
        [f'blks.0.addnorm{i}.ln.{p}' for i in (1, 2) for p in ('gamma', 'beta')] +
        [f'blks.0.ffn.dense{i}.{p}' for i in (1, 2) for p in ('weight', 'bias')])
