"""Thousands of random calls: each gives the right result, or an error that says what is wrong.

A right call is made at random and then, five times of seven, spoilt in one to three ways: another
shape, dtype or type of an array, a wrong attribute, an argument too many.  D2L_SEED chooses
another sequence, and every failure names its call.  As a script, for more calls or one again::

    PYTHONPATH=. python tests/ops/test_random_calls.py --calls 10000
    PYTHONPATH=. python tests/ops/test_random_calls.py --seed 3 --only layer_norm:1234
"""
import argparse
import contextlib
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import d2l  # noqa: F401  (before mxnet)

# isort: split
import mxnet as mx
import numpy as onp
import pytest
from mxnet import autograd, np, npx
from mxnet.base import MXNetError

from d2l import ops
from d2l.testing import EPS
from tests.ops.random_rows import FLOATS, INTEGERS, ROWS, distinct, random_shape

SEED = int(os.environ.get('D2L_SEED', '1'))


# --- A random call --------------------------------------------------------------------------------

class Call:
    """A call that can be repeated: values[i] stands for input i, and form says what is made of it.

    Forms: 'np' and 'legacy' arrays, 'symbol' (run by an executor on those arrays), or 'raw': the
    value is handed over as it is.
    """

    def __init__(self, name, seed, number):
        self.id = '--seed {} --only {}:{}'.format(seed, name, number)
        rng = self.rng = onp.random.RandomState([seed, number, sum(name.encode())])
        self.row, self.name = ROWS[name], name
        self.inputs = self.row.op.inputs
        self.values = self.row.arrays(rng, str(rng.choice(FLOATS)))
        self.forms = [str(rng.choice(['np', 'np', 'np', 'legacy', 'symbol']))] * len(self.inputs)
        self.attrs = {key: rng.choice(onp.array(values + [None], dtype=object)[:-1])
                      for key, values in self.row.attrs.items() if rng.rand() < 0.7}
        self.attrs.update(self.row.follow(*self.values))
        self.by_name = int(rng.randint(len(self.inputs) + 1))  # from this input on
        self.recorded = rng.choice([None, None, 'write', 'add'])
        self.extra = ()
        self.spoilt = []
        for _ in range(int(rng.choice([0, 0, 1, 1, 1, 2, 3]))):
            how = SPOILERS[rng.randint(len(SPOILERS))]
            how(self, rng)
            self.spoilt.append(how.__name__)

    def __repr__(self):
        def text(form, value):
            if not isinstance(value, onp.ndarray):
                return repr(value)[:60]
            return '{} array {} {}'.format(form, value.dtype, value.shape)
        arrays = ['{}={}'.format(*pair) for pair in zip(
            self.inputs, map(text, self.forms, self.values))]
        return '{}({}, *{!r}, **{!r}), spoilt: {}; again: {}'.format(
            self.name, ', '.join(arrays), self.extra, self.attrs, self.spoilt, self.id)

    def run(self):
        """The result, a NumPy array."""
        made = [make(form, value, argument) for form, value, argument in zip(
            self.forms, self.values, self.inputs)]
        position = self.by_name if not self.extra else len(made)
        named = {argument: value for argument, value in zip(self.inputs, made)
                 if value is not MISSING}
        named = {k: named[k] for k in self.inputs[position:] if k in named}
        with contextlib.ExitStack() as stack:
            wrt = [a for a in made if isinstance(a, mx.nd.NDArray) and a.stype == 'default'
                   and onp.dtype(a.dtype).name in FLOATS]
            if self.recorded and wrt:
                for array in wrt:
                    array.attach_grad(self.recorded)
                stack.enter_context(autograd.record())
            result = self.row.op(*made[:position], *self.extra, **{**named, **self.attrs})
            if isinstance(result, list):
                symbolic = isinstance(result[0], mx.sym.Symbol)
                result = (mx.sym.np if symbolic else np).concatenate(
                    [part.as_np_ndarray() for part in result], axis=-1)
        if self.recorded and wrt and isinstance(result, mx.nd.NDArray):
            result.backward()
            for array in wrt:
                array.grad.wait_to_read()
        if isinstance(result, mx.sym.Symbol):
            arrays = {argument: make('np', value, argument) for argument, value in zip(
                self.inputs, self.values) if argument in result.list_arguments()}
            result = result.bind(mx.cpu(), arrays).forward()[0]
        return result.asnumpy()

    def dtype(self):
        """That of the result."""
        defaults = self.row.op.defaults
        attrs = {**defaults, **dict(zip(defaults, self.extra)), **self.attrs}
        return attrs.get('dtype', self.values[0].dtype)

    def runs_body(self):
        """Whether an optional array is missing, so that MXNet's operators do the work."""
        parameters = self.row.op.__signature__.parameters
        return any((value is None or value is MISSING) and parameters[argument].default is None
                   for argument, value in zip(self.inputs, self.values))

    def truth(self):
        exact = [onp.asarray(v).astype('float64') if isinstance(v, onp.ndarray) else
                 None if v is MISSING else v for v in self.values]
        exact += [None] * (len(self.inputs) - len(exact))
        attrs = dict(zip(self.row.op.defaults, self.extra), **self.attrs)
        with onp.errstate(all='ignore'), warnings.catch_warnings():
            warnings.simplefilter('ignore', RuntimeWarning)  # mean of nothing
            return self.row.truth(*exact, **attrs)


