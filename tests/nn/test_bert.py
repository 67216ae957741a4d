"""BERT: shapes and parts of section 14.8, every mix of optional arguments, saved files."""
import numpy as onp
import pytest
from mxnet import autograd, np

from d2l.nn.bert import BERTEncoder, BERTModel, MaskLM, NextSentencePred

RNG = onp.random.RandomState(0)
TOKENS = RNG.randint(0, 9, size=(3, 5)).astype('int32')
SEGMENTS = onp.array([[0, 0, 1, 1, 1], [0, 1, 1, 0, 0], [0, 0, 0, 0, 0]], 'int32')
POSITIONS = onp.array([[1, 3, 0, 0], [2, 0, 4, 1], [4, 4, 4, 0]], 'int32')
LENGTHS = [None, onp.array([5, 2, 1], 'float32'), RNG.randint(1, 6, size=(3, 5)).astype('int32')]
ENCODED = RNG.normal(size=(3, 5, 6)).astype('float32')
SIZES = (9, 6, 8, 3, 2, 0.0, 7)
MODES = {
    'BERTEncoder': [(lambda: BERTEncoder(*SIZES), [TOKENS, SEGMENTS, lengths])
                    for lengths in LENGTHS],
    'MaskLM': [(lambda: MaskLM(9, 6), [ENCODED, POSITIONS]),
               (lambda: MaskLM(9, 6), [ENCODED, POSITIONS.astype('float32')])],
    'NextSentencePred': [(lambda: NextSentencePred(), [ENCODED])],
    'BERTModel': [(lambda: BERTModel(*SIZES), [TOKENS, SEGMENTS, lengths, positions])
                  for lengths in LENGTHS for positions in (None, POSITIONS)]}


def initialized(block):
    block.initialize()
    return block


def test_encoder_of_the_book():
    encoder = initialized(BERTEncoder(10000, 768, 1024, 4, 2, 0.2))
    tokens = np.random.randint(0, 10000, (2, 8))
    segments = np.array([[0, 0, 0, 0, 1, 1, 1, 1], [0, 0, 0, 1, 1, 1, 1, 1]])
    assert encoder(tokens, segments, None).shape == (2, 8, 768)


def test_encoder_is_its_parts():
    encoder = initialized(BERTEncoder(*SIZES))
    encoder.pos_embedding.set_data(np.random.normal(size=(1, 7, 6)))
    tokens, segments = np.array(TOKENS), np.array(SEGMENTS)
    X = encoder.token_embedding(tokens) + encoder.segment_embedding(segments)
    X = X + encoder.pos_embedding.data()[:, :5]
    for block in encoder.blks:
        X = block(X, None)
    onp.testing.assert_allclose(encoder(tokens, segments, None).asnumpy(), X.asnumpy(), atol=1e-6)


@pytest.mark.parametrize('watched', ['token_embedding', 'segment_embedding'])
def test_one_pass_and_its_parts_are_the_same(watched):
    """A hook must see its block run, so that the encoder then takes the parts."""
    encoder, calls, results = initialized(BERTEncoder(*SIZES)), [], []
    encoder.pos_embedding.set_data(np.random.normal(size=(1, 7, 6)))
    for _ in range(2):
        with autograd.record():
            y = encoder(np.array(TOKENS), np.array(SEGMENTS), np.array(LENGTHS[1]))
        y.backward()
        results.append({name: p.grad().asnumpy() for name, p in encoder.collect_params().items()})
        results[-1]['output'] = y.asnumpy()
        hooked = len(calls)
        getattr(encoder, watched).register_forward_hook(lambda *args: calls.append(args))
    assert hooked == 1 and results[0]['output'].any()
    for name in results[0]:
        onp.testing.assert_allclose(results[0][name], results[1][name], atol=1e-5, err_msg=name)


