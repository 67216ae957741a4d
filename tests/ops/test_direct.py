"""src/operators/mxnet/direct.cc: kernels that MXNet calls without its interface for extensions."""
import contextlib
import importlib.util
import os
import subprocess
import sys
import threading
from pathlib import Path

import mxnet as mx
import numpy as onp
import pytest
from mxnet import autograd, np, npx
from mxnet.base import MXNetError

from d2l import ops
from d2l.ops import _library, _native, _operator
from d2l.testing import OpBlock

ROOT = Path(__file__).resolve().parents[2]
CASES = {}
UPDATES = ['global_norm_clip', 'multi_adam', 'multi_lamb', 'multi_sgd']
OPERATORS = sorted(set(ops.available()) - set(UPDATES))


def cases_of(name, dtype):
    if not CASES:
        spec = importlib.util.spec_from_file_location(
            'cases_of_direct', str(Path(__file__).with_name('sanitized_cases.py')))
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        CASES.update(module.CASES)
    return CASES[name](onp.random.default_rng(0), dtype)


@contextlib.contextmanager
def mxnets_way():
    c = _library.library().c
    npx.waitall()
    c.d2l_direct_set(0)
    try:
        yield
        npx.waitall()
    finally:
        c.d2l_direct_set(1)


@contextlib.contextmanager
def direct_calls():
    """A list that gets the number of calls that went directly."""
    count = _library.library().c.d2l_direct_count
    npx.waitall()
    before, made = count(), []
    yield made
    npx.waitall()
    made.append(count() - before)


def call(name, arrays, attrs):
    """Outputs, saved ones too, and gradients of what has one, as MXNet's operator computes them."""
    present = [np.array(a, dtype=a.dtype) for a in arrays if a is not None]
    floats = [a for a in present if onp.dtype(a.dtype).kind == 'f']
    for a in floats:
        a.attach_grad()
    with autograd.record():
        outputs = _operator._invoke(_library.library().handle(name), present,
                                    {**_native.given(arrays), **attrs})
        outputs = list(outputs) if isinstance(outputs, (list, tuple)) else [outputs]
    if floats:
        autograd.backward(outputs[:1], [np.ones_like(outputs[0])])
    return [a.asnumpy() for a in outputs + [a.grad for a in floats]]


def assert_equal(ours, theirs):
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs):
        assert a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def test_every_operator_that_can_goes_directly():
    assert sorted(_library.library().direct) == OPERATORS


