"""Each of two or three layers is held to what test_dense.py asks of one."""
import contextlib

import mxnet as mx
import numpy as onp
import pytest
from mxnet import autograd, np, npx
from mxnet.base import MXNetError

from d2l import ops
from d2l.ops import _library, _native
from d2l.testing import EPS, Case, OpBlock, check_op, export_and_import, omp_threads
from tests.ops import test_dense

NAMES = ('data', 'weight_0', 'weight_1', 'weight_2', 'bias_0', 'bias_1', 'bias_2')
# How many layers, and which of them have a bias.
FORMS = [(2, ()), (2, (0, 1)), (2, (1,)), (3, ()), (3, (0, 1, 2)), (3, (0,)), (3, (2,))]


def results(x, *parameters):
    """Those of NumPy."""
    return [x @ w.T + (0 if b is None else b)
            for w, b in zip(parameters[:3], parameters[3:]) if w is not None]


def joined(*arrays, units=1):
    """The results side by side, since a Case has one."""
    numpy = mx.sym.np if isinstance(arrays[0], mx.sym.Symbol) else np
    return numpy.concatenate(ops.multi_dense(*arrays, units=units), axis=-1)


def arrays(shape, units, layers=3, biases=(0, 1, 2), dtype='float64', seed=0):
    made = [test_dense.arrays(shape, units, seed=seed + i) for i in range(3)]
    found = [made[0][0], *(w if i < layers else None for i, (_, w, _) in enumerate(made)),
             *(b if i in biases and i < layers else None for i, (_, _, b) in enumerate(made))]
    return [None if a is None else a.astype(dtype) for a in found]


def upload(values):
    return [None if a is None else np.array(a, dtype=a.dtype) for a in values]


def case(shape, units, layers, biases, dtype='float32'):
    return Case(joined, arrays(shape, units, layers, biases),
                lambda *a, units: onp.concatenate(results(*a), -1), dtype,
                grad_scale=3 * max(1, onp.prod(shape[:-1])) ** 0.5, units=units)


SIZES = [((1, 1), 1), ((5,), 3), ((3, 2), 5), ((2, 3, 31), 33), ((65, 16), 1), ((9, 1), 32)]


@pytest.mark.parametrize('dtype', test_dense.DTYPES)
@pytest.mark.parametrize('layers, biases', FORMS, ids=str)
def test_battery(layers, biases, dtype):
    """grad_req write, add and null, and on two sizes hybridized, exported and imported, too."""
    for i, (shape, units) in enumerate(SIZES):
        check_op(case(shape, units, layers, biases, dtype), dtype == 'float32' and i in (1, 3))


def run_kernel(many, target, threads):
    """The kernel's three outputs, and the gradients of all inputs, None for absent ones."""
    kernel = _native.Kernel(_library.library().c, 'multi_dense', target)
    attrs = {**many.attrs, **_native.given(many.arrays)}

    def tensors(values):
        return [a if a is None else _native.Tensor.of(a.ctypes.data, a.dtype, a.shape)
                for a in values]
    _, inferred, workspace = kernel.infer(tensors(many.arrays), **attrs)
    outputs = [onp.full(t.shape, 7, t.dtype_name) for t in inferred]
    heads = (heads_of(many) + [onp.ones_like(outputs[2])])[:3]
    grads = [None if a is None else onp.full_like(a, 7) for a in many.arrays]
    scratch = onp.full(max(workspace) + 64, 0xff, 'uint8')
    aligned = (scratch.ctypes.data + 63) & ~63
    with omp_threads(threads):
        kernel.run(None, tensors(many.arrays), tensors(outputs), None, aligned, **attrs)
        kernel.run(tensors(heads), tensors(many.arrays), tensors(outputs), tensors(grads),
                   aligned, **attrs)
    return outputs, grads


def heads_of(many):
    layers = sum(w is not None for w in many.arrays[1:4])
    return [onp.ascontiguousarray(g) for g in onp.split(many.cotangent, layers, -1)]


def exact(many):
    """Name -> (result or gradient in float64, sum of the magnitudes of its terms, their number)."""
    x, *parameters = many.exact()
    units, depth = many.attrs['units'], x.shape[-1]
    rows = int(onp.prod(x.shape[:-1]))
    x, found = x.reshape(rows, depth), {}
    dx, size = onp.zeros_like(x), onp.zeros_like(x)
    for i, g in enumerate(heads_of(many)):
        w, b = parameters[i], parameters[3 + i]
        g = g.astype('float64').reshape(rows, units)
        found[f'out_{i}'] = x @ w.T + (0 if b is None else b), abs(x @ w.T), depth
        found[f'weight_{i}'] = g.T @ x, abs(g).T @ abs(x), rows
        if b is not None:
            found[f'bias_{i}'] = g.sum(0), abs(g).sum(0), rows
        dx, size = dx + g @ w, size + abs(g) @ abs(w)
    return {**found, 'data': (dx, 2 * size, units)}  # each share is rounded, and each of their sums


