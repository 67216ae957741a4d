"""The Transformer's decoder against NumPy, one step at a time and all at once, and its state."""
import numpy as onp
import pytest
from mxnet import autograd, np
from mxnet.gluon import nn

from d2l.nn.attention import MultiHeadAttention
from d2l.nn.encoder_decoder import EncoderDecoder
from d2l.nn.transformer import PositionalEncoding, TransformerEncoder
from d2l.nn.transformer_decoder import DecoderBlock, TransformerDecoder

RNG = onp.random.RandomState(0)
SOURCE = RNG.randint(0, 9, size=(3, 5)).astype('int32')
TARGET = RNG.randint(0, 11, size=(3, 4)).astype('int32')
X = RNG.normal(size=(3, 4, 6)).astype('float32')
MEMORY = RNG.normal(size=(3, 5, 6)).astype('float32')
LENGTHS = onp.array([5, 2, 1], 'float32')
QUERIES = RNG.randint(1, 6, size=(3, 4)).astype('int32')
SIZES = 6, 8, 3, 2, 0.0


def cache(steps, rng=RNG):
    """The entry of one layer after so many steps."""
    return [[rng.normal(size=(3, n, 6)).astype('float32') for _ in range(2)] for n in (steps, 5)]


def block(i=0):
    return DecoderBlock(6, 8, 3, 0.0, i)


def decoder(**kwargs):
    return TransformerDecoder(11, *SIZES, **kwargs)


def translator():
    return EncoderDecoder(TransformerEncoder(9, *SIZES), decoder())


MODES = {
    'DecoderBlock': [(block, [X, [MEMORY, lengths, [None, None]]])
                     for lengths in (None, LENGTHS, QUERIES)] +
                    [(lambda: block(1), [X, [MEMORY, LENGTHS, [cache(2), cache(3)]]]),
                     (block, [X, [MEMORY, None, [X[:, :2]]]])],
    'TransformerDecoder': [
        (decoder, [TARGET, [MEMORY, lengths, [None, None]]]) for lengths in (None, LENGTHS)] + [
        (decoder, [TARGET, [MEMORY, LENGTHS, [cache(3), cache(3)]]]),
        (lambda: decoder(continue_positions=False),
         [TARGET, [MEMORY, None, [cache(3), cache(3)]]])],
    'EncoderDecoder': [(translator, [SOURCE, TARGET, *lengths])
                       for lengths in ((), (LENGTHS,), (LENGTHS, LENGTHS))]}


def initialized(block):
    block.initialize()
    return block


def with_children_of(block, other):
    for name, child in block._children.items():
        setattr(other, name, child)
    return other


def norm(x):
    return (x - x.mean(axis=-1, keepdims=True)) / onp.sqrt(x.var(axis=-1, keepdims=True) + 1e-5)


def attend(net, queries, keys, counts):
    """Several heads, one query at a time, in float64; counts[b][i]: the keys that query i sees."""
    q, k, v = (x @ w.weight.data().asnumpy().T.astype('float64') for x, w in (
        (queries, net.W_q), (keys, net.W_k), (keys, net.W_v)))
    out, width = onp.zeros_like(q), q.shape[-1] // net.num_heads
    for b, i, h in onp.ndindex(*q.shape[:2], net.num_heads):
        part, n = slice(h * width, (h + 1) * width), int(counts[b][i])
        e = onp.exp(k[b, :n, part] @ q[b, i, part] / width ** 0.5)
        out[b, i, part] = e @ v[b, :n, part] / e.sum()
    return out @ net.W_o.weight.data().asnumpy().T


def truth_of_block(net, x, memory, lengths):
    batch, steps, _ = x.shape
    y = norm(x + attend(net.attention1, x, x, [range(1, steps + 1)] * batch))
    y = norm(y + attend(net.attention2, y, memory, [[n] * steps for n in lengths]))
    (W1, b1), (W2, b2) = ([p.data().asnumpy() for p in (d.weight, d.bias)]
                          for d in (net.ffn.dense1, net.ffn.dense2))
    return norm(y + onp.maximum(y @ W1.T + b1, 0) @ W2.T + b2)