MISSING = type('Missing', (), {'__repr__': lambda self: 'MISSING'})()


def make(form, value, name):
    if form == 'raw' or value is None:
        return value
    if form == 'symbol':
        return mx.sym.var(name).as_np_ndarray()
    array = np.array(value, dtype=value.dtype)
    if form == 'sparse' and array.ndim and array.dtype != bool:  # MXNet has none of those
        return array.as_nd_ndarray().tostype('row_sparse')
    return array.as_nd_ndarray() if form == 'legacy' else array


# --- Ways to spoil a call -------------------------------------------------------------------------

def some_array(call, rng):
    """The number of an input that is an array, or None."""
    arrays = [i for i, v in enumerate(call.values) if isinstance(v, onp.ndarray)]
    return int(rng.choice(arrays)) if arrays else None


def spoil_shape(call, rng):
    i = some_array(call, rng)
    if i is None:
        return
    old = list(call.values[i].shape)
    axis = rng.randint(len(old)) if old else 0
    new = [old[:axis] + old[axis + 1:],
           old[:axis] + [1] + old[axis:],
           old[:axis] + [n + 1 for n in old[axis:axis + 1]] + old[axis + 1:],
           old[:axis] + [0] + old[axis + 1:],
           old[::-1],
           [1] * (13 - len(old)) + old,
           [],
           list(random_shape(rng, 1))][rng.randint(8)]
    call.values[i] = distinct(rng, new, call.values[i].dtype)


def spoil_dtype(call, rng):
    i = some_array(call, rng)
    if i is not None:
        call.values[i] = call.values[i].astype(rng.choice(FLOATS + INTEGERS + ['bool']))


def spoil_type(call, rng):
    i = rng.randint(len(call.inputs))
    value = [None, 3, 2.5, True, float('nan'), 'text', b'bytes', [1, 2], (), {}, object, MISSING,
             onp.float32(3), onp.ones(3)][rng.randint(14)]
    call.values[i], call.forms[i] = value, 'raw'


def spoil_form(call, rng):
    i = some_array(call, rng)
    if i is not None:
        call.forms[i] = str(rng.choice(['np', 'legacy', 'symbol', 'raw', 'sparse']))


