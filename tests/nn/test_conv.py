import numpy as onp
import pytest
from mxnet import autograd, gluon, init, np
from mxnet.gluon import nn

from d2l import ops
from d2l.nn.conv import Conv2D, Residual, conv2d_kernels, corr2d


def corr2d_by_loop(X, K):
    """The definition, one output element at a time, in float64."""
    h, w = K.shape
    Y = onp.zeros((X.shape[0] - h + 1, X.shape[1] - w + 1))
    for i in range(Y.shape[0]):
        for j in range(Y.shape[1]):
            Y[i, j] = (X[i:i + h, j:j + w].astype('float64') * K).sum()
    return Y


@pytest.mark.parametrize('shape, kernel', [
    ((3, 3), (2, 2)), ((6, 8), (1, 2)), ((8, 6), (2, 1)), ((1, 1), (1, 1)), ((7, 5), (7, 5)),
    ((9, 31), (3, 5)), ((33, 4), (4, 1))])
@pytest.mark.parametrize('dtype', ['float32', 'float64'])
def test_corr2d(shape, kernel, dtype):
    rng = onp.random.RandomState(0)
    X, K = rng.normal(size=shape).astype(dtype), rng.normal(size=kernel).astype(dtype)
    Y = corr2d(np.array(X, dtype=dtype), np.array(K, dtype=dtype))
    assert Y.dtype == X.dtype
    rtol = 1e-5 if dtype == 'float32' else 1e-12
    onp.testing.assert_allclose(Y.asnumpy(), corr2d_by_loop(X, K), rtol=rtol, atol=rtol)


def test_corr2d_of_the_book():
    X, K = np.arange(9).reshape(3, 3), np.arange(4).reshape(2, 2)
    assert corr2d(X, K).tolist() == [[19, 25], [37, 43]]


def test_corr2d_gradients():
    """The function is linear in X and in K, so differences are exact but for rounding."""
    rng = onp.random.RandomState(1)
    X, K = rng.normal(size=(5, 6)), rng.normal(size=(2, 3))
    weight = rng.normal(size=(4, 4))
    x, k = np.array(X, dtype='float64'), np.array(K, dtype='float64')
    x.attach_grad()
    k.attach_grad()
    with autograd.record():
        y = (corr2d(x, k) * np.array(weight, dtype='float64')).sum()
    y.backward()

    def expected(array, other, place):
        grad = onp.zeros_like(array)
        for index in onp.ndindex(*array.shape):
            unit = onp.zeros_like(array)
            unit[index] = 1
            pair = (unit, other) if place == 0 else (other, unit)
            grad[index] = (corr2d_by_loop(*pair) * weight).sum()
        return grad
    onp.testing.assert_allclose(x.grad.asnumpy(), expected(X, K, 0), rtol=1e-12, atol=1e-12)
    onp.testing.assert_allclose(k.grad.asnumpy(), expected(K, X, 1), rtol=1e-12, atol=1e-12)


def test_corr2d_learns_a_kernel():
    """The edge detector of section 6.2, learned through corr2d itself."""
    X = np.ones((6, 8))
    X[:, 2:6] = 0
    Y = corr2d(X, np.array([[1.0, -1.0]]))
    kernel = np.zeros((1, 2))
    kernel.attach_grad()
    for _ in range(50):
        with autograd.record():
            loss = ((corr2d(X, kernel) - Y) ** 2).sum()
        loss.backward()
        kernel -= 0.02 * kernel.grad
    onp.testing.assert_allclose(kernel.asnumpy(), [[1, -1]], atol=1e-2)


@pytest.mark.parametrize('shape, kernel, message', [
    ((3, 3, 3), (2, 2), r'X and K must have two axes, got the shapes \(3, 3, 3\) and \(2, 2\)'),
    ((3, 3), (2,), 'X and K must have two axes'),
    ((3, 3), (4, 1), r'K must fit into X, got .*\(4, 1\)'),
    ((3, 3), (1, 4), 'K must fit into X'), ((3, 3), (0, 1), 'K must fit into X')])
