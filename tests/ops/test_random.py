"""The seed that operators with dropout get: MXNet's own random state and mode, as data."""
import mxnet as mx
import numpy as onp
import pytest
from mxnet import autograd, gluon, np, npx

from d2l import ops
from d2l.testing import export_and_import

X = np.ones((2, 3))


class Seed(gluon.HybridBlock):
    def hybrid_forward(self, F, x):
        return ops.random_seed(x) + 0 * F.np.sum(x)  # a graph must use its inputs


def drawn(train=True, draw=ops.random_seed):
    with autograd.train_mode() if train else autograd.predict_mode():
        return draw(X).asnumpy()


def test_predict_mode_is_all_ones():
    seed = drawn(train=False)
    assert seed.dtype == 'float32' and seed.tolist() == [1.0] * 64


def test_train_mode_is_zeros_and_twos():
    seeds = onp.stack([drawn() for _ in range(200)])
    assert set(onp.unique(seeds)) == {0.0, 2.0}
    # Each bit is 1 in half of the draws: within 5 standard deviations, of 12800 and of 200 draws.
    assert abs((seeds > 1).mean() - 0.5) < 5 * 0.5 / 12800 ** 0.5
    assert (abs((seeds > 1).mean(axis=0) - 0.5) < 5 * 0.5 / 200 ** 0.5).all()
    assert len({tuple(seed) for seed in seeds}) == 200


def test_recording_without_training_drops_nothing():
    with autograd.record(train_mode=False):
        assert (ops.random_seed(X) == 1).all()
    with autograd.record():
        assert (ops.random_seed(X) != 1).all()


@pytest.mark.parametrize('reseed', [mx.random.seed, npx.random.seed])
def test_follows_the_seed_of_mxnet(reseed):
    first = [reseed(7), drawn(), drawn()][1:]
    again = [reseed(7), drawn(), drawn()][1:]
    other = [reseed(8), drawn(), drawn()][1:]
    assert onp.array_equal(first, again) and not onp.array_equal(first[0], first[1])
    assert not onp.array_equal(first[0], other[0])


@pytest.mark.parametrize('flags', [{}, {'static_alloc': True, 'static_shape': True}])
def test_hybridized(flags):
    block = Seed()
    block.hybridize(**flags)
    for _ in range(2):  # the graph is traced once for both
        assert (drawn(False, block) == 1).all()
        seeds = [drawn(True, block) for _ in range(3)]
        assert all(set(onp.unique(seed)) == {0.0, 2.0} for seed in seeds)
        assert len({tuple(seed) for seed in seeds}) == 3
    mx.random.seed(5)
    compiled = drawn(True, block)
    mx.random.seed(5)
    assert onp.array_equal(compiled, drawn())


def test_exported():
    block = Seed()
    block.hybridize()
    net = export_and_import(block, [X])
    assert (drawn(False, net) == 1).all() and set(onp.unique(drawn(True, net))) == {0.0, 2.0}


def test_is_float32_whatever_the_array_is():
    for like in (np.ones(3, dtype='float16'), np.ones(3, dtype='float64'), np.ones((), 'int32'),
                 np.ones(3).as_nd_ndarray()):
        assert ops.random_seed(like).dtype == onp.float32 and ops.random_seed(like).shape == (64,)