@pytest.mark.parametrize('hybridize', [False, True])
def test_too_many_steps(hybridize):
    encoder = initialized(BERTEncoder(*SIZES))
    if hybridize:
        encoder.hybridize()
    with pytest.raises(ValueError, match=r'BERTEncoder: tokens must have at most 7 steps .*\(2, 8'):
        encoder(np.zeros((2, 8)), np.zeros((2, 8)), None)


def test_mask_lm_looks_at_the_positions():
    mlm = initialized(MaskLM(9, 6))
    scores = mlm(np.array(ENCODED), np.array(POSITIONS))
    assert scores.shape == (3, 4, 9)
    for b, n in onp.ndindex(3, 4):
        expected = mlm.mlp(np.array(ENCODED[b:b + 1, POSITIONS[b, n]]))
        onp.testing.assert_allclose(scores[b, n].asnumpy(), expected[0].asnumpy(), atol=1e-6)


def test_gradients_of_a_position_predicted_twice_add_up():
    mlm, X = initialized(MaskLM(9, 6)), np.array(ENCODED)
    X.attach_grad()
    grads = []
    for positions in ([[1, 1]], [[1]]):
        with autograd.record():
            y = mlm(X[:1], np.array(positions, dtype='int32'))
        y.backward()
        grads.append(X.grad.asnumpy().copy())
    onp.testing.assert_allclose(grads[0], 2 * grads[1], rtol=1e-5, atol=1e-6)


def test_model_returns_none_without_positions():
    model = initialized(BERTModel(*SIZES))
    arrays = [np.array(TOKENS), np.array(SEGMENTS)]
    for _ in range(2):
        encoded, scores, following = model(*arrays)
        assert encoded.shape == (3, 5, 6) and scores is None and following.shape == (3, 2)
        model.hybridize()
    full = model(*arrays, np.array(LENGTHS[1]), np.array(POSITIONS))
    assert full[1].shape == (3, 4, 9)
    again = model(*arrays, None, None)
    onp.testing.assert_allclose(again[0].asnumpy(), encoded.asnumpy(), atol=1e-6)


def test_model_takes_the_arguments_of_a_block():
    assert BERTModel(*SIZES, prefix='bert_').prefix == 'bert_'


def test_names_in_saved_files():
    block = [f'encoder.blks.0.attention.W_{k}.{p}' for k in 'qkvo' for p in ('weight', 'bias')]
    block += [f'encoder.blks.0.addnorm{i}.ln.{p}' for i in (1, 2) for p in ('gamma', 'beta')]
    block += [f'encoder.blks.0.ffn.dense{i}.{p}' for i in (1, 2) for p in ('weight', 'bias')]
    model = BERTModel(9, 6, 8, 3, 1, 0.0, 7)
    assert sorted(model._collect_params_with_prefix()) == sorted(block + [
        'encoder.token_embedding.weight', 'encoder.segment_embedding.weight',
        'encoder.pos_embedding', 'hidden.weight', 'hidden.bias', 'mlm.mlp.0.weight',
        'mlm.mlp.0.bias', 'mlm.mlp.1.gamma', 'mlm.mlp.1.beta', 'mlm.mlp.2.weight',
        'mlm.mlp.2.bias', 'nsp.output.weight', 'nsp.output.bias'])
    assert model.encoder.pos_embedding.shape == (1, 7, 6)


def test_the_classifier_of_section_15_7_takes_its_parts():
    """A plain Block around encoder and hidden, called with a list of inputs."""
    from mxnet.gluon import nn

    class Classifier(nn.Block):
        def __init__(self, bert):
            super().__init__()
            self.encoder, self.hidden, self.output = bert.encoder, bert.hidden, nn.Dense(3)

        def forward(self, inputs):
            return self.output(self.hidden(self.encoder(*inputs)[:, 0, :]))

    net = initialized(Classifier(BERTModel(*SIZES)))
    arrays = [np.array(TOKENS), np.array(SEGMENTS), np.array(LENGTHS[1])]
    expected = net(arrays)
    net.hybridize()
    onp.testing.assert_allclose(net(arrays).asnumpy(), expected.asnumpy(), atol=1e-6)