def test_corr2d_refuses(shape, kernel, message):
    with pytest.raises(ValueError, match='corr2d: ' + message):
        corr2d(np.zeros(shape), np.zeros(kernel))


class PlainResidual(nn.Block):
    """The block by its definition, with the attributes of the book's block."""

    def __init__(self, num_channels, use_1x1conv=False, strides=1):
        super().__init__()
        self.conv1 = nn.Conv2D(num_channels, 3, strides=strides, padding=1)
        self.conv2 = nn.Conv2D(num_channels, 3, padding=1)
        self.conv3 = nn.Conv2D(num_channels, 1, strides=strides) if use_1x1conv else None
        self.bn1 = nn.BatchNorm()
        self.bn2 = nn.BatchNorm()

    def forward(self, X):
        Y = self.bn2(self.conv2(np.maximum(self.bn1(self.conv1(X)), 0)))
        return np.maximum(Y + (X if self.conv3 is None else self.conv3(X)), 0)


CASES = [(3, False, 1), (6, True, 2), (4, True, 1), (5, True, (2, 1))]
X = onp.random.RandomState(2).normal(size=(4, 3, 7, 6)).astype('float32')
FEW = [{'channels': 5, 'kernel_size': 3, 'padding': 1},
       {'channels': 16, 'kernel_size': 5, 'padding': 2, 'activation': 'sigmoid'},
       {'channels': 1, 'kernel_size': (2, 2), 'activation': 'relu', 'use_bias': False},
       {'channels': 2, 'kernel_size': 1, 'activation': 'softsign'}]
MODES = {'Residual': [(lambda case=case: Residual(*case), [X]) for case in CASES],
         'Conv2D': [(lambda case=case: Conv2D(**case), [X]) for case in FEW]}


def input_of():
    return np.array(X)


OTHERS = [{'channels': 5, 'kernel_size': 3, 'strides': 2}, {'channels': 5, 'kernel_size': (1, 3)},
          {'channels': 5, 'kernel_size': 3, 'padding': (1, 0)}, {'channels': 17, 'kernel_size': 5},
          {'channels': 5, 'kernel_size': 2, 'padding': 2}, {'channels': 16, 'kernel_size': 3},
          {'channels': 6, 'kernel_size': 3, 'groups': 3},
          {'channels': 5, 'kernel_size': 2, 'dilation': 2, 'activation': 'tanh'}]


def test_conv2d_is_that_of_gluon():
    for arguments in FEW + OTHERS:
        plain = nn.Conv2D(**arguments)
        plain.initialize(init=init.Xavier())
        plain(input_of())
        block = Conv2D(params=plain.collect_params(), prefix=plain.prefix, **arguments)
        results = []
        for net in (plain, block):
            x = input_of()
            x.attach_grad()
            with autograd.record():
                y = net(x)
            y.backward()
            results.append([y, x.grad] + [p.grad().copy() for p in net.collect_params().values()])
        for expected, result in zip(*results):
            onp.testing.assert_allclose(result.asnumpy(), expected.asnumpy(), rtol=1e-4, atol=1e-5,
                                        err_msg=str(arguments))
        assert repr(block) == repr(plain)


@pytest.mark.parametrize('arguments, ours', [(a, True) for a in FEW] + [(a, False) for a in OTHERS])
def test_conv2d_is_a_kernel_where_it_is_faster(arguments, ours):
    block = Conv2D(**arguments)
    block.initialize()
    block.hybridize()
    block(input_of())
    graph = block._cached_graph[1].tojson()
    assert ('_npx_d2l_conv2d' in graph) == (ours and 'conv2d' in ops.available())


