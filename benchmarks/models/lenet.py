"""The book's LeNet (section 6.6) on pictures of Fashion-MNIST's size: forward, and a training step.

The step is whole: forward, softmax cross entropy, backward and stochastic gradient descent.  d2l is
our net, whose convolutions are kernels, with d2l_sgd; mxnet the same layers of Gluon's with its
sgd; both are hybridized, the loss, too.  torch is eager, with fused SGD.  All have the same
parameters.
"""
import numpy as onp
from mxnet import autograd, gluon, np, npx
from mxnet.gluon import nn

from benchmarks.calls import check_equal, to_numpy
from benchmarks.run import Case
from d2l.models.vision import lenet
from d2l.train import optimizers  # noqa: F401  (d2l_sgd)

try:
    import torch
    from torch.nn import functional
except ImportError:
    torch = None

SHAPES = [(256, 1, 28, 28)]
CLASSES, LEARNING_RATE = 10, 0.1
STATIC = {'static_alloc': True, 'static_shape': True}


def plain_lenet():
    """As the book writes it."""
    net = nn.HybridSequential()
    net.add(nn.Conv2D(channels=6, kernel_size=5, padding=2, activation='sigmoid'),
            nn.AvgPool2D(pool_size=2, strides=2),
            nn.Conv2D(channels=16, kernel_size=5, activation='sigmoid'),
            nn.AvgPool2D(pool_size=2, strides=2),
            nn.Dense(120, activation='sigmoid'), nn.Dense(84, activation='sigmoid'),
            nn.Dense(CLASSES))
    return net


def initialized(net, X, values=None):
    """The net, hybridized, with the numbers of values, or what Xavier gives; its parameters."""
    net.initialize(init='xavier')
    net(np.array(X))
    parameters = list(net.collect_params().values())
    for parameter, value in zip(parameters, values or ()):
        parameter.set_data(np.array(value))
    net.hybridize(**STATIC)
    return net, parameters


def forward_provider(net, X):
    X = np.array(X)
    return lambda: [net(X)]


def train_provider(net, parameters, X, y, optimizer):
    X, y = np.array(X), np.array(y)
    loss = gluon.loss.SoftmaxCrossEntropyLoss()
    loss.hybridize(**STATIC)
    trainer = gluon.Trainer(net.collect_params(), optimizer, {'learning_rate': LEARNING_RATE})

    def step():
        with autograd.record():
            l = loss(net(X), y)
        l.backward()
        trainer.step(len(X))
        return [l] + [p.grad() for p in parameters]
    return step


def torch_lenet(X, parameters):
    W1, b1, W2, b2, W3, b3, W4, b4, W5, b5 = parameters
    X = functional.avg_pool2d(torch.sigmoid(functional.conv2d(X, W1, b1, padding=2)), 2)
    X = functional.avg_pool2d(torch.sigmoid(functional.conv2d(X, W2, b2)), 2)
    X = torch.sigmoid(functional.linear(X.flatten(1), W3, b3))
    return functional.linear(torch.sigmoid(functional.linear(X, W4, b4)), W5, b5)


def torch_provider(values, X, y, train):
    parameters = [torch.tensor(a, requires_grad=True) for a in values]
    X, y = torch.tensor(X), torch.tensor(y)
    optimizer = torch.optim.SGD(parameters, LEARNING_RATE, fused=True)

    def forward():
        with torch.inference_mode():
            return [torch_lenet(X, parameters)]

    def step():
        optimizer.zero_grad()
        l = functional.cross_entropy(torch_lenet(X, parameters), y, reduction='none')
        l.mean().backward()
        optimizer.step()
        # MXNet's trainer divides by the number of examples, PyTorch's loss.
        return [l.detach()] + [p.grad * len(X) for p in parameters]
    return step if train else forward


def check(results):
    check_equal(to_numpy(results))


def cases():
    npx.random.seed(0)
    rng = onp.random.RandomState(0)
    for shape in SHAPES:
        X = rng.uniform(size=shape).astype('float32')
        y = rng.randint(0, CLASSES, size=len(X))
        for train in (False, True):
            ours, our_parameters = initialized(lenet(CLASSES), X)
            values = [p.data().asnumpy() for p in our_parameters]
            plain, plain_parameters = initialized(plain_lenet(), X, values)
            providers = {
                'd2l': train_provider(ours, our_parameters, X, y, 'd2l_sgd'),
                'mxnet': train_provider(plain, plain_parameters, X, y, 'sgd'),
            } if train else {
                'd2l': forward_provider(ours, X), 'mxnet': forward_provider(plain, X)}
            if torch is not None:
                providers['torch'] = torch_provider(values, X, y, train)
            yield Case(f'{"train" if train else "forward"} batch {len(X)}', providers, check)
