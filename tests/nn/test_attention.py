"""The attention blocks against loops in float64, and where their masks and weights go."""
import json

import mxnet as mx
import numpy as onp
import pytest
from mxnet import autograd, init, np, npx
from mxnet.gluon import nn

from d2l import ops
from d2l.nn.attention import (
    DotProductAttention,
    MLPAttention,
    MultiHeadAttention,
    masked_softmax,
    transpose_output,
    transpose_qkv,
)
from d2l.nn.dense import Dense

RNG = onp.random.RandomState(0)
QUERY, KEY, VALUE = (RNG.normal(size=shape).astype('float32')
                     for shape in ((3, 4, 6), (3, 5, 6), (3, 5, 7)))
SELF = RNG.normal(size=(3, 4, 5)).astype('float32')
LENGTHS = {'none': None, 'batch': onp.array([5, 2, 1], 'float32'),
           'queries': RNG.randint(1, 6, size=(3, 4)).astype('int32')}
MODES = {
    'DotProductAttention': [(lambda: DotProductAttention(0.0), [QUERY, KEY, VALUE, lengths])
                            for lengths in LENGTHS.values()],
    'MLPAttention': [(lambda: MLPAttention(8, 0.0), [QUERY, KEY, VALUE, lengths])
                     for lengths in LENGTHS.values()],
    'MultiHeadAttention': [(lambda: MultiHeadAttention(6, 3, 0.0), [QUERY, KEY, VALUE, lengths])
                           for lengths in LENGTHS.values()] +
                          [(lambda: MultiHeadAttention(4, 2, 0.0, use_bias=True),
                            [SELF, SELF, SELF])]}


def softmax(scores, count):
    """Softmax of the first count scores, 0 for the others."""
    e = onp.exp(scores[:count] - scores[:count].max())
    return onp.concatenate([e / e.sum(), onp.zeros(len(scores) - count)])


def attend(score, query, key, value, lengths):
    """(output, weights) by one query at a time; score(q, k) of two vectors, in float64."""
    query, key, value = (onp.asarray(a, 'float64') for a in (query, key, value))
    weights = onp.zeros((len(query), query.shape[1], key.shape[1]))
    for b, i in onp.ndindex(weights.shape[:2]):
        count = key.shape[1] if lengths is None else int(
            lengths[b] if lengths.ndim == 1 else lengths[b, i])
        weights[b, i] = softmax(onp.array([score(query[b, i], k) for k in key[b]]), count)
    return weights @ value, weights


def upload(*arrays):
    return [None if a is None else np.array(a, dtype=a.dtype) for a in arrays]


@pytest.mark.parametrize('keep', [False, True])
@pytest.mark.parametrize('lengths', LENGTHS.values(), ids=LENGTHS)
def test_dot_product(lengths, keep):
    attention = DotProductAttention(0.5, keep_weights=keep)
    attention.initialize()
    output = attention(*upload(QUERY, KEY, VALUE, lengths))
    expected, weights = attend(lambda q, k: q @ k / 6 ** 0.5, QUERY, KEY, VALUE, lengths)
    onp.testing.assert_allclose(output.asnumpy(), expected, rtol=1e-5, atol=1e-6)
    if keep:
        onp.testing.assert_allclose(attention.attention_weights.asnumpy(), weights, atol=1e-6)


@pytest.mark.parametrize('keep', [False, True])
@pytest.mark.parametrize('lengths', LENGTHS.values(), ids=LENGTHS)
def test_additive(lengths, keep):
    attention = MLPAttention(8, 0.5, keep_weights=keep)
    attention.initialize()
    output = attention(*upload(QUERY, KEY, VALUE, lengths))
    W_q, W_k, v = (p.weight.data().asnumpy() for p in (attention.W_q, attention.W_k, attention.v))
    expected, weights = attend(lambda q, k: (v @ onp.tanh(W_q @ q + W_k @ k)).item(),
                               QUERY, KEY, VALUE, lengths)
    onp.testing.assert_allclose(output.asnumpy(), expected, rtol=1e-5, atol=1e-6)
    if keep:
        onp.testing.assert_allclose(attention.attention_weights.asnumpy(), weights, atol=1e-6)