@pytest.mark.parametrize('dtype', ['float32', 'float64', 'float16'])
@pytest.mark.parametrize('name', OPERATORS)
def test_it_is_the_call_of_mxnet(name, dtype):
    """Bit for bit, also with arrays that have no elements and inputs that are not there."""
    cases = list(cases_of(name, dtype))
    for arrays, attrs in cases[::max(1, len(cases) // 25)] + cases[-3:]:
        with direct_calls() as ours_made:
            ours = call(name, arrays, attrs)
        with mxnets_way(), direct_calls() as theirs_made:
            theirs = call(name, arrays, attrs)
        assert_equal(ours, theirs)
        # Arrays without elements have no backward, and a large workspace is MXNet's.
        assert theirs_made == [0] and ours_made[0] <= 2
        sizes = [a.size for a in arrays + ours[:1] if a is not None]
        calls = 1 + any(a is not None and a.dtype.kind == 'f' for a in arrays)
        assert ours_made == [calls] or 0 in sizes or max(sizes) > 600


@pytest.mark.parametrize('flags', [{}, {'static_alloc': True, 'static_shape': True}],
                         ids=['hybrid', 'static'])
def test_hybridized(flags):
    xs = [onp.random.RandomState(0).normal(size=s).astype('float32') for s in ((3, 7), (7,), (7,))]

    def run():
        block = OpBlock(ops.layer_norm)
        block.hybridize(**flags)
        arrays = [np.array(x) for x in xs]
        for a in arrays:
            a.attach_grad()
        for _ in range(3):
            with autograd.record():
                y = block(*arrays)
            y.backward()
        return [a.asnumpy() for a in [y] + [a.grad for a in arrays]]
    with direct_calls() as made:
        ours = run()
    with mxnets_way():
        assert_equal(ours, run())
    assert made == [6]


def convolved():
    """An array in oneDNN's layout: what a convolution has made."""
    rng = onp.random.RandomState(0)
    x, w = (np.array(rng.normal(size=s), dtype='float32') for s in ((2, 16, 9, 9), (32, 16, 3, 3)))
    return npx.convolution(x, w, kernel=(3, 3), num_filter=32, no_bias=True)


@pytest.mark.parametrize('wait', [False, True])
@pytest.mark.parametrize('direct', [False, True])
@pytest.mark.parametrize('op, others', [
    (ops.activation, []), (ops.bias_activation, [(7,)]), (ops.layer_norm, [(7,), (7,)])],
    ids=['activation', 'bias_activation', 'layer_norm'])
def test_arrays_in_the_layout_of_a_convolution(op, others, direct, wait):
    others = [np.ones(s) for s in others]
    attrs = {'act_type': 'tanh'} if 'activation' in op.kernel else {}
    for recorded in (False, True):
        x = convolved().asnumpy()
        with contextlib.ExitStack() as stack:
            if not direct:
                stack.enter_context(mxnets_way())
            made = stack.enter_context(direct_calls())
            if recorded:
                stack.enter_context(autograd.record())
            y = convolved()
            if wait:
                y.wait_to_read()
            results = [op(y, *others, **attrs) for _ in range(3)]
            again = y + 0  # the array itself is as it was
        want = op(np.array(x), *others, **attrs)
        for r in results:
            onp.testing.assert_array_equal(r.asnumpy(), want.asnumpy())
        onp.testing.assert_array_equal(again.asnumpy(), x)
        assert made == [3 if direct else 0]


def test_gradients_in_the_layout_of_a_convolution():
    """Backward's inputs come from a convolution, both the data and the output's gradient."""
    def run():
        w = np.array(onp.random.RandomState(1).normal(size=(16, 32, 3, 3)), dtype='float32')
        x = convolved()
        x.attach_grad()
        with autograd.record():
            y = npx.convolution(ops.activation(x, act_type='gelu'), w, kernel=(3, 3),
                                num_filter=16, no_bias=True)
        y.backward()
        return [y.asnumpy(), x.grad.asnumpy()]
    with direct_calls() as made:
        ours = run()
    with mxnets_way():
        theirs = run()
    for a, b in zip(ours, theirs):
        onp.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    assert made == [2]


def raw(name, arrays, **attrs):
    return _operator._invoke(_library.library().handle(name), arrays, attrs)


@pytest.mark.parametrize('arrays, attrs, words', [
    (lambda: [np.ones((3, 4))], {'act_type': 'no_such'}, 'act_type'),
    (lambda: [np.ones((1,) * 13)], {'act_type': 'relu'}, '12 axes'),
    (lambda: [np.ones((3, 4)).as_nd_ndarray().tostype('row_sparse')], {'act_type': 'relu'},
     'sparse|dense|storage'),
    (lambda: [np.ones((3, 4))], {'k{}'.format(i): i for i in range(80)}, '64 attributes'),
], ids=['attribute', 'axes', 'sparse', 'attributes'])
def test_what_is_refused(arrays, attrs, words):
    texts = []
    for way in (contextlib.nullcontext, mxnets_way):
        with way(), pytest.raises(MXNetError, match=words) as error:
            y = raw('activation', arrays(), **attrs)
            y.wait_to_read()
        texts.append(str(error.value).strip().splitlines()[-1])
    assert texts[0] == texts[1]


def test_a_sparse_array_beside_one_of_a_convolution():
    sparse = np.ones(7).as_nd_ndarray().tostype('row_sparse')
    with pytest.raises(MXNetError, match='sparse|dense|storage'):
        raw('bias_activation', [convolved().as_nd_ndarray(), sparse],
            act_type='relu')[0].wait_to_read()
    npx.waitall()
    assert (ops.activation(np.ones(3), act_type='relu') == 1).all()


def test_views_and_results_that_are_written_over():
    whole = np.arange(24, dtype='float32').reshape(6, 4)
    for part in (whole[2:4], whole[5], whole.reshape(2, 3, 4)[1]):
        onp.testing.assert_array_equal(ops.activation(part, act_type='relu').asnumpy(),
                                       part.asnumpy())
    for axes in range(13):
        x = np.full((1,) * axes, -2.0)
        assert ops.activation(x, act_type='relu').asnumpy().shape == (1,) * axes
    out = np.zeros((6, 4)).as_nd_ndarray()
    handle = _library.library().handle('activation')
    _operator._imperative_invoke(handle, [whole.as_nd_ndarray()], ['act_type'], ['relu'], [out],
                                 False, True)
    onp.testing.assert_array_equal(out.asnumpy(), whole.asnumpy())


@pytest.mark.parametrize('hybrid', [False, True])
def test_no_zeros_are_made_for_gradients_that_nobody_reads(hybrid, tmp_path):
    """Of outputs that are saved for backward; they are called _zeros in MXNet's profile."""
    x, gamma, beta = np.ones((3, 7)), np.ones(7), np.zeros(7)
    x.attach_grad()
    block = OpBlock(ops.layer_norm)
    if hybrid:
        block.hybridize()

    def names(f):
        mx.profiler.set_config(profile_all=True, aggregate_stats=True,
                               filename=str(tmp_path / 'profile.json'))
        mx.profiler.set_state('run')
        with autograd.record():
            y = f()
        y.backward()
        npx.waitall()
        mx.profiler.set_state('stop')
        return mx.profiler.dumps(reset=True)
    assert '_zeros' in names(lambda: np.split(x * 2, 3)[0])
    text = names(lambda: block(x, gamma, beta))
    assert '_backward__npx_d2l_layer_norm' in text and '_zeros' not in text


def test_several_threads():
    """Each has its own workspace."""
    xs = [onp.random.RandomState(i).normal(size=(2, 5 + i, 6)).astype('float32') for i in range(8)]
    wants = [ops.batch_dot(np.array(x), np.array(x), transpose_b=True).asnumpy() for x in xs]
    wrong = []

    def work(i):
        npx.set_np()
        x = np.array(xs[i])
        for _ in range(50):
            y = ops.batch_dot(x, x, transpose_b=True).asnumpy()
            if not onp.array_equal(y, wants[i]):
                wrong.append(i)
    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


ENGINE = """
import sys
from d2l import mxnet as d2l
from mxnet import autograd, np, npx
from d2l import ops
from d2l.ops import _library
npx.set_np()
x = np.arange(12.0).reshape(3, 4) / 7
x.attach_grad()
with autograd.record():
    y = ops.layer_norm(ops.activation(x, act_type='gelu'), np.ones(4), np.zeros(4))
y.backward()
x.grad.wait_to_read()
made = _library.library().c.d2l_direct_count()
print(made, y.asnumpy().tobytes().hex(), x.grad.asnumpy().tobytes().hex())
"""


def test_every_engine():
    texts = set()
    for engine in ('NaiveEngine', 'ThreadedEngine', 'ThreadedEnginePerDevice'):
        done = subprocess.run([sys.executable, '-c', ENGINE], stdout=subprocess.PIPE, text=True,
                              cwd=str(ROOT), env=dict(os.environ, MXNET_ENGINE_TYPE=engine))
        assert done.returncode == 0
        texts.add(done.stdout)
    assert len(texts) == 1 and texts.pop().startswith('4 ')


@pytest.mark.parametrize('missing', [s for s in _library._DIRECT if 'IsMKLDNN' not in s])
def test_another_build_of_mxnet_keeps_its_way(missing, monkeypatch):
    address = _library._address
    monkeypatch.setattr(_library, '_address', lambda symbol: address(
        'no such symbol' if symbol == missing else symbol))
    assert _library.library()._go_directly() == []
