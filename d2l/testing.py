"""What tests, benchmarks and authors of operators share: run an operator in every mode.

``check_op`` puts one call of an operator through the whole battery, ``check_block`` compares the
modes of a block, ``run_kernel`` and ``run_update`` run a kernel of one instruction set with a
number of threads, and ``time_op`` measures.
"""
import ctypes
import os
import statistics
import tempfile
import time

import mxnet as mx
import numpy as onp
from mxnet import autograd, gluon, np, npx

from d2l import ops
from d2l.ops import _library, _native, _update

EPS = {'float16': 2.0 ** -10, 'float32': 2.0 ** -23, 'float64': 2.0 ** -52}


class Case:
    """One call of an operator.

    Parameters
    ----------
    op : a function made by ``d2l.ops._operator.operator``, or one that calls it
    arrays : list of numpy.ndarray, or None for an optional input
        Floating-point ones are cast to dtype, others stay as they are.
    truth : callable
        The same call in NumPy float64: arrays (float64), attributes -> float64 array.
    dtype : 'float16', 'float32' or 'float64'
    wrt : positions of the inputs that have a gradient; default: the floating-point ones
    smooth : whether finite differences make sense (no infinities, no kinks)
    grad_scale : float
        The size of the terms that a gradient is the sum of.  Where they cancel, the gradient is
        smaller, but not its rounding error.  Default: the largest entry of the gradient.
    """

    def __init__(self, op, arrays, truth, dtype='float32', wrt=None, smooth=True, grad_scale=0.0,
                 **attrs):
        self.op, self.truth, self.dtype, self.attrs, self.smooth = op, truth, dtype, attrs, smooth
        self.grad_scale = grad_scale
        self.arrays = _each(list(arrays), lambda a: onp.asarray(a).astype(dtype)
                            if onp.asarray(a).dtype.kind == 'f' else onp.asarray(a))
        self.wrt = [i for i, a in enumerate(self.arrays)
                    if a is not None and a.dtype.kind == 'f'] if wrt is None else list(wrt)
        rng = onp.random.RandomState(0)
        self.expected = self.truth(*self.exact(), **attrs)
        self.cotangent = rng.standard_normal(self.expected.shape).astype(dtype)

    def exact(self):
        """The arrays as float64, after they were rounded to dtype."""
        return _each(self.arrays, lambda a: a.astype('float64'))

    def __repr__(self):
        shapes = ', '.join('None' if a is None else str(a.shape) for a in self.arrays)
        return '{}({}, {}, {})'.format(self.op.__name__, shapes, self.dtype, self.attrs)


class OpBlock(gluon.HybridBlock):
    """A block that does nothing but call an operator."""

    def __init__(self, op, attrs=None, **kwargs):
        super().__init__(**kwargs)
        self._op, self._attrs = op, attrs or {}

    def hybrid_forward(self, F, *arrays):
        return self._op(*arrays, **self._attrs)


def check_op(case, modes=True):
    """Run one case through the battery; AssertionError says what differs.

    Forward against the float64 truth and gradients against those of the composed body in
    float64, each with an error at most twice that of the composed body in the same dtype;
    gradients in float64 against central differences of the truth; grad_req write, add and null;
    imperative, hybridized, static and exported runs equal to the last bit (modes=True).
    """
    y, grads = _imperative(case)
    with ops.composed():
        y_body, grads_body = _imperative(case)
        _, grads_exact = _imperative(case, dtype='float64')
    assert y.dtype == case.dtype and y.shape == case.expected.shape, (case, y.dtype, y.shape)
    assert_close(y, case.expected, y_body, '{!r}: forward'.format(case))
    # In float64 the body is no better a reference than the kernel: both round over a whole row.
    slack = 64 if case.dtype == 'float64' else 4
    for i, g, b, e in zip(case.wrt, grads, grads_body, grads_exact):
        assert_close(g, e, b, '{!r}: gradient of input {}'.format(case, i), case.grad_scale, slack)
    if case.smooth and case.expected.size:
        _check_differences(case)
    if case.wrt and case.expected.size:
        _check_grad_req(case, grads)
    if modes:
        for mode, block in _modes(OpBlock(case.op, case.attrs), _upload(case.arrays)):
            y_mode, grads_mode = _imperative(case, block)
            same = [onp.array_equal(a, b, equal_nan=True)
                    for a, b in zip([y] + grads, [y_mode] + grads_mode)]
            assert all(same), '{!r}: {} differs from imperative: {}'.format(case, mode, same)