def check_kernel(many, target):
    """The bounds are those of test_dense.py; any number of threads gives the same bits."""
    outputs, grads = run_kernel(many, target, 1)
    got = dict(zip(('out_0', 'out_1', 'out_2', *NAMES), outputs + grads))
    u, step = EPS[many.dtype] / 2, float(onp.finfo(many.dtype).smallest_subnormal)
    sums = EPS['float32' if many.dtype == 'float16' else many.dtype]
    for name, (want, size, n) in exact(many).items():
        error = abs(got.pop(name).reshape(want.shape).astype('float64') - want)
        bound = u * (size + abs(want)) + sums * (4 + min(n, 64) / 4) * (size + 1) + step
        assert (error <= bound).all(), (many, name, (error / bound).max())
    assert not got.pop('out_2', 0)  # without a third layer one zero
    assert all(a is None for a in got.values())
    for threads in (2, 3):
        again = run_kernel(many, target, threads)
        for p, q in zip(outputs + grads, again[0] + again[1]):
            assert p is q is None or onp.array_equal(p, q)
    return grads


LARGE = [((63, 257), 33), ((65, 255), 257), ((530, 40), 300), ((1, 300), 300), ((3, 257), 70),
         ((300, 300), 1), ((70, 1), 1), ((7, 2, 9), 16), ((0, 3), 4), ((4, 0), 5), ((0, 0), 1),
         ((2, 0, 7), 3), ((70, 0), 70)]


@pytest.mark.parametrize('target', ['v2', 'v3', 'v4'])
@pytest.mark.parametrize('dtype', test_dense.DTYPES)
@pytest.mark.parametrize('layers, biases', FORMS[::2], ids=str)
def test_every_instruction_set_and_thread_count(layers, biases, dtype, target, runs_target):
    runs_target(target)
    for shape, units in LARGE:
        check_kernel(case(shape, units, layers, biases, dtype), target)


@pytest.mark.parametrize('target', ['v2', 'v3', 'v4'])
@pytest.mark.parametrize('dtype', test_dense.DTYPES)
def test_rows_without_a_gradient(dtype, target, runs_target):
    """Each layer lacks those of other rows; the gradient of data is zero where all are."""
    runs_target(target)
    rng = onp.random.RandomState(5)
    for (shape, units), (layers, biases) in zip(
            [((300, 130), 131), ((2, 600, 70), 64), ((257, 256), 257)], FORMS[-3:]):
        many = case(shape, units, layers, biases, dtype)
        heads = many.cotangent.reshape(-1, layers, units)
        heads[rng.uniform(size=heads.shape[:2]) < 0.6] *= 0
        heads[40:70] *= 0
        dx = check_kernel(many, target)[0].reshape(-1, shape[-1])
        zero = ~heads.any((1, 2))
        assert zero.sum() >= 30 and not dx[zero].any()


@pytest.mark.parametrize('layers, biases', FORMS, ids=str)
@pytest.mark.parametrize('used', [(0, 1, 2), (0,), (1,), (2,)])
@pytest.mark.parametrize('hybridize', [False, True])
def test_it_is_calls_of_dense(hybridize, used, layers, biases):
    """To the last bit; a result that is not used has no gradient."""
    def run(call):
        inputs = upload(arrays((2, 70, 40), 31, layers, biases, 'float32'))
        given = [a for a in inputs if a is not None]
        for a in given:
            a.attach_grad()
        with autograd.record():
            ys = call(*inputs)
            assert isinstance(ys, list) and len(ys) == layers
            some = [ys[i] for i in used if i < layers] or ys[:1]
        autograd.backward(some, [np.cos(np.arange(y.size)).reshape(y.shape) for y in some])
        return ys, [a.grad for a in given]
    block = OpBlock(ops.multi_dense, {'units': 31})
    block.hybridize(hybridize)
    ours, (dx, *grads) = run(block)
    theirs, (dx_apart, *grads_apart) = run(lambda x, *parameters: [
        ops.dense(x, *pair, units=31) for pair in zip(parameters[:3], parameters[3:])
        if pair[0] is not None])
    assert abs(dx - dx_apart).max() < 1e-5  # MXNet may add the shares up in another order
    for p, q in zip(ours + grads, theirs + grads_apart):
        assert (p == q).all()


