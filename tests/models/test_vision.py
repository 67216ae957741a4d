import numpy as onp
import pytest
from mxnet import np

from d2l.models.vision import lenet
from d2l.testing import check_block

X = onp.random.RandomState(0).uniform(size=(3, 1, 28, 28)).astype('float32')


@pytest.mark.parametrize('layer_norm', [False, True])
@pytest.mark.parametrize('activation', ['sigmoid', 'relu'])
def test_modes(activation, layer_norm):
    def make():
        net = lenet(7, activation, layer_norm)
        net.initialize()
        return net
    y, = check_block(make, [X])
    assert y.shape == (3, 7)


def test_layers_of_the_book():
    net = lenet()
    net.initialize()
    shapes = []
    x = np.array(X)
    for layer in net:
        x = layer(x)
        shapes.append(x.shape[1:])
    assert shapes == [(6, 28, 28), (6, 14, 14), (16, 10, 10), (16, 5, 5), (120,), (84,), (10,)]
