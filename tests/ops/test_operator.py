"""What d2l/ops/_operator.py and _grad_req.py do for every operator, shown on layer_norm."""
import threading

import mxnet as mx
import numpy as onp
import pytest
from mxnet import autograd, gluon, np, npx
from mxnet.base import MXNetError

from d2l import ops
from d2l.ops import _operator
from d2l.testing import OpBlock

MODES = [None, {}, {'static_alloc': True, 'static_shape': True}]


def arrays(rows=4, cols=7):
    rng = onp.random.RandomState(0)
    return [np.array(rng.standard_normal(s), dtype='float32') for s in ((rows, cols), cols, cols)]


def gradients(f, xs, wrt):
    with autograd.record():
        y = f(*xs)
    y.backward(np.arange(y.size).reshape(y.shape))
    return [xs[i].grad.asnumpy().copy() for i in wrt]


@pytest.mark.parametrize('flags', MODES, ids=['imperative', 'hybrid', 'static'])
@pytest.mark.parametrize('consumers', [1, 2, 9, 12])
@pytest.mark.parametrize('grad_req', ['write', 'add'])
def test_gradient_of_a_tensor_with_many_consumers(flags, consumers, grad_req):
    class Many(gluon.HybridBlock):
        def hybrid_forward(self, F, x, gamma, beta):
            y = 0 * x
            for i in range(consumers):
                y = y + (i + 1) * ops.layer_norm(x, gamma, beta)
            return y
    block = Many()
    if flags is not None:
        block.hybridize(**flags)
    xs = arrays()
    for x in xs:
        x.attach_grad()
    once = gradients(ops.layer_norm, xs, range(3))
    for x in xs:
        x.attach_grad(grad_req)
    calls = 3
    for _ in range(calls):
        got = gradients(block, xs, range(3))
    factor = sum(range(1, consumers + 1)) * (calls if grad_req == 'add' else 1)
    for g, o in zip(got, once):
        onp.testing.assert_allclose(g, factor * o, rtol=1e-4, atol=1e-4 * factor * abs(o).max())


@pytest.mark.parametrize('flags', MODES, ids=['imperative', 'hybrid', 'static'])
def test_parameters_whose_gradients_are_added_up(flags):
    from d2l.nn import LayerNorm
    block = LayerNorm(in_channels=7)
    block.initialize()
    block.gamma.grad_req = 'add'
    if flags is not None:
        block.hybridize(**flags)
    x = arrays()[0]
    for calls in (1, 2, 3):
        with autograd.record():
            y = block(x)
        y.backward(np.arange(28).reshape(4, 7))
        if calls == 1:
            gamma, beta = block.gamma.grad().asnumpy(), block.beta.grad().asnumpy()
    onp.testing.assert_allclose(block.gamma.grad().asnumpy(), 3 * gamma, rtol=1e-5)
    onp.testing.assert_allclose(block.beta.grad().asnumpy(), beta, rtol=1e-6)