def spoil_attribute(call, rng):
    names = sorted(call.row.attrs) + ['epsilon', 'axis', 'F', 'name', 'out', '__layout__']
    name = str(rng.choice(names[:1 + 2 * len(call.row.attrs)] if rng.rand() < 0.7 else names))
    call.attrs[name] = [-1, float('nan'), float('inf'), -0.0, 'text', '', ' ', None, True, (1, 2),
                        [1], 'x' * 5000, '%s%n%d', '\u03b5' * 700, '1e400', '0.1 ', 10 ** 30,
                        onp.float64(0.1)][rng.randint(18)]


def spoil_count(call, rng):
    how = rng.randint(3)
    if how == 0:
        call.extra = (0.5,) * int(rng.randint(1, 4))
    elif how == 1:
        i = rng.randint(len(call.inputs))
        call.attrs[call.inputs[i]] = 1.0
        call.by_name = len(call.inputs)
    else:
        call.values[-1], call.forms[-1] = MISSING, 'raw'
        call.by_name = 0


SPOILERS = [spoil_shape, spoil_shape, spoil_shape, spoil_dtype, spoil_dtype, spoil_type,
            spoil_form, spoil_attribute, spoil_count]


# --- What is a good answer ------------------------------------------------------------------------

def check(name, seed, number):
    """AssertionError if the answer to a call is neither right nor a clear refusal."""
    call = Call(name, seed, number)
    try:
        result = call.run()
    except (MXNetError, TypeError, ValueError) as error:
        assert call.spoilt, '{!r}: a right call is refused: {!r}'.format(call, error)
        complaint = unclear(call, str(error))
        assert not complaint, '{!r}: the error {}: {!r}'.format(call, complaint, error)
        return False
    try:
        truth = call.truth()
    except Exception as error:
        raise AssertionError('{!r} has a result, but NumPy says {!r}'.format(call, error)) from None
    complaint = wrong(result, truth, call.dtype())
    assert not complaint, '{!r}: {}'.format(call, complaint)
    return True


def wrong(result, truth, dtype):
    """What is to be said against a result, '' if nothing."""
    if (result.shape, result.dtype) != (truth.shape, dtype):
        return '{} {}, but should be {} {}'.format(result.dtype, result.shape, dtype, truth.shape)
    if not truth.size:
        return ''
    with onp.errstate(over='ignore'):
        # Beyond the largest number of the dtype is infinity; rounding decides next to it.
        beyond = onp.abs(truth) > 1.01 * onp.finfo(dtype).max
        truth = onp.where(beyond, onp.copysign(onp.inf, truth), truth)
    finite = onp.isfinite(truth)
    if not onp.array_equal(result[~finite], truth[~finite], equal_nan=True):
        return 'NaN or infinity in other places than in NumPy'
    error = onp.abs(result[finite] - truth[finite]).max(initial=0)
    bound = 64 * EPS[result.dtype.name] * max(1, onp.abs(truth[finite]).max(initial=0))
    return '' if error <= bound else 'error {:.3g}, more than {:.3g}'.format(error, bound)


def unclear(call, text):
    """What is to be said against the text of an error, '' if nothing."""
    said = re.findall(r'\b({}): (.*)'.format('|'.join(ROWS)), text)
    if not said and call.runs_body():
        return ''  # MXNet's own error
    if [op for op, _ in said] != [call.name]:
        return 'must have one sentence, about {}'.format(call.name)
    sentence = said[0][1]
    arguments = list(call.inputs) + list(call.attrs) + list(call.row.attrs)
    arity = call.extra and 'too many positional arguments' in sentence
    if not arity and not any(re.search(r'(?<!\w){}(?!\w)'.format(re.escape(a)), sentence)
                             for a in arguments):
        return 'names no argument'
    got = re.search(r', got (?:shape )?(.*)', sentence)
    if got and not any(fits(got.group(1), shown) for shown in shown_values(call)):
        return 'speaks of something that is not in this call (of an earlier one?)'
    return ''


def fits(got, shown):
    return got == shown or len(shown) > 100 and len(got) > 100 and shown.startswith(got[:-4])


