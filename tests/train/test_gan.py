import mxnet as mx
import numpy as onp
import pytest
from mxnet import autograd, gluon, init, np, npx
from mxnet.gluon import nn

from d2l.data.arrays import load_array
from d2l.train.gan import update_D, update_G

LOSS = gluon.loss.SigmoidBCELoss()


def nets(lr=0.05, lr_g=0.005):
    mx.random.seed(1)
    net_D = nn.Sequential()
    net_D.add(nn.Dense(5, activation='tanh', in_units=2),
              nn.Dense(3, activation='tanh', in_units=5), nn.Dense(1, in_units=3))
    net_G = nn.Dense(2, in_units=2)
    for net in (net_D, net_G):
        net.initialize(init.Normal(0.1), force_reinit=True)
    return net_D, net_G, *[gluon.Trainer(net.collect_params(), 'adam', {'learning_rate': rate})
                           for net, rate in ((net_D, lr), (net_G, lr_g))]


def values(net):
    return [param.data().asnumpy() for param in net.collect_params().values()]


def same(before, after):
    return [onp.array_equal(a, b) for a, b in zip(before, after)]


def softplus(x):
    return onp.log1p(onp.exp(x.astype('float64')))


def test_update_D():
    net_D, net_G, trainer_D, _ = nets()
    X, Z = np.random.normal(size=(6, 2)), np.random.normal(size=(6, 2))
    real, fake = net_D(X).asnumpy(), net_D(net_G(Z)).asnumpy()
    before_D, before_G = values(net_D), values(net_G)
    total = update_D(X, Z, net_D, net_G, LOSS, trainer_D)
    assert type(total) is float
    onp.testing.assert_allclose(total, (softplus(-real) + softplus(fake)).sum() / 2, rtol=1e-5)
    assert not any(same(before_D, values(net_D))) and all(same(before_G, values(net_G)))
    assert not any(param.grad().asnumpy().any() for param in net_G.collect_params().values())


def test_update_G():
    net_D, net_G, _, trainer_G = nets()
    Z = np.random.normal(size=(6, 2))
    fake = net_D(net_G(Z)).asnumpy()
    before_D, before_G = values(net_D), values(net_G)
    total = update_G(Z, net_D, net_G, LOSS, trainer_G)
    assert type(total) is float
    onp.testing.assert_allclose(total, softplus(-fake).sum(), rtol=1e-5)
    assert all(same(before_D, values(net_D))) and not any(same(before_G, values(net_G)))


class Generator(nn.HybridBlock):
    """Sees whether it is recorded and in train mode."""

    def __init__(self):
        super().__init__()
        self.dense, self.norm, self.modes = nn.Dense(2, in_units=2), nn.BatchNorm(in_channels=2), []

    def forward(self, Z):
        self.modes.append((autograd.is_recording(), autograd.is_training()))
        return self.norm(self.dense(Z))


def log_loss(y_hat, label):
    """-log p(label), of the logits y_hat."""
    return npx.activation(y_hat if label == 0 else -y_hat, 'softrelu')


@pytest.mark.parametrize('device', [mx.cpu(0), mx.cpu(1)])
def test_steps_are_those_of_gradient_descent_on_the_mean_loss(device):
    """Two steps of both, with SGD, whose steps are as long as the gradients, written out here."""
    mx.random.seed(1)
    net_D, net_G = nn.Dense(1, in_units=2), Generator()
    for net in (net_D, net_G):
        net.initialize(init.Normal(0.5), ctx=device)
    trainers = [gluon.Trainer(net.collect_params(), 'sgd', {'learning_rate': 0.5})
                for net in (net_D, net_G)]
    X, Z = (np.random.normal(size=(6, 2), ctx=device) for _ in range(2))

    def loss(y_hat, y):
        assert y.shape == (6,) and y.ctx == y_hat.ctx == device
        return LOSS(y_hat, y)
    for step in range(4):
        net, of_D = (net_D, True) if step % 2 == 0 else (net_G, False)
        params = [param for param in net.collect_params().values() if param.grad_req != 'null']
        with autograd.record():
            fake = log_loss(net_D(net_G(Z)), 0 if of_D else 1)
            l = ((log_loss(net_D(X), 1) + fake) / 2 if of_D else fake).mean()
        l.backward()
        expected = [(param.data() - 0.5 * param.grad()).asnumpy() for param in params]
        total = (update_D(X, Z, net_D, net_G, loss, trainers[0]) if of_D
                 else update_G(Z, net_D, net_G, loss, trainers[1]))
        assert total == pytest.approx(6 * l.item(), rel=1e-5)
        for param, value in zip(params, expected):
            onp.testing.assert_allclose(param.data().asnumpy(), value, rtol=1e-4, atol=1e-6)
        # BatchNorm works as in training; what needs no gradients is not recorded.
        assert net_G.modes[-1] == (not of_D, True)


def test_other_lengths():
    net_D, net_G, trainer_D, _ = nets()
    with pytest.raises(ValueError, match='update_D: X and Z must be equally long, got 3 and 2'):
        update_D(np.ones((3, 2)), np.ones((2, 2)), net_D, net_G, LOSS, trainer_D)


@pytest.mark.slow
def test_it_learns_a_gaussian():
    """The data of the book: mean and covariance end at less than half the distance they began."""
    net_D, net_G, trainer_D, trainer_G = nets()
    A, b = onp.array([[1, 2], [-0.1, 0.5]]), onp.array([1, 2])
    X = onp.random.RandomState(0).normal(size=(1000, 2)) @ A + b

    def distances():
        fake = net_G(np.random.normal(size=(2000, 2))).asnumpy()
        return (onp.abs(fake.mean(axis=0) - b).max(), onp.abs(onp.cov(fake.T) - A.T @ A).max())
    before = distances()
    data = load_array((X.astype('float32'),), 8)
    for _ in range(10):
        for batch in data:
            Z = np.random.normal(size=batch.shape)
            update_D(batch, Z, net_D, net_G, LOSS, trainer_D)
            update_G(Z, net_D, net_G, LOSS, trainer_G)
    after = distances()
    assert after[0] < before[0] / 2 and after[1] < before[1] / 2, (before, after)
