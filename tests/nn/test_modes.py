"""Every block of d2l.nn and every model of d2l.models gives the same in every mode.

The rows stand beside the other tests of a block: a dict ``MODES`` in its test file maps a name to
a list of (function that makes the block, inputs).  Inputs are NumPy arrays, lists of them, or
None.
"""
import importlib
import importlib.util
import inspect
import pathlib
import pkgutil

import numpy as onp
import pytest
from mxnet import gluon, init

import d2l.models
import d2l.nn
from d2l.testing import check_block

TESTS = pathlib.Path(__file__).resolve().parents[1]
# What only serves others to inherit from.
INTERFACES = {'HybridBlock', 'OpenBlock', 'Attention', 'Encoder', 'Decoder'}
# What reads a model from files; tests/models calls it.
LOADERS = {'load_pretrained_model'}


def rows():
    """(name, number, make, inputs) of all test files."""
    for path in sorted([*TESTS.glob('nn/test_*.py'), *TESTS.glob('models/test_*.py')]):
        if path.name == pathlib.Path(__file__).name:
            continue
        spec = importlib.util.spec_from_file_location('modes_of_' + path.stem, str(path))
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        for name, cases in getattr(module, 'MODES', {}).items():
            for number, (make, inputs) in enumerate(cases):
                yield pytest.param(make, inputs, id=f'{name}-{number}')


def blocks(package):
    """Names of the blocks, and of functions of d2l.models, that a package defines."""
    for info in pkgutil.iter_modules(package.__path__, package.__name__ + '.'):
        module = importlib.import_module(info.name)
        for name, value in vars(module).items():
            if getattr(value, '__module__', None) != module.__name__ or name.startswith('_'):
                continue
            if inspect.isclass(value) and issubclass(value, gluon.Block):
                if name not in INTERFACES:
                    yield name
            elif package is d2l.models and inspect.isfunction(value) and name not in LOADERS:
                yield name


ROWS = list(rows())


@pytest.mark.parametrize('make, inputs', ROWS)
def test_modes(make, inputs):
    def initialized():
        block = make()
        block.initialize(init=init.Xavier())
        return block
    outputs = check_block(initialized, inputs)
    assert all(onp.isfinite(output).all() for output in outputs)


def test_every_block_has_a_row():
    covered = {row.id.rsplit('-', 1)[0] for row in ROWS}
    wanted = {*blocks(d2l.nn), *blocks(d2l.models)}
    assert wanted <= covered, f'without a row: {sorted(wanted - covered)}'
