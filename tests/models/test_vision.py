import contextlib
import functools

import numpy as onp
import pytest
from mxnet import autograd, gluon, init, np, npx
from mxnet.gluon import nn

from d2l import ops
from d2l.deploy.export import export_model, load_model
from d2l.models.vision import lenet, resnet18
from d2l.nn.conv import Residual
from d2l.testing import check_block
from d2l.train.optimizers import fused

X = onp.random.RandomState(0).uniform(size=(3, 1, 28, 28)).astype('float32')

# Rows of tests/nn/test_modes.py.
MODES = {
    'lenet': [(functools.partial(lenet, 7, activation, layer_norm), [X])
              for activation in ('sigmoid', 'relu') for layer_norm in (False, True)],
    # Also sides that do not halve.
    'resnet18': [(functools.partial(resnet18, 7), [X[:, :, :16, :16]]),
                 (functools.partial(resnet18, 3), [X[:2, :, :9, :8]])]}


def test_layers_of_the_book():
    net = lenet()
    net.initialize()
    shapes = []
    x = np.array(X)
    for layer in net:
        x = layer(x)
        shapes.append(x.shape[1:])
    assert shapes == [(6, 28, 28), (6, 14, 14), (16, 10, 10), (16, 5, 5), (120,), (84,), (10,)]
    activations = [layer.act for layer in net if hasattr(layer, 'act') and layer.act is not None]
    assert [act._act_type for act in activations] == ['sigmoid'] * 4
    onp.testing.assert_allclose(net[1](np.array(X)).asnumpy(),
                                X.reshape(3, 1, 14, 2, 14, 2).mean(axis=(3, 5)), rtol=1e-6)


@pytest.mark.parametrize('hybridize', [False, True])
def test_lenet_learns_alike_with_kernels_and_without(hybridize):
    """The same losses from the same seed: 40 steps on 30 pictures, whose labels it learns."""
    rng = onp.random.RandomState(0)
    x = np.array(rng.uniform(size=(30, 1, 28, 28)), dtype='float32')
    y, loss = np.array(onp.arange(30) % 10), gluon.loss.SoftmaxCrossEntropyLoss()
    curves = []
    for scope in (contextlib.nullcontext(), ops.composed()):
        with scope:
            npx.random.seed(1)
            net = lenet(activation='tanh')
            net.initialize(init.Xavier())
            net.hybridize(hybridize)
            trainer = gluon.Trainer(net.collect_params(), fused('adam'), {'learning_rate': 0.005})
            losses = []
            for _ in range(40):
                with autograd.record():
                    l = loss(net(x), y)
                l.backward()
                trainer.step(len(x))
                losses.append(l.mean().item())
            curves.append(losses)
    onp.testing.assert_allclose(*curves, rtol=1e-3, atol=1e-4)
    assert curves[0][-1] < 0.2 * curves[0][0]


def trained_resnet18():
    """With statistics in its BatchNorm layers, as a trained net has them."""
    net = resnet18(7)
    net.initialize(init.Xavier())
    with autograd.train_mode():
        net(np.array(X[:, :, :16, :16]))
    return net


@pytest.mark.parametrize('shape', [(3, 1, 16, 16), (2, 1, 9, 8)])
def test_resnet18_predicts_alike_in_every_mode(shape):
    x = onp.random.RandomState(1).uniform(size=shape).astype('float32')
    y, = check_block(trained_resnet18, [x], train=False)
    assert y.shape == (shape[0], 7)


def test_resnet18_is_exported_and_loaded(tmp_path):
    net = trained_resnet18()
    x = np.array(X[:2, :, :9, :8])
    expected = net(x).asnumpy()
    export_model(net, str(tmp_path / 'resnet18'), x)
    loaded = load_model(str(tmp_path / 'resnet18'))
    onp.testing.assert_allclose(loaded(x).asnumpy(), expected, rtol=1e-4, atol=1e-6)
    larger = np.array(X)
    onp.testing.assert_allclose(loaded(larger).asnumpy(), net(larger).asnumpy(), rtol=1e-4,
                                atol=1e-6)


def test_resnet18_layers_of_the_book():
    net = resnet18(10)
    net.initialize()
    assert [type(layer) for layer in net] == [
        nn.Conv2D, nn.BatchNorm, nn.Activation] + [nn.HybridSequential] * 4 + [
            nn.GlobalAvgPool2D, nn.Dense]
    x, shapes = np.array(X), []
    for layer in net:
        x = layer(x)
        shapes.append(x.shape[1:])
    assert shapes == [(64, 28, 28)] * 4 + [(128, 14, 14), (256, 7, 7), (512, 4, 4), (512, 1, 1),
                                           (10,)]
    for i, stage in enumerate(net[3:7]):
        assert [type(block) for block in stage] == [Residual, Residual]
        assert [block.conv3 is not None for block in stage] == [i > 0, False]


def test_resnet18_takes_parameters_saved_under_the_names_of_the_book(tmp_path):
    net = resnet18(10)
    net.initialize()
    net(np.array(X))
    path = str(tmp_path / 'net.params')
    net.save_parameters(path)
    plain = nn.Sequential()
    plain.add(nn.Conv2D(64, 3, padding=1), nn.BatchNorm(), nn.Activation('relu'))
    for i, channels in enumerate((64, 128, 256, 512)):
        stage = nn.Sequential()
        stage.add(Residual(channels, use_1x1conv=i > 0, strides=2 if i else 1), Residual(channels))
        plain.add(stage)
    plain.add(nn.GlobalAvgPool2D(), nn.Dense(10))
    plain.load_parameters(path)
    onp.testing.assert_array_equal(plain(np.array(X)).asnumpy(), net(np.array(X)).asnumpy())