def test_variables_marked_before_the_notes_count_as_added():
    from d2l.ops import _grad_req
    xs = arrays()
    xs[0].attach_grad('add')
    gradient = xs[0].grad
    assert _grad_req._State.notes.pop(_grad_req._address(gradient.handle)) == _grad_req._ADD
    _grad_req._State.any_add = True
    for _ in range(2):
        with autograd.record():
            y = ops.layer_norm(*xs)
        y.backward(np.arange(28).reshape(4, 7))
    once = arrays()
    once[0].attach_grad()
    g, = gradients(ops.layer_norm, once, [0])
    onp.testing.assert_allclose(xs[0].grad.asnumpy(), 2 * g, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('numpy', [True, False])
def test_executors(numpy):
    if not numpy:
        npx.reset_np()
    names = ['x', 'gamma', 'beta']
    variables = [mx.sym.var(n) for n in names]
    if numpy:
        variables = [v.as_np_ndarray() for v in variables]
    symbol = ops.layer_norm(*variables)
    assert symbol.infer_shape(x=(4, 7))[0] == [(4, 7), (7,), (7,)]
    with pytest.raises(ValueError, match="grad_req must not be 'add'"):
        symbol.simple_bind(mx.cpu(), grad_req='add', x=(4, 7))
    with pytest.raises(ValueError, match="grad_req must not be 'add'"):
        symbol.simple_bind(mx.cpu(), grad_req={'x': 'write', 'gamma': 'add', 'beta': 'null'},
                           x=(4, 7))
    executor = symbol.simple_bind(mx.cpu(), x=(4, 7))
    values = [onp.random.RandomState(i).standard_normal(s) for i, s in enumerate(((4, 7), 7, 7))]
    for name, value in zip(names, values):
        executor.arg_dict[name][:] = value
    y = executor.forward(is_train=True)[0].asnumpy()
    npx.set_np()
    want = ops.layer_norm(*(np.array(v, dtype='float32') for v in values))
    assert onp.array_equal(y, want.asnumpy())


def test_legacy_arrays_and_blocks():
    xs = arrays()
    want = ops.layer_norm(*xs).asnumpy()
    npx.reset_np()
    legacy = [mx.nd.array(x.asnumpy()) for x in xs]
    y = ops.layer_norm(*legacy)
    assert type(y) is mx.nd.NDArray and onp.array_equal(y.asnumpy(), want)
    for flags in MODES[1:]:
        block = OpBlock(ops.layer_norm)
        block.hybridize(**flags)
        legacy[0].attach_grad('add')
        for _ in range(2):
            with autograd.record():
                y = block(*legacy)
            y.backward()
        assert type(y) is mx.nd.NDArray and onp.array_equal(y.asnumpy(), want)
    with ops.composed():
        onp.testing.assert_allclose(ops.layer_norm(*legacy).asnumpy(), want, rtol=1e-5, atol=1e-6)


def test_messages_do_not_pile_up():
    x, gamma, beta = arrays()
    for bad in (np.ones(3), np.ones(4), np.ones(5)):
        with pytest.raises(MXNetError) as error:
            ops.layer_norm(x, bad, beta)
        assert str(error.value).count('layer_norm: ') == 1
        assert 'got ({},)'.format(bad.size) in str(error.value)


def test_messages_of_several_threads():
    wrong = []

    def work(n):
        npx.set_np()
        x, beta = np.ones((2, 100)), np.ones(100)
        for _ in range(50):
            try:
                ops.layer_norm(x, np.ones(n), beta)
                wrong.append('no error')
            except MXNetError as error:
                if 'got ({},)'.format(n) not in str(error):
                    wrong.append(str(error))
    threads = [threading.Thread(target=work, args=(n,)) for n in (11, 12, 13)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


def test_arguments():
    x, gamma, beta = arrays()
    want = ops.layer_norm(x, gamma, beta, eps=0.1).asnumpy()
    for y in (ops.layer_norm(x, gamma, beta, 0.1),
              ops.layer_norm(beta=beta, data=x, eps=0.1, gamma=gamma)):
        assert onp.array_equal(y.asnumpy(), want)
    with pytest.raises(TypeError, match="missing a required argument: 'beta'"):
        ops.layer_norm(x, gamma)
    with pytest.raises(TypeError, match="unexpected keyword argument 'epsilon'"):
        ops.layer_norm(x, gamma, beta, epsilon=1)
    with pytest.raises(TypeError, match='data must be an MXNet array or symbol, got ndarray'):
        ops.layer_norm(x.asnumpy(), gamma, beta)
    with pytest.raises(TypeError, match='gamma must be a symbol, as the first argument is'):
        ops.layer_norm(mx.sym.var('x'), gamma, beta)


def test_documentation_is_the_functions_own():
    import inspect
    assert ops.layer_norm.__name__ == 'layer_norm' and 'Ba, Kiros' in ops.layer_norm.__doc__
    assert list(inspect.signature(ops.layer_norm).parameters) == ['data', 'gamma', 'beta', 'eps']


def test_composed_is_of_this_thread_only():
    seen = []
    with ops.composed():
        t = threading.Thread(target=lambda: seen.append(ops._library.library() is not None))
        t.start()
        t.join()
        assert ops._library.library() is None
    assert seen == [True] and ops._library.library() is not None


def test_sparse_arrays_are_refused():
    npx.reset_np()
    x = mx.nd.sparse.row_sparse_array((onp.ones((1, 3)), [1]), shape=(4, 3))
    with pytest.raises(TypeError, match='layer_norm: data must be a dense array, got RowSparse'):
        ops.layer_norm(x, mx.nd.ones(3), mx.nd.ones(3))


def test_unaligned_slices():
    flat = np.array(onp.random.RandomState(0).standard_normal(1 + 5 * 9), dtype='float32')
    gamma, beta = np.ones(9), np.zeros(9)
    whole = ops.layer_norm(flat[1:].reshape(5, 9).copy(), gamma, beta)
    assert onp.array_equal(ops.layer_norm(flat[1:].reshape(5, 9), gamma, beta).asnumpy(),
                           whole.asnumpy())


def test_in_a_dataloader_worker():
    x, gamma, beta = arrays()
    want = ops.layer_norm(x, gamma, beta).asnumpy()

    class Rows(gluon.data.Dataset):
        def __len__(self):
            return 4

        def __getitem__(self, i):
            return ops.layer_norm(x[i:i + 1], gamma, beta).asnumpy()[0]
    loader = gluon.data.DataLoader(Rows(), batch_size=2, num_workers=1)
    got = onp.concatenate([batch.asnumpy() for batch in loader])
    onp.testing.assert_allclose(got, want, rtol=1e-6)


def test_builds_for_cuda_have_their_own_products(monkeypatch):
    """A graph does not know its device, and cuBLAS and cuDNN are faster than our kernels there."""
    def graph():
        a, b, w = (mx.sym.var(name).as_np_ndarray() for name in 'abw')
        return ''.join(symbol.tojson() for symbol in (
            ops.batch_dot(a, b), ops.conv2d(a, b, None, channels=2), ops.dense(a, w)))
    assert all('d2l_' + name in graph() for name in ('batch_dot', 'conv2d', 'dense'))
    monkeypatch.setattr(_operator, '_HAS_GPU', True)
    assert 'd2l_' not in graph()
    product = ops.batch_dot(np.ones((1, 2, 3)), np.ones((1, 3, 2)))
    assert product.asnumpy().tolist() == [[[3, 3], [3, 3]]]