def assert_close(got, exact, other, what, scale=0.0, slack=4):
    """got is as near to exact as other is, up to a factor of 2 and slack roundings of got's dtype.

    NaN and infinities must stand in the same places.  The error is relative to the largest
    finite magnitude of exact, or to scale if that is larger.
    """
    got64, other64 = got.astype('float64'), other.astype('float64')
    finite = onp.isfinite(exact)
    special = onp.array_equal(got64[~finite], exact[~finite], equal_nan=True)
    assert special and onp.isfinite(got64[finite]).all(), '{}: NaN or infinity'.format(what)
    if not finite.any():
        return
    scale = max(scale, onp.abs(exact[finite]).max(), onp.finfo(got.dtype).tiny)
    error = onp.abs(got64 - exact)[finite].max() / scale
    with onp.errstate(invalid='ignore'):
        allowed = 2 * onp.nan_to_num(onp.abs(other64 - exact)[finite]).max() / scale
    bound = allowed + slack * EPS[str(got.dtype)]
    assert error <= bound, '{}: error {:.3g}, at most {:.3g}'.format(what, error, bound)


def _upload(arrays, dtype=None):
    return _each(arrays, lambda a: np.array(
        a, dtype=dtype if dtype and a.dtype.kind == 'f' else a.dtype))


def _imperative(case, fn=None, dtype=None, grad_req='write', arrays=None):
    """(output, gradients of case.wrt) as numpy arrays; fn defaults to the operator itself."""
    xs = _upload(arrays or case.arrays, dtype)
    for i in case.wrt:
        xs[i].attach_grad(grad_req)
    call = fn or (lambda *a: case.op(*a, **case.attrs))
    with autograd.record():
        y = call(*xs)
    y.backward(np.array(case.cotangent, dtype=dtype or case.dtype))
    return y.asnumpy(), [xs[i].grad.asnumpy() for i in case.wrt]


def _check_differences(case, step=1e-6, directions=3):
    """Gradients in float64 along random directions, against central differences of the truth."""
    arrays = case.exact()
    arrays = [a if i in case.wrt else case.arrays[i] for i, a in enumerate(arrays)]
    _, grads = _imperative(case, dtype='float64', arrays=arrays)
    cotangent = case.cotangent.astype('float64')
    rng = onp.random.RandomState(1)
    for i, grad in zip(case.wrt, grads):
        for _ in range(directions):
            direction = rng.standard_normal(arrays[i].shape)
            ends = []
            for sign in (1, -1):
                moved = _each(arrays, lambda a: a.astype('float64'))
                moved[i] = moved[i] + sign * step * direction
                ends.append((case.truth(*moved, **case.attrs) * cotangent).sum())
            difference = (ends[0] - ends[1]) / (2 * step)
            along = (grad * direction).sum()
            scale = onp.abs(grad * direction).sum() + onp.abs(cotangent).max() * 1e-3
            assert abs(difference - along) <= 1e-6 * scale, (
                '{!r}: gradient of input {}: {:.9g} along a direction, by differences {:.9g}'
                .format(case, i, along, difference))


def _check_grad_req(case, grads):
    """add sums over calls and over many uses in one graph; null leaves the others alone."""
    xs = _upload(case.arrays)
    for i in case.wrt:
        xs[i].attach_grad('add')
    for _ in range(3):
        with autograd.record():
            y = case.op(*xs, **case.attrs)
        y.backward(np.array(case.cotangent))
    for i, g in zip(case.wrt, grads):
        assert_close(xs[i].grad.asnumpy(), 3 * g.astype('float64'), 3 * g,
                     '{!r}: grad_req add, input {}'.format(case, i), case.grad_scale)
    for skipped in case.wrt[1:]:
        xs = _upload(case.arrays)
        for i in case.wrt:
            if i != skipped:
                xs[i].attach_grad()
        with autograd.record():
            y = case.op(*xs, **case.attrs)
        y.backward(np.array(case.cotangent))
        for i, g in zip(case.wrt, grads):
            if i != skipped:
                assert onp.array_equal(xs[i].grad.asnumpy(), g, equal_nan=True), (
                    '{!r}: input {} without gradient changes that of {}'.format(case, skipped, i))


