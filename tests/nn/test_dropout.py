"""Dropout as a block: Gluon's constructor and results, in every mode."""
import mxnet as mx
import numpy as onp
import pytest
from mxnet import autograd, gluon, np
from mxnet.base import MXNetError

from d2l.nn import Dropout
from d2l.nn.dropout import dropped

X = onp.random.RandomState(0).normal(size=(3, 5, 6)).astype('float32')
# Rates above 0 drop other entries in every run; test_modes_with_the_same_seed has those.
MODES = {'Dropout': [(lambda: Dropout(0.0), [X]), (lambda: Dropout(0), [X])]}


def trained(block, x, seed=1):
    mx.random.seed(seed)
    x.attach_grad()
    with autograd.record():
        y = block(x)
    y.backward()
    return y.asnumpy(), x.grad.asnumpy()


@pytest.mark.parametrize('flags', [{}, {'static_alloc': True, 'static_shape': True}])
def test_modes_with_the_same_seed(flags):
    block, x = Dropout(0.3), np.array(X)
    y, dx = trained(block, x)
    block.hybridize(**flags)
    block(x)
    y_hybrid, dx_hybrid = trained(block, x)
    assert onp.array_equal(y, y_hybrid) and onp.array_equal(dx, dx_hybrid)
    assert not onp.array_equal(y, trained(block, x, seed=2)[0])
    assert (block(x) == x).all()


def test_rate():
    y, dx = trained(Dropout(0.25), np.ones((300, 400)))
    assert set(onp.unique(y)) == {0, onp.float32(4 / 3)} and onp.array_equal(y, dx)
    assert abs((y == 0).mean() - 0.25) < 5 * (0.25 * 0.75 / y.size) ** 0.5


def test_axes_share_a_mask():
    y, _ = trained(Dropout(0.5, axes=(1,)), np.ones((40, 7, 30)))
    assert (y == y[:, :1]).all() and 0.4 < y[:, 0].mean() / 2 < 0.6


def test_is_gluons():
    ours, theirs = Dropout(0.5, axes=(0,), prefix='a_'), gluon.nn.Dropout(0.5, axes=(0,))
    assert isinstance(ours, gluon.nn.Dropout) and repr(ours) == repr(theirs)
    assert ours.prefix == 'a_' and list(ours.collect_params()) == []


def test_in_another_dtype():
    x = np.ones((50, 60), dtype='float16')
    block = Dropout(0.5)
    block.cast('float16')
    assert block(x).dtype == onp.float16 and set(onp.unique(trained(block, x)[0])) == {0, 2}


def test_bad_rate():
    with pytest.raises(MXNetError, match='dropout: p must be a number >= 0 and < 1, got 1'):
        Dropout(1)(np.ones(3))


def test_dropped():
    """Nothing is copied where nothing can be dropped, unless a reader wants to see the call."""
    x, calls = np.ones(3), []
    assert dropped(Dropout(0), x) is x
    y = dropped(gluon.nn.Dropout(0), x)
    assert y is not x and (y == x).all()
    block = Dropout(0)
    block.register_forward_hook(lambda *args: calls.append(1))
    assert (dropped(block, x) == x).all() and calls == [1]
    with autograd.train_mode():
        assert set(onp.unique(dropped(Dropout(0.5), np.ones(1000)).asnumpy())) == {0, 2}
