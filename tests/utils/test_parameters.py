"""parameters_of finds what collect_params does."""
import pytest
from mxnet import gluon, np
from mxnet.gluon import nn

from d2l.utils.parameters import parameters_of


def nested():
    net = nn.Sequential()
    inner = nn.HybridSequential()
    inner.add(nn.Dense(3), nn.BatchNorm())
    net.add(inner, nn.Dense(2), nn.Flatten())
    return net


def shared():
    net, first = nn.Sequential(), nn.Dense(3, in_units=3)
    net.add(first, nn.Dense(3, in_units=3, params=first.params), first)
    return net


class Own(nn.Block):
    """Parameters that are no attributes, and a choice of what it has."""

    def __init__(self, chooses=False):
        super().__init__()
        self.params.get('more', shape=2)
        self.table = self.params.get_constant('table', np.ones(2))
        self.child, self.chooses = nn.Dense(2), chooses

    def collect_params(self, select=None):
        found = super().collect_params(select)
        return gluon.ParameterDict() if self.chooses else found


def around(block):
    net = nn.Sequential()
    net.add(nn.Dense(1), block)
    return net


@pytest.mark.parametrize('make', [nested, shared, Own, lambda: around(Own(True)), nn.Sequential])
def test_the_same_as_collect_params(make):
    net = make()
    ours, theirs = parameters_of(net), list(net.collect_params().values())
    assert len(ours) == len(theirs) and all(a is b for a, b in zip(ours, theirs))