def test_kernels_in_the_layers_of_gluon():
    class Own(nn.Conv2D):
        pass
    net, compiled, inner = nn.Sequential(), nn.HybridSequential(), nn.HybridSequential()
    inner.add(nn.Conv2D(3, 1))
    compiled.add(nn.Conv2D(3, 1))
    compiled.hybridize()
    net.add(nn.Conv2D(4, 3, activation='relu'), inner, compiled, Own(2, 1))
    layers = [net[0], inner[0], compiled[0], net[3]]
    before = [type(layer) for layer in layers]
    net.initialize(init=init.Xavier())
    expected = net(input_of()).asnumpy()
    with pytest.raises(KeyError), conv2d_kernels(net):
        assert [type(layer) for layer in layers] == [Conv2D, Conv2D, nn.Conv2D, Own]
        onp.testing.assert_allclose(net(input_of()).asnumpy(), expected, rtol=1e-5, atol=1e-5)
        raise KeyError
    assert [type(layer) for layer in layers] == before


@pytest.mark.parametrize('case', CASES)
@pytest.mark.parametrize('mode', ['imperative', 'hybrid', 'static'])
def test_residual(case, mode, tmp_path):
    plain, block = PlainResidual(*case), Residual(*case)
    plain.initialize(init=init.Xavier())
    X = input_of()
    plain(X)
    # Files move between the book's block and this one.
    plain.save_parameters(str(tmp_path / 'plain.params'))
    block.load_parameters(str(tmp_path / 'plain.params'))
    if mode != 'imperative':
        block.hybridize(static_alloc=mode == 'static', static_shape=mode == 'static')
    results = []
    for net in (plain, block):
        for _ in range(2):
            x = X.copy()
            x.attach_grad()
            with autograd.record():
                y = net(x)
            y.backward()
        results.append([y, x.grad, net.conv1.weight.grad(), net.bn2.gamma.grad(),
                        net.bn1.running_mean.data(), net(X)])
    for expected, result in zip(*results):
        onp.testing.assert_allclose(result.asnumpy(), expected.asnumpy(), rtol=1e-4, atol=1e-5)
    block.save_parameters(str(tmp_path / 'block.params'))
    plain.load_parameters(str(tmp_path / 'block.params'))


def test_residual_shapes():
    X = np.zeros((4, 3, 6, 6))
    for args, shape in [((3,), (4, 3, 6, 6)), ((6, True, 2), (4, 6, 3, 3))]:
        block = Residual(*args)
        block.initialize()
        assert block(X).shape == shape


def test_residual_names():
    block = Residual(4, use_1x1conv=True, prefix='first_')
    assert block.prefix == 'first_'
    assert list(block._collect_params_with_prefix()) == [
        'conv1.weight', 'conv1.bias', 'conv2.weight', 'conv2.bias', 'conv3.weight', 'conv3.bias',
        'bn1.gamma', 'bn1.beta', 'bn1.running_mean', 'bn1.running_var',
        'bn2.gamma', 'bn2.beta', 'bn2.running_mean', 'bn2.running_var']
    assert Residual(4).conv3 is None


@pytest.mark.parametrize('case', CASES)
def test_residual_export(case, tmp_path):
    net = nn.HybridSequential()
    net.add(Residual(*case), Residual(*case[:1]), nn.GlobalAvgPool2D(), nn.Dense(2))
    net.initialize(init=init.Xavier())
    net.hybridize()
    X = input_of()
    with autograd.record():
        net(X)
    expected = net(X)
    net.export(str(tmp_path / 'net'))
    again = gluon.SymbolBlock.imports(str(tmp_path / 'net-symbol.json'), ['data'],
                                      str(tmp_path / 'net-0000.params'))
    onp.testing.assert_allclose(again(X).asnumpy(), expected.asnumpy(), rtol=1e-5, atol=1e-6)


def test_residual_in_a_plain_sequential():
    net = nn.Sequential()
    net.add(Residual(3), Residual(4, use_1x1conv=True, strides=2))
    net.initialize()
    assert net(np.zeros((2, 3, 8, 8))).shape == (2, 4, 4, 4)