@pytest.mark.parametrize('hybridize', [False, True])
def test_additive_draws_and_learns_the_same_with_and_without_weights_to_look_at(hybridize):
    """The same parameters from the same seed, and the same gradients, by operator and by parts."""
    def gradients(keep_weights):
        npx.random.seed(3)
        attention = MLPAttention(8, 0.0, keep_weights=keep_weights)
        attention.initialize(init.Normal(1))
        if hybridize:
            attention.hybridize()
        with autograd.record():
            output = attention(*upload(QUERY, KEY, VALUE, LENGTHS['batch']))
        output.backward()
        parameters = attention._collect_params_with_prefix()
        assert parameters['v.weight'].shape == (1, 8)
        return [output] + [part for name in sorted(parameters) for part in (
            parameters[name].data(), parameters[name].grad())]
    for got, expected in zip(gradients(False), gradients(True)):
        assert abs(expected).max() > 1e-3
        onp.testing.assert_allclose(got.asnumpy(), expected.asnumpy(), rtol=1e-4, atol=1e-5)


def test_additive_keeps_what_a_reader_puts_in_the_place_of_v():
    attention = MLPAttention(8, 0.0)
    attention.v = nn.Dense(1, use_bias=False, flatten=False, activation='relu')
    attention.initialize(init.Normal(1))
    output = attention(*upload(QUERY, KEY, VALUE))
    W_q, W_k, v = (p.weight.data().asnumpy() for p in (attention.W_q, attention.W_k, attention.v))
    expected, _ = attend(lambda q, k: max(0, (v @ onp.tanh(W_q @ q + W_k @ k)).item()),
                         QUERY, KEY, VALUE, None)
    onp.testing.assert_allclose(output.asnumpy(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('lengths', LENGTHS.values(), ids=LENGTHS)
def test_multi_head(lengths):
    """Each head by itself: the original gave an example the lengths of another one."""
    heads, attention = 3, MultiHeadAttention(6, 3, 0.5)
    attention.initialize()
    output = attention(*upload(QUERY, KEY, VALUE, lengths))
    attention.attention.keep_weights = True
    weighed = attention(*upload(QUERY, KEY, VALUE, lengths))
    query, key, value = (a @ p.weight.data().asnumpy().T for a, p in zip(
        (QUERY, KEY, VALUE), (attention.W_q, attention.W_k, attention.W_v)))
    parts, kept = [], attention.attention.attention_weights.asnumpy().reshape(3, heads, 4, 5)
    for h in range(heads):
        columns = slice(2 * h, 2 * h + 2)
        part, weights = attend(lambda q, k: q @ k / 2 ** 0.5, query[..., columns],
                               key[..., columns], value[..., columns], lengths)
        parts.append(part)
        onp.testing.assert_allclose(kept[:, h], weights, atol=1e-6)
    expected = onp.concatenate(parts, axis=-1) @ attention.W_o.weight.data().asnumpy().T
    for y in (output, weighed):
        onp.testing.assert_allclose(y.asnumpy(), expected, rtol=1e-4, atol=1e-6)


def test_tokens_beyond_an_examples_length_have_no_influence():
    """Facts: in the original, changing them changed example 0 by 1.8."""
    attention = MultiHeadAttention(6, 2, 0.0)
    attention.initialize()
    key, lengths = KEY.copy(), np.array([2, 5, 5])
    before = attention(*upload(QUERY, key, VALUE), lengths)
    key[0, 2:] += 100
    after = attention(*upload(QUERY, key, VALUE), lengths)
    assert (before == after).all()


@pytest.mark.parametrize('block', [DotProductAttention(0.0), MultiHeadAttention(6, 2, 0.0)])
def test_one_hybridized_block_takes_every_kind_of_lengths(block):
    block.initialize()
    expected = [block(*upload(QUERY, KEY, VALUE, lengths)) for lengths in LENGTHS.values()]
    block.hybridize()
    for _ in range(2):
        for lengths, y in zip(LENGTHS.values(), expected):
            again = block(*upload(QUERY, KEY, VALUE, lengths))
            onp.testing.assert_allclose(again.asnumpy(), y.asnumpy(), rtol=1e-5, atol=1e-6)


def test_weights_are_kept_only_when_asked():
    attention = DotProductAttention(0.0)
    attention(*upload(QUERY, KEY, VALUE))
    assert attention.attention_weights is None
    attention.keep_weights = True
    attention(*upload(QUERY, KEY, VALUE))
    assert attention.attention_weights.shape == (3, 4, 5)


def test_dropout_acts_on_the_weights():
    attention = DotProductAttention(0.5)
    query, key, value = upload(QUERY, KEY, onp.ones_like(VALUE))
    with autograd.train_mode():
        y = attention(query, key, value).asnumpy()
    # A sum of weights that are dropped or doubled.
    assert (onp.abs(y - 1) > 1e-3).any()
    assert (attention(query, key, value).asnumpy() == pytest.approx(1))


def test_composed_body_gives_the_same():
    attention = MultiHeadAttention(6, 3, 0.0)
    attention.initialize()
    for lengths in LENGTHS.values():
        arrays = upload(QUERY, KEY, VALUE, lengths)
        y = attention(*arrays)
        with ops.composed():
            onp.testing.assert_allclose(attention(*arrays).asnumpy(), y.asnumpy(), rtol=1e-5,
                                        atol=1e-6)


def test_heads_are_folded_into_the_batch():
    X = np.arange(2 * 3 * 4).reshape(2, 3, 4)
    folded = transpose_qkv(X, 2)
    assert folded.shape == (4, 3, 2)
    for b in range(2):
        for head in range(2):
            assert (folded[2 * b + head] == X[b, :, 2 * head:2 * head + 2]).all()
    assert (transpose_output(folded, 2) == X).all()


def test_masked_softmax_of_the_book():
    y = masked_softmax(np.random.uniform(size=(2, 2, 4)), np.array([2, 3]))
    assert (y[0, :, 2:] == 0).all() and (y[1, :, 3:] == 0).all()
    onp.testing.assert_allclose(y.sum(axis=-1).asnumpy(), 1, rtol=1e-6)


@pytest.mark.parametrize('num_hiddens, num_heads', [(6, 4), (5, 2), (6, 0)])
def test_heads_must_divide_the_hidden_units(num_hiddens, num_heads):
    with pytest.raises(ValueError, match='MultiHeadAttention: num_heads must divide num_hiddens'):
        MultiHeadAttention(num_hiddens, num_heads, 0.0)


def test_names_of_parameters():
    assert list(MultiHeadAttention(4, 2, 0.0)._collect_params_with_prefix()) == [
        'W_q.weight', 'W_k.weight', 'W_v.weight', 'W_o.weight']
    assert set(MLPAttention(4, 0.0)._collect_params_with_prefix()) == {
        'W_k.weight', 'W_q.weight', 'v.weight'}


@pytest.mark.parametrize('hybridize', [False, True])
@pytest.mark.parametrize('use_bias', [False, True])
def test_layers_of_one_operator_are_those_of_gluon(use_bias, hybridize, monkeypatch):
    """To what attends to itself and to others; shapes and parameters come with the first call."""
    def run(layer, given):
        npx.random.seed(3)
        monkeypatch.setattr('d2l.nn.attention.Dense', layer)
        attention = MultiHeadAttention(4, 2, 0.0, use_bias=use_bias)
        assert type(attention.W_k) is layer
        attention.initialize(init.Normal(1))
        if hybridize:
            attention.hybridize()
        arrays = upload(*given)
        X, key = arrays[0], arrays[-1]
        for array in arrays:
            array.attach_grad()
        with autograd.record():
            output = attention(X, key, key)
        output.backward(np.cos(np.arange(output.size)).reshape(output.shape))
        parameters = attention._collect_params_with_prefix()
        assert len(parameters) == 4 * (1 + use_bias)
        return [output] + [array.grad for array in arrays] + [
            part for name in sorted(parameters)
            for part in (parameters[name].data(), parameters[name].grad())]
    for given in ([SELF], [SELF, QUERY]):
        for got, expected in zip(run(Dense, given), run(nn.Dense, given)):
            assert got.shape == expected.shape
            assert abs(got - expected).max() <= 1e-5 * max(1, abs(expected).max())


def test_a_graph_has_one_node_for_queries_keys_and_values():
    def ops_of(*inputs):
        graph = json.loads(MultiHeadAttention(4, 2, 0.0)(*inputs).tojson())
        names = [node['op'] for node in graph['nodes']]
        return [sum(name.endswith(op) for name in names) for op in ('d2l_multi_dense', 'd2l_dense')]
    X, Y, Z = (mx.sym.var(name).as_np_ndarray() for name in 'XYZ')
    assert ops_of(X, X, X) == [1, 1]
    assert ops_of(X, Y, Y) == [1, 2]
    assert ops_of(X, Y, Z) == [0, 4]


def test_what_is_hooked_to_a_projection_is_called():
    attention, called = MultiHeadAttention(4, 2, 0.0), []
    attention.initialize()
    X, = upload(SELF)
    expected = attention(X, X, X)
    attention.W_k.register_forward_hook(lambda layer, inputs, output: called.append(output.shape))
    onp.testing.assert_allclose(attention(X, X, X).asnumpy(), expected.asnumpy(), rtol=1e-5,
                                atol=1e-6)
    assert called == [(3, 4, 4)]