@pytest.mark.parametrize('numpy', [True, False])
def test_unknown_shapes_and_types_follow(numpy):
    names = [mx.sym.var(name).as_np_ndarray() if numpy else mx.sym.var(name) for name in NAMES]
    if not numpy:
        npx.reset_np()
    symbol = mx.sym.Group(ops.multi_dense(*names, units=4))
    assert symbol.infer_shape(data=(2, 3, 5)) == (
        [(2, 3, 5)] + [(4, 5)] * 3 + [(4,)] * 3, [(2, 3, 4)] * 3, [])
    types, out, _ = symbol.infer_type(data='float16')
    assert types == [onp.float16] * 7 and out == [onp.float16] * 3
    symbol = mx.sym.Group(ops.multi_dense(*names[:3], bias_1=names[5], units=4))
    assert symbol.list_arguments() == ['data', 'weight_0', 'weight_1', 'bias_1']
    assert symbol.infer_shape(data=(5,)) == ([(5,), (4, 5), (4, 5), (4,)], [(4,)] * 2, [])


@pytest.mark.parametrize('layers, biases', FORMS, ids=str)
def test_export_and_import(layers, biases):
    """One graph for any number of rows; the results are outputs of their own."""
    block = OpBlock(ops.multi_dense, {'units': 4})
    block.hybridize()
    imported = export_and_import(block, upload(arrays((2, 3), 4, layers, biases, 'float32')))
    for shape in ((2, 3), (70, 3)):
        values = arrays(shape, 4, layers, biases, 'float32', 3)
        for y, want in zip(imported(*upload(values)), results(*values)):
            assert y.shape == want.shape and abs(y.asnumpy() - want).max() < 1e-5


@pytest.mark.parametrize('composed', [False, True])
def test_legacy_arrays_and_symbols(composed):
    npx.reset_np()
    values = arrays((2, 3, 5), 4, dtype='float32')
    inputs = [mx.nd.array(a) for a in values]
    names = [mx.sym.var(name) for name in NAMES]
    with ops.composed() if composed else contextlib.nullcontext():
        ys, symbols = (ops.multi_dense(*given, units=4) for given in (inputs, names))
    assert all(type(y) is mx.nd.NDArray for y in ys)
    for got in (ys, mx.sym.Group(symbols).bind(mx.cpu(), dict(zip(NAMES, inputs))).forward()):
        assert len(got) == 3
        for y, want in zip(got, results(*values)):
            assert y.dtype == onp.float32 and abs(y.asnumpy() - want).max() < 1e-5


SHAPES = {'data': (2, 3), **dict.fromkeys(NAMES[1:4], (4, 3)), **dict.fromkeys(NAMES[4:], (4,))}


@pytest.mark.parametrize('change, error, fragment', [
    ({'data': ()}, MXNetError, 'data must have at least 1 axis, got shape ()'),
    ({'weight_0': (5, 3)}, MXNetError, 'weight_0 must have shape (4, 3), got (5, 3)'),
    ({'weight_2': (4,)}, MXNetError, 'weight_2 must have shape (4, 3), got (4,)'),
    ({'bias_0': (3,)}, MXNetError, 'bias_0 must have shape (4,), got (3,)'),
    ({'bias_2': (1, 4)}, MXNetError, 'bias_2 must have shape (4,), got (1, 4)'),
    ({'weight_2': None}, MXNetError, 'bias_2 must come with weight_2, got None'),
    ({'units': 0}, MXNetError, 'units must be an integer from 1 to 2147483648, got 0'),
    ({'data': 'int32'}, MXNetError, 'data must have dtype float16, float32 or float64, got int32'),
    ({'weight_2': 'float64'}, MXNetError, 'weight_2 must have the dtype of data, float32, got '),
    ({'bias_1': 'float16'}, MXNetError, 'bias_1 must have the dtype of data, float32, got float16'),
    ({'weight_1': None}, TypeError, 'weight_1 must be an MXNet array or symbol, got None'),
    ({'bias_1': [1]}, TypeError, 'bias_1 must be an MXNet array or symbol, got list'),
    ({'act_type': 'relu'}, TypeError, "got an unexpected keyword argument 'act_type'"),
], ids=str)
def test_bad_calls(change, error, fragment):
    call = {'units': 4, **{name: np.ones(shape) for name, shape in SHAPES.items()}}
    for name, value in change.items():
        if name in SHAPES and isinstance(value, (tuple, str)):
            value = np.ones(value) if isinstance(value, tuple) else call[name].astype(value)
        call[name] = value
    with pytest.raises(error) as raised:
        ops.multi_dense(**call)
    assert 'multi_dense: ' + fragment in str(raised.value)
