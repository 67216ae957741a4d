"""Random calls of the operators that change lists of arrays: a right result, or a clear error.

As test_random_calls.py, for optimizers and clipping.  A right call does what the composed body
does, also when it is bound and made again, past MXNet's operators; a spoilt one that is refused
says so in a sentence that names an argument, and changes nothing.  As a script, for more calls::

    PYTHONPATH=. python tests/ops/test_random_updates.py --calls 10000
"""
import argparse
import os
import re

import d2l  # noqa: F401  (before mxnet)

# isort: split
import mxnet as mx
import numpy as onp
import pytest
from mxnet import np, npx
from mxnet.base import MXNetError

from d2l import ops

SEED = int(os.environ.get('D2L_SEED', '0'))
OPS = {'multi_sgd': 3, 'multi_adam': 4, 'multi_lamb': 4, 'global_norm_clip': 1}  # lists
# Those of float64 are such since MXNet's optimizers take their attributes as float32.
TOLERANCES = {'float16': 2e-2, 'float32': 2e-5, 'float64': 5e-6}
ATTRIBUTES = {
    'multi_sgd': ['lrs', 'wds', 'momentum', 'rescale_grad', 'clip_gradient'],
    'multi_adam': ['lrs', 'wds', 'steps', 'beta1', 'beta2', 'epsilon', 'rescale_grad'],
    'multi_lamb': ['lrs', 'wds', 'steps', 'beta1', 'beta2', 'epsilon', 'upper_bound'],
    'global_norm_clip': ['theta']}
HUGE = 10 ** 30
WRONG = [-1, float('nan'), float('inf'), 'text', '', None, True, (1, 2), [], [0.5], 'x' * 3000,
         '%s%n%d', HUGE, onp.float64(0.1), {}]
NO_ARRAYS = [None, 3, 'text', onp.ones(3), object, [], ()]


class Call:
    """Number `number` of the calls of an operator that a seed gives."""

    def __init__(self, name, seed, number):
        self.name = name
        self.rng = rng = onp.random.RandomState([seed, number, sorted(OPS).index(name)])
        self.op, self.dtype = getattr(ops, name), str(rng.choice(sorted(TOLERANCES)))
        shapes = [tuple(rng.randint(1, 6, rng.randint(1, 4))) for _ in range(rng.randint(1, 6))]
        self.lists = [[np.array(rng.uniform(0.1, 1, s), dtype=self.dtype) for s in shapes]
                      for _ in range(OPS[name])]
        if name == 'multi_sgd' and rng.rand() < 0.3:
            self.lists[2] = None
        self.attrs = self.right_attributes(len(shapes))
        self.times = rng.randint(1, 4)
        self.spoilt = [str(how) for how in rng.choice(
            ['shape', 'dtype', 'length', 'array', 'list', 'attribute', 'part'],
            rng.choice([0, 0, 1, 1, 1, 2, 3]))]
        for how in self.spoilt:
            getattr(self, 'spoil_' + how)()
        npx.waitall()

    def right_attributes(self, count):
        if self.name == 'global_norm_clip':
            return {'theta': float(self.rng.uniform(0, 3))}
        attrs = {'lrs': list(self.rng.uniform(0.01, 0.5, count)), 'wds': 0.01,
                 'rescale_grad': 0.5}
        if self.name == 'multi_sgd':
            return {**attrs, 'momentum': 0.9 if self.lists[2] is not None else 0.0}
        return {**attrs, 'steps': int(self.rng.randint(1, 5))}

    def place(self):
        """A list, and the number of an array in it; None where there is none."""
        full = [group for group in self.lists if isinstance(group, list) and group]
        group = full[self.rng.randint(len(full))] if full else []
        return group, self.rng.randint(len(group)) if group else None

    def spoil_shape(self):
        group, i = self.place()
        if i is not None and isinstance(group[i], np.ndarray):
            old = group[i].shape or (1,)
            shape = [old + (1,), old[::-1], (old[0] + 1,) + old[1:], (0,), ()][self.rng.randint(5)]
            group[i] = np.ones(shape, dtype=group[i].dtype)

    def spoil_dtype(self):
        group, i = self.place()
        if i is not None and isinstance(group[i], np.ndarray):
            group[i] = group[i].astype(self.rng.choice(
                ['float16', 'float32', 'float64', 'int32', 'int8', 'bool']))

    def spoil_length(self):
        group, i = self.place()
        if i is not None:
            del group[i]

    def spoil_array(self):
        group, i = self.place()
        if i is not None:
            symbol, sparse = mx.sym.var('x').as_np_ndarray(), mx.nd.ones((2, 2))
            others = [*NO_ARRAYS, symbol, sparse.tostype('row_sparse')]
            group[i] = others[self.rng.randint(len(others))]

    def spoil_list(self):
        self.lists[self.rng.randint(len(self.lists))] = [
            *NO_ARRAYS, np.ones(3), mx.nd.ones(3)][self.rng.randint(len(NO_ARRAYS) + 2)]

    def spoil_attribute(self):
        names = [*ATTRIBUTES[self.name], 'axis', 'name', 'given', '__chunks__']
        self.attrs[names[self.rng.randint(len(names))]] = WRONG[self.rng.randint(len(WRONG))]

    def spoil_part(self):
        """Not wrong: a part of a larger array, or one array in two places."""
        group, i = self.place()
        if i is not None and isinstance(group[i], np.ndarray) and group[i].ndim:
            group[i] = np.concatenate([group[i], group[i]])[:group[i].shape[0]]

    def values(self):
        return [a.asnumpy() for group in self.lists if isinstance(group, (list, tuple))
                for a in group if isinstance(a, np.ndarray)]

    def run(self, bound):
        if bound:
            step = self.op.bind(*self.lists)
            for _ in range(self.times):
                step(**self.attrs)
        else:
            for _ in range(self.times):
                self.op(*self.lists, **self.attrs)
        return self.values()

    def __repr__(self):
        shown = [[f'{a.dtype} {a.shape}' if isinstance(a, np.ndarray) else a for a in group]
                 if isinstance(group, list) else group for group in self.lists]
        return f'{self.name}(*{shown}, **{self.attrs}), {self.spoilt}'[:2000]