def _modes(block, inputs):
    """(name, callable) for hybridized, static and exported forms of a block.

    The exported form shares nothing with the block but the two files it was written to.
    """
    for name, flags in (('hybrid', {}), ('static', {'static_alloc': True, 'static_shape': True})):
        block.hybridize(**flags)
        block(*inputs)
        yield name, block
    yield 'exported', export_and_import(block, inputs)
    block.hybridize(False)


def export_and_import(block, inputs):
    """What a hybridized block exports after one call on inputs: a function of such inputs.

    An import takes the arrays one after the other; lists are flattened, None is left out.
    """
    with tempfile.TemporaryDirectory() as folder:
        block(*inputs)
        mx.npx.waitall()
        prefix = os.path.join(folder, 'model')
        block.export(prefix)
        count = len(_arrays(inputs))
        names = ['data'] if count == 1 else ['data%d' % i for i in range(count)]
        net = gluon.SymbolBlock.imports(prefix + '-symbol.json', names, prefix + '-0000.params')

    def call(*inputs):
        return net(*_arrays(inputs))
    call.collect_params = net.collect_params
    return call


def check_block(make_block, inputs, train=True):
    """A block gives the same outputs and gradients in every mode.

    Parameters
    ----------
    make_block : callable
        Returns an initialized block; called once.
    inputs : list of numpy.ndarray or mxnet.np.ndarray, of lists of them, and of None
    train : whether the forward runs in train mode (BatchNorm, Dropout)

    Returns
    -------
    the outputs of the imperative run, a list of numpy arrays
    """
    block = make_block()
    inputs = _each(inputs, lambda x: x if isinstance(x, np.ndarray)
                   else np.array(x, dtype=x.dtype))
    with autograd.train_mode() if train else autograd.predict_mode():
        expected = _block_run(block, inputs, train)
        for mode, form in _modes(block, inputs):
            got = _block_run(form, inputs, train)
            # An import gives every parameter a gradient, so an exported form may have more, and
            # it lacks the parameters that had no part in the computation.
            missing = [name for name in expected if name not in got and expected[name].any()]
            assert not missing, (mode, missing, sorted(got))
            for name in expected.keys() & got.keys():
                onp.testing.assert_allclose(
                    got[name], expected[name], rtol=1e-5,
                    atol=1e-6 * max(1e-30, onp.abs(expected[name]).max(initial=0)),
                    err_msg='{} in mode {}'.format(name, mode))
    return [expected[k] for k in sorted(expected) if k.startswith('output')]


def _block_run(block, inputs, train):
    """Outputs, gradients of floating-point inputs and of parameters, by name."""
    call_with = _each(inputs, lambda x: x.copy())
    xs = _arrays(call_with)
    for x in xs:
        if onp.dtype(x.dtype).kind == 'f':
            x.attach_grad()
    with autograd.record(train_mode=train):
        ys = _arrays([block(*call_with)])
        heads = [np.cos(np.arange(v.size)).reshape(v.shape).astype(v.dtype) for v in ys]
    autograd.backward(ys, heads, train_mode=train)
    found = {'output%d' % i: v.asnumpy() for i, v in enumerate(ys)}
    for i, x in enumerate(xs):
        if x.grad is not None:
            found['gradient of input%d' % i] = x.grad.asnumpy()
    for name, p in block.collect_params().items():
        # One without values had no part in the computation, which knows its shape first.
        if p.grad_req != 'null' and p._data is not None:
            found['gradient of ' + name] = p.grad().asnumpy()
    return found


def _each(value, function):
    """function of every array in nested lists, in which None may stand."""
    if isinstance(value, (list, tuple)):
        return [_each(item, function) for item in value]
    return None if value is None else function(value)


def _arrays(nested):
    """The arrays in nested lists, one after the other, without None."""
    if isinstance(nested, (list, tuple)):
        return [array for item in nested for array in _arrays(item)]
    return [] if nested is None else [nested]