def truth(net, tokens, memory, lengths):
    positions, columns = onp.arange(tokens.shape[1])[:, None], onp.arange(6)
    angles = positions / 10000 ** (columns // 2 * 2 / 6)
    codes = onp.where(columns % 2, onp.cos(angles), onp.sin(angles))
    x = net.embedding.weight.data().asnumpy()[tokens] * 6 ** 0.5 + codes
    for layer in net.blks:
        x = truth_of_block(layer, x, memory, lengths)
    return x @ net.dense.weight.data().asnumpy().T + net.dense.bias.data().asnumpy()


def upload(value):
    if isinstance(value, list):
        return [upload(item) for item in value]
    return None if value is None else np.array(value, dtype=value.dtype)


def close(got, want, atol=2e-6):
    onp.testing.assert_allclose(got.asnumpy(), want, rtol=1e-5, atol=atol)


def in_parts(net, tokens, state, *ends):
    """Scores of tokens that are given in parts, up to each of ends, and the state after them."""
    scores = []
    for start, end in zip((0,) + ends, ends):
        y, state = net(tokens[:, start:end], state)
        scores.append(y)
    return np.concatenate(scores, axis=1), state


def start(net, lengths=LENGTHS):
    return net.init_state(np.array(MEMORY), upload(lengths))


def test_block_of_the_book():
    net = initialized(DecoderBlock(24, 48, 8, 0.5, 0))
    ones = np.ones((2, 100, 24))
    y, state = net(ones, [ones, np.array([3, 2]), [None]])
    assert y.shape == (2, 100, 24) and state[0] is ones
    (keys, values), source = state[2][0]
    assert keys.shape == values.shape == source[0].shape == (2, 100, 24)


@pytest.mark.parametrize('train', [False, True])
def test_scores(train):
    """Against float64; a step sees none after it, in predict mode, too."""
    net = initialized(decoder())
    with autograd.train_mode() if train else autograd.predict_mode():
        y, _ = net(np.array(TARGET), start(net))
    close(y, truth(net, TARGET, MEMORY, LENGTHS))


@pytest.mark.parametrize('hybridize', [False, True])
@pytest.mark.parametrize('lengths', [None, LENGTHS])
def test_step_by_step_is_all_at_once(hybridize, lengths):
    """The steps of a cache stand before those of X, whose positions go on from there."""
    net, tokens = initialized(decoder()), np.array(TARGET)
    expected, _ = net(tokens, start(net, lengths))
    net.hybridize(hybridize)
    for ends in ((1, 2, 3, 4), (4,), (1, 4), (3, 4), (2, 4)):
        y, state = in_parts(net, tokens, start(net, lengths), *ends)
        close(y, expected.asnumpy())
        assert (state[1] is None) == (lengths is None)
        assert [[a.shape for a in pair] for pair in state[2][1]] == [[(3, 4, 6)] * 2,
                                                                    [(3, 5, 6)] * 2]


def test_gradients_of_steps_go_through_the_cache():
    net, results = initialized(decoder()), []
    for ends in ((4,), (1, 2, 3, 4)):
        memory = np.array(MEMORY)
        memory.attach_grad()
        with autograd.record():
            y, _ = in_parts(net, np.array(TARGET), net.init_state(memory), *ends)
            loss = (y * np.cos(np.arange(y.size)).reshape(y.shape)).sum()
        loss.backward()
        results.append([memory.grad.asnumpy()] + [p.grad().asnumpy()
                                                  for p in net.collect_params().values()])
    for steps, whole in zip(*results):
        onp.testing.assert_allclose(steps, whole, rtol=1e-4, atol=1e-5)


class BookBlock(nn.Block):
    """Section 10.3 word for word: the inputs so far are kept, keys are computed again."""

    def __init__(self, ours):
        super().__init__()
        self.ours = ours

    def forward(self, x, state):
        ours, past = self.ours, state[2][self.ours.i]
        steps = x if past is None else np.concatenate((past, x), axis=1)
        state[2][ours.i] = steps
        counts = None
        if autograd.is_training():
            counts = np.tile(np.arange(1, x.shape[1] + 1), (x.shape[0], 1))
        y = ours.addnorm1(x, ours.attention1(x, steps, steps, counts))
        y = ours.addnorm2(y, ours.attention2(y, state[0], state[0], state[1]))
        return ours.addnorm3(y, ours.ffn(y)), state


def book(net, x, state):
    """One call of the book's decoder with the parameters of ours."""
    x = net.pos_encoding(net.embedding(x) * net.num_hiddens ** 0.5)
    for layer in net.blks:
        x, state = BookBlock(layer)(x, state)
    return net.dense(x), state


def test_the_books_positions():
    """In the book each step of a translation is at position 0."""
    net, tokens = initialized(decoder(continue_positions=False)), np.array(TARGET)
    state, other = start(net), start(net)
    for i in range(4):
        y, state = net(tokens[:, i:i + 1], state)
        want, other = book(net, tokens[:, i:i + 1], other)
        close(y, want.asnumpy())
    with autograd.train_mode():
        close(net(tokens, start(net))[0], book(net, tokens, start(net))[0].asnumpy())
    continued, _ = in_parts(with_children_of(net, decoder()), tokens, start(net), 1, 2, 3, 4)
    assert abs(continued[:, -1:] - y).max() > 1e-3


def test_states_are_not_changed():
    net, tokens = initialized(decoder()), np.array(TARGET)
    state = start(net)
    assert state[2] == [None, None] and len(state) == 3
    _, once = net(tokens[:, :1], state)
    assert state[2] == [None, None]
    first, _ = net(tokens[:, 1:2], once)
    assert (net(tokens[:, 1:2], once)[0] == first).all()


def test_lengths_of_the_sources_hold():
    net, tokens = initialized(decoder()), np.array(TARGET)
    memory = MEMORY.copy()
    memory[1, 2:] += 100
    y, z = (in_parts(net, tokens, net.init_state(np.array(m), np.array(LENGTHS)), 1, 4)[0]
            for m in (MEMORY, memory))
    assert (y == z).all()


class Doubled(MultiHeadAttention):
    """A reader's own."""

    def hybrid_forward(self, F, query, key, value, valid_len=None):
        return 2 * super().hybrid_forward(F, query, key, value, valid_len)


@pytest.mark.parametrize('change', ['hook', 'subclass'])
@pytest.mark.parametrize('hybridize', [False, True])
def test_attention_of_a_reader_is_asked(change, hybridize):
    net, tokens, seen = initialized(decoder()), np.array(TARGET), []
    plain, _ = net(tokens, start(net))
    for layer in net.blks:
        if change == 'hook':
            layer.attention2.register_forward_hook(lambda *args: seen.append(args))
        else:
            layer.attention2 = with_children_of(layer.attention2, Doubled(6, 3, 0.0))
    expected, _ = net(tokens, start(net))
    net.hybridize(hybridize)
    y, state = in_parts(net, tokens, start(net), 1, 2, 4)
    close(y, expected.asnumpy())
    assert state[2][0].shape == (3, 4, 6)  # the inputs so far, as in the book
    if change == 'hook':
        assert seen
        close(expected, plain.asnumpy())
    else:
        assert abs(expected - plain).max() > 1e-3


def test_positions_of_a_reader():
    class Nowhere(PositionalEncoding):
        def hybrid_forward(self, F, X):
            return X
    net, tokens = initialized(decoder()), np.array(TARGET)
    net.pos_encoding = Nowhere(6, 0.0)
    net.blks[0].register_forward_hook(lambda block, args, out: None)
    expected, _ = net(tokens, start(net))
    close(in_parts(net, tokens, start(net), 1, 3, 4)[0], expected.asnumpy())


def test_positions_go_on_where_a_hook_watches_them():
    net, tokens = initialized(decoder()), np.array(TARGET)
    expected, _ = net(tokens, start(net))
    net.pos_encoding.register_forward_hook(lambda *args: None)
    close(in_parts(net, tokens, start(net), 1, 3, 4)[0], expected.asnumpy())


def test_weights_of_a_decoder():
    net, tokens = initialized(decoder()), np.array(TARGET)
    expected, _ = net(tokens, start(net))
    attention = net.blks[1].attention1.attention
    attention.keep_weights = True
    y, _ = net(tokens, start(net))
    close(y, expected.asnumpy())
    weights = attention.attention_weights.asnumpy()
    assert weights.shape == (9, 4, 4) and (onp.triu(weights, 1) == 0).all()
    onp.testing.assert_allclose(weights.sum(axis=-1), 1, rtol=1e-5)


def test_a_hybridized_block_inside_a_plain_decoder():
    """A reader's decoder runs forward() itself, and its parts are compiled one by one."""
    class Plain(TransformerDecoder):
        def forward(self, x, state):
            x = self.pos_encoding(self.embedding(x) * self.num_hiddens ** 0.5)
            for layer in self.blks:
                x, state = layer(x, state)
            return self.dense(x), state

    net, tokens = initialized(Plain(11, *SIZES)), np.array(TARGET)
    expected, _ = in_parts(net, tokens, start(net, None), 2, 4)
    net.hybridize()
    assert net.blks[0]._active and not net._active
    y, state = in_parts(net, tokens, start(net, None), 2, 4)
    close(y, expected.asnumpy())
    assert state[1] is None and state[2][1][0][0].shape == (3, 4, 6)


def test_dtype_follows():
    net = initialized(decoder())
    net(np.array(TARGET), start(net))
    net.cast('float64')
    memory = np.array(MEMORY, dtype='float64')
    y, state = in_parts(net, np.array(TARGET), net.init_state(memory, np.array(LENGTHS)), 1, 4)
    assert {str(a.dtype) for a in (y, *state[2][1][0])} == {'float64'}
    close(y, truth(net, TARGET, MEMORY, LENGTHS), atol=1e-6)


def test_a_decoder_without_blocks():
    net = initialized(TransformerDecoder(11, 6, 8, 3, 0, 0.0))
    net.hybridize()
    y, state = net(np.array(TARGET), start(net))
    assert y.shape == (3, 4, 11) and state[2] == []


def test_names_in_saved_files():
    net = TransformerDecoder(11, 6, 8, 3, 1, 0.0, use_bias=True)
    assert list(net.blks[0]._children) == ['attention1', 'addnorm1', 'attention2', 'addnorm2',
                                           'ffn', 'addnorm3']
    assert list(net._children) == ['embedding', 'pos_encoding', 'blks', 'dense']
    assert sorted(net._collect_params_with_prefix()) == sorted(
        ['embedding.weight', 'dense.weight', 'dense.bias'] +
        [f'blks.0.attention{i}.W_{k}.{p}' for i in (1, 2) for k in 'qkvo'
         for p in ('weight', 'bias')] +
        [f'blks.0.addnorm{i}.ln.{p}' for i in (1, 2, 3) for p in ('gamma', 'beta')] +
        [f'blks.0.ffn.dense{i}.{p}' for i in (1, 2) for p in ('weight', 'bias')])
    assert 'blks.0.attention1.W_q.bias' not in decoder()._collect_params_with_prefix()
