"""d2l's dense layer is Gluon's, computed by one kernel."""
import mxnet as mx
import numpy as onp
import pytest
from mxnet import autograd, gluon, init, np
from mxnet.gluon import nn

from d2l import ops
from d2l.nn.attention import MultiHeadAttention
from d2l.nn.dense import Dense

RNG = onp.random.RandomState(0)
ROWS, STEPS = (RNG.standard_normal(s).astype('float32') for s in ((3, 5), (2, 3, 5)))
CASES = [({'units': 4}, ROWS), ({'units': 4}, STEPS), ({'units': 4, 'flatten': False}, STEPS),
         ({'units': 1, 'use_bias': False}, ROWS), ({'units': 4, 'activation': 'softsign'}, ROWS),
         *(({'units': 4, 'activation': name, 'flatten': False}, STEPS)
           for name in ('relu', 'sigmoid', 'tanh'))]
MODES = {'Dense': [(lambda case=case: Dense(**case), [X]) for case, X in CASES]}


def results(layer, X, hybridize):
    """Output, and gradients of input and parameters; the numbers are those of a seed."""
    mx.random.seed(0)
    onp.random.seed(0)
    layer.initialize(init.Normal(0.5))
    X = np.array(X)
    X.attach_grad()
    layer(X)
    if layer.bias is not None:
        layer.bias.set_data(np.arange(layer.bias.shape[0]) - 1)
    if hybridize:
        layer.hybridize()
    with autograd.record():
        y = layer(X)
    y.backward(np.arange(y.size).reshape(y.shape))
    return [y, X.grad, *(p.grad() for p in layer.collect_params().values())]


@pytest.mark.parametrize('arguments, X', CASES)
@pytest.mark.parametrize('hybridize', [False, True])
def test_the_same_as_gluons(arguments, X, hybridize):
    for ours, theirs in zip(results(Dense(**arguments), X, hybridize),
                            results(nn.Dense(**arguments), X, hybridize)):
        assert ours.shape == theirs.shape
        onp.testing.assert_allclose(ours.asnumpy(), theirs.asnumpy(), rtol=1e-5, atol=1e-5)


def test_names_and_files_are_gluons(tmp_path):
    path = str(tmp_path / 'layer')
    ours, theirs = Dense(3, in_units=2), nn.Dense(3, in_units=2)
    assert ours.name.startswith('dense') and isinstance(ours, nn.Dense)
    ours.initialize()
    ours.save_parameters(path)
    theirs.load_parameters(path)
    assert (theirs.weight.data().asnumpy() == ours.weight.data().asnumpy()).all()


@pytest.mark.parametrize('hybridize', [False, True])
def test_the_activation_is_fused_unless_it_is_another(hybridize, monkeypatch):
    """A graph has one node for it; what a reader puts in its place or hooks to it is called."""
    layer = Dense(3, activation='relu', in_units=5)
    layer.initialize()
    assert 'Activation' not in layer(mx.sym.var('X').as_np_ndarray()).tojson()
    called = []
    layer.act.register_forward_hook(lambda *args: called.append(1))
    if hybridize:
        layer.hybridize()
    y = layer(np.array(ROWS))
    assert called and (y >= 0).all()


def test_legacy_arrays():
    layer = Dense(4, in_units=15)
    layer.initialize(init.One())
    with mx.util.np_array(False), mx.util.np_shape(False):
        y = layer(mx.nd.array(STEPS))
    onp.testing.assert_allclose(y.asnumpy(), onp.repeat(STEPS.reshape(2, 15).sum(1)[:, None], 4, 1),
                                rtol=1e-5)


def test_the_blocks_use_it():
    attention = MultiHeadAttention(4, 2, 0.0)
    assert type(attention.W_q) is Dense
    attention.initialize()
    X = np.array(RNG.standard_normal((2, 3, 4)), 'float32')
    with ops.composed():
        want = attention(X, X, X)
    onp.testing.assert_allclose(attention(X, X, X).asnumpy(), want.asnumpy(), rtol=1e-4, atol=1e-5)


def test_wrong_shapes_are_refused():
    layer = Dense(4, in_units=7, flatten=False)
    layer.initialize()
    message = r'dense: weight must have shape \(4, 5\), got \(4, 7\)'
    with pytest.raises(mx.MXNetError, match=message):
        layer(np.array(ROWS))
    assert isinstance(layer, gluon.HybridBlock)