def check(name, seed, number):
    """AssertionError if the answer is neither right nor a clear refusal; whether it is a result."""
    call = Call(name, seed, number)
    before, again = call.values(), f'{name}:{number}, seed {seed}: {call!r}'
    try:
        got = call.run(bound=number % 2)
    except (MXNetError, TypeError, ValueError) as error:
        assert call.spoilt, f'{again}: a right call is refused: {error!r}'
        said = re.findall(rf'\b{name}: (.*)', str(error))
        assert len(said) == 1, f'{again}: must have one sentence: {error!r}'
        arguments = [*call.op.inputs, *call.op.defaults, *call.attrs]
        assert any(re.search(rf'(?<!\w){re.escape(a)}(?!\w)', said[0]) for a in arguments), (
            f'{again}: names no argument: {error!r}')
        assert all(map(onp.array_equal, call.values(), before)), f'{again}: refused, but changed'
        return False
    if HUGE in call.attrs.values():
        return True  # nothing that has such a factor is like anything
    other = Call(name, seed, number)
    with ops.composed():
        try:
            want = other.run(bound=False)
        except Exception:  # an attribute that the kernel reads, such as '0.5', and MXNet does not
            assert call.spoilt, again
            return True
    bound = max(TOLERANCES.get(str(b.dtype), 0) for b in want)  # they may have several dtypes
    for a, b in zip(got, want):
        scale = max(1, onp.abs(b.astype('float64')).max(initial=0))
        assert onp.abs(a.astype('float64') - b).max(initial=0) <= bound * scale, (again, a, b)
    return True


def run_calls(calls, seed):
    results = 0
    for name in sorted(OPS):
        for number in range(calls):
            results += check(name, seed, number)
    return results


@pytest.mark.parametrize('name', sorted(OPS))
def test_random_calls(name):
    results = sum(check(name, SEED, number) for number in range(400))
    assert 100 < results < 390


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--calls', type=int, default=500, help='of each operator')
    parser.add_argument('--seed', type=int, default=SEED)
    args = parser.parse_args()
    npx.set_np()
    print(f'{args.calls * len(OPS)} calls, {run_calls(args.calls, args.seed)} gave a result, '
          'the others a clear error')


if __name__ == '__main__':
    main()