def shown_values(call):
    """How an error may show the arguments of a call."""
    for value in list(call.values) + list(call.attrs.values()) + list(call.extra):
        yield 'None' if value is MISSING else str(value)
        yield type(value).__name__
        if isinstance(value, onp.ndarray):
            yield str(value.shape)
            yield str(value.ndim)
            yield value.dtype.name
            if value.dtype == bool:
                yield 'an unsupported dtype'
    for form in call.forms:
        yield {'np': 'ndarray', 'legacy': 'NDArray', 'symbol': '_Symbol',
               'sparse': 'RowSparseNDArray'}.get(form, form)


# --- Tests ----------------------------------------------------------------------------------------

def run_calls(calls, seed, note=lambda text: None):
    """So many calls of every operator, in turns; the number of those that gave a result."""
    npx.set_np()
    results = 0
    for number in range(calls):
        for name in ROWS:
            note('--seed {} --only {}:{}'.format(seed, name, number))
            results += check(name, seed, number)
    return results


def test_every_operator_has_a_row():
    """Those that update lists of arrays do not fit here; test_update.py spoils their calls."""
    updates = {name for name in ops.available() if hasattr(getattr(ops, name), 'lists')}
    assert set(ROWS) | updates == set(ops.available()) and not updates & set(ROWS)


def test_five_hundred_calls():
    results = run_calls(500, SEED)
    assert 0.2 < results / (500 * len(ROWS)) < 0.8


def test_what_counts_as_clear():
    call = Call('layer_norm', 1, 0)
    call.values = [onp.ones((2, 3)), onp.ones(5), onp.ones(3)]
    good = 'layer_norm: gamma must have shape (3,), got (5,)'
    assert not unclear(call, good)
    assert unclear(call, good + '\n\t[1] ' + good)
    assert unclear(call, 'masked_softmax: data must have shape (3,), got (5,)')
    assert unclear(call, 'layer_norm: gamma must have shape (3,), got (4,)')
    assert unclear(call, 'layer_norm: wrong, got (5,)')
    assert wrong(onp.ones(3, 'float32'), onp.full(3, 1.001), 'float32')
    assert wrong(onp.ones(3, 'float32'), onp.array([1, onp.nan, 1]), 'float32')
    assert wrong(onp.ones(3, 'float32'), onp.ones(3), 'float64')


@pytest.mark.slow
def test_twenty_thousand_calls_in_a_process_of_their_own(tmp_path):
    note = tmp_path / 'call'
    environment = dict(os.environ, PYTHONPATH=str(Path(__file__).resolve().parents[2]))
    command = [sys.executable, '-X', 'faulthandler', '-W', 'ignore', __file__,
               '--calls', '2500', '--seed', str(SEED), '--note', str(note)]
    try:
        done = subprocess.run(command, env=environment, timeout=900, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True)
    except subprocess.TimeoutExpired as expired:
        pytest.fail('the call {} hangs\n{}'.format(note.read_text().strip(), expired.stdout))
    assert done.returncode == 0, 'exit status {} at the call {}\n{}'.format(
        done.returncode, note.read_text().strip() if note.exists() else '?', done.stdout[-5000:])


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--calls', type=int, default=500, help='of each operator')
    parser.add_argument('--seed', type=int, default=SEED)
    parser.add_argument('--only', help='<operator>:<number>, the call that failed')
    parser.add_argument('--note', help='a file that names the call being made')
    args = parser.parse_args()
    npx.set_np()
    if args.only:
        name, number = args.only.split(':')
        print(Call(name, args.seed, int(number)))
        check(name, args.seed, int(number))
        return
    if args.note:
        file = os.open(args.note, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        results = run_calls(args.calls, args.seed,
                            lambda text: os.pwrite(file, text.ljust(80).encode(), 0))
    else:
        results = run_calls(args.calls, args.seed)
    print('{} calls, {} gave a result, the others a clear error'.format(
        args.calls * len(ROWS), results))


if __name__ == '__main__':
    main()