def run_kernel(case, target=None, threads=1):
    """Forward and backward of a case through the plain C interface, without MXNet's engine.

    target: an instruction set the library was built for; default: the one in use.
    Returns (output, gradients of all inputs) as numpy arrays, None for an input that is None.
    """
    library = _library.library()
    kernel = _native.Kernel(library.c, case.op.kernel, target or library.isa)
    attrs = {**case.op.defaults, **case.attrs, **_native.given(case.arrays)}
    arrays = _each(case.arrays, onp.ascontiguousarray)
    tensors = _each(arrays, _tensor)
    _, inferred, workspace = kernel.infer(tensors, **attrs)
    outputs = [onp.full(t.shape, 7, dtype=t.dtype_name) for t in inferred]
    heads = [case.cotangent] + [onp.zeros_like(o) for o in outputs[1:]]
    grads = _each(arrays, lambda a: onp.full_like(a, 7))
    scratch = onp.zeros(max(workspace) + 128, dtype='uint8')
    aligned = (scratch.ctypes.data + 63) & ~63
    with omp_threads(threads):
        kernel.run(None, tensors, [_tensor(o) for o in outputs], None, aligned, **attrs)
        kernel.run([_tensor(h) for h in heads], tensors, [_tensor(o) for o in outputs],
                   _each(grads, _tensor), aligned, **attrs)
    return outputs[0], grads


def run_update(op, args, target=None, threads=1, **attrs):
    """An operator made by ``d2l.ops._update.update``, through the plain C interface.

    args: as the operator takes them, but numpy arrays, which are not changed.
    Returns (the arguments afterwards, the output) as numpy arrays.
    """
    library = _library.library()
    kernel = _native.Kernel(library.c, op.kernel, target or library.isa)
    args = [_each(a, onp.array) for a in args]
    count = len(args[0])
    attrs = {key: _update.text(value) for key, value in {**op.defaults, **attrs}.items()}
    attrs.update(_native.given(args), num_weights=count)
    flat = [a for name, value in zip(op.inputs, args) for a in (
        [value] if name not in op.lists else [None] * count if value is None else value)]
    tensors = _each(flat, _tensor)
    _, (inferred,), workspace = kernel.infer(tensors, **attrs)
    output = onp.full(inferred.shape, 7, dtype=inferred.dtype_name)
    scratch = onp.full(workspace[0] + 64, 0xff, dtype='uint8')
    with omp_threads(threads):
        kernel.run(None, tensors, [_tensor(output)], None, (scratch.ctypes.data + 63) & ~63,
                   **attrs)
    return args, output


def _tensor(array):
    return _native.Tensor.of(array.ctypes.data, array.dtype, array.shape)


class omp_threads:  # noqa: N801  (reads as a statement)
    """``with omp_threads(n)``: OpenMP loops started by this thread use n threads."""

    def __init__(self, n):
        self.n, self._gomp = n, ctypes.CDLL('libgomp.so.1')

    def __enter__(self):
        self._before = self._gomp.omp_get_max_threads()
        self._gomp.omp_set_num_threads(self.n)

    def __exit__(self, *exc):
        self._gomp.omp_set_num_threads(self._before)


def time_op(functions, samples=15, sample_seconds=0.05):
    """Time callables side by side: A B C, A B C, ...

    Each sample calls one function often enough to last about sample_seconds and waits for
    MXNet's engine.  Returns name -> dict(cpu_ms, wall_ms, spread): medians for one call of the
    CPU time of the whole process and of the wall clock, and the interquartile range of the CPU
    time over its median.
    """
    repeats = {}
    for name, f in functions.items():
        for _ in range(2):  # the first call compiles, allocates and starts threads
            f()
        npx.waitall()
        start = time.perf_counter()
        f()
        npx.waitall()
        repeats[name] = max(1, int(sample_seconds / max(time.perf_counter() - start, 1e-7)))
    taken = {name: [] for name in functions}
    for _ in range(samples):
        for name, f in functions.items():
            npx.waitall()
            cpu, wall = time.process_time(), time.perf_counter()
            for _ in range(repeats[name]):
                f()
            npx.waitall()
            taken[name].append(((time.process_time() - cpu) / repeats[name],
                                (time.perf_counter() - wall) / repeats[name]))
    return {name: summary_of_times(values) for name, values in taken.items()}


def summary_of_times(values):
    """What `time_op` says of a list of (CPU seconds, wall seconds) of one call."""
    cpu = sorted(v[0] for v in values)
    median = statistics.median(cpu)
    spread = (cpu[(3 * len(cpu)) // 4] - cpu[len(cpu) // 4]) / median if median else 0.0
    return {'cpu_ms': median * 1e3, 'wall_ms': statistics.median(v[1] for v in values) * 1e3,
            'spread': spread}
