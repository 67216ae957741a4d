"""The rooms of the package import one way only, and the facade only re-exports."""
import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / 'd2l'
# What stands directly upstream of a room; it may import that and all that is upstream of it.
UPSTREAM = {
    '__init__': ['_compat'], '_compat': ['_blas', '_malloc', '_numpy_names'],
    '_blas': [], '_malloc': [], '_numpy_names': [],
    'utils': [], 'data': ['utils'], 'ops': ['utils'],
    'parallel': ['_compat', 'ops'], 'nn': ['ops'], 'models': ['nn'],
    'train': ['data', 'models', 'parallel'],
    'deploy': ['data', 'models', 'parallel'], 'mxnet': ['train', 'deploy'], 'testing': ['ops'],
    'contrib': ['train', 'deploy'], 'cli': ['_compat', 'train', 'deploy'], '__main__': ['cli']}
# What runs before `import mxnet`, or while it does.
BEFORE_MXNET = ('_compat', *UPSTREAM['_compat'])


def allowed(room):
    """Itself, the bare package (for __version__; what it imports must not), all upstream."""
    found = {room} if room in BEFORE_MXNET else {room, '__init__'}
    for name in UPSTREAM[room]:
        found |= allowed(name)
    return found


def imported_modules(path, package):
    """(line, absolute name) of every import in a file, also inside functions and by importlib."""
    here = ('d2l',) + path.relative_to(package).parts[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = here[:len(here) - node.level + 1] if node.level else ()
            base = '.'.join(base + ((node.module,) if node.module else ()))
            names = ['{}.{}'.format(base, alias.name) for alias in node.names]
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = getattr(node.func, 'attr', getattr(node.func, 'id', None))
            names = [node.args[0].value] if called in ('import_module', '__import__') else []
        else:
            continue
        for name in names:
            yield node.lineno, name


def violations(package):
    """'file:line: room imports room' for every arrow that is not allowed."""
    found = []
    for path in sorted(package.rglob('*.py')):
        where = path.relative_to(package)
        room = where.parts[0].split('.')[0]
        if room not in UPSTREAM:
            found.append('{}: {} is no room'.format(where, room))
            continue
        for line, name in imported_modules(path, package):
            parts = name.split('.')
            if parts[0] == 'd2l':
                inside = len(parts) > 1 and ((package / parts[1]).is_dir()
                                             or (package / (parts[1] + '.py')).is_file())
                target = parts[1] if inside else '__init__'
                if target not in allowed(room):
                    found.append('{}:{}: {} imports {}'.format(where, line, room, target))
            elif room == '__init__' and parts[0] in ('mxnet', 'numpy'):
                found.append('{}:{}: the package imports {}'.format(where, line, parts[0]))
            elif room in BEFORE_MXNET and parts[0] == 'mxnet':
                found.append('{}:{}: {} imports mxnet'.format(where, line, room))
    return found


def definitions(path):
    """Lines of a file that define something callable."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
    return [node.lineno for node in ast.walk(ast.parse(path.read_text(encoding='utf-8')))
            if isinstance(node, kinds)]


def test_arrows():
    found = violations(PACKAGE)
    assert not found, '\n'.join(found)


def test_facade_defines_nothing():
    assert definitions(PACKAGE / 'mxnet.py') == []


@pytest.fixture
def tree(tmp_path):
    for name in ('__init__', '_compat', '_blas', 'mxnet', 'testing', 'cli'):
        (tmp_path / (name + '.py')).touch()
    for room in ('utils', 'data', 'ops', 'parallel', 'nn', 'models', 'train', 'deploy', 'contrib'):
        (tmp_path / room).mkdir()
    return tmp_path


@pytest.mark.parametrize('file, source, arrow', [
    ('utils/a.py', 'from d2l.ops import x', 'utils imports ops'),
    ('utils/a.py', 'import os, d2l.data.vision as v', 'utils imports data'),
    ('data/a.py', 'def f():\n    from d2l import nn', 'data imports nn'),
    ('data/a.py', 'class A:\n    import d2l.parallel', 'data imports parallel'),
    ('ops/a.py', 'from ..nn.conv import Residual', 'ops imports nn'),
    ('ops/a.py', 'from .. import testing', 'ops imports testing'),
    ('parallel/a.py', 'import importlib\nimportlib.import_module("d2l.models")',
     'parallel imports models'),
    ('nn/a.py', 'from d2l.models.vision import lenet', 'nn imports models'),
    ('models/a.py', 'from d2l.train import x', 'models imports train'),
    ('train/a.py', 'from d2l.deploy import x', 'train imports deploy'),
    ('train/a.py', 'from d2l import mxnet as d2l', 'train imports mxnet'),
    ('deploy/a.py', 'from d2l.cli import main', 'deploy imports cli'),
    ('deploy/a.py', 'import d2l.contrib.cv', 'deploy imports contrib'),
    ('contrib/a.py', 'from d2l.mxnet import Timer', 'contrib imports mxnet'),
    ('mxnet.py', 'from d2l.contrib import cv', 'mxnet imports contrib'),
    ('mxnet.py', 'from d2l.testing import Case', 'mxnet imports testing'),
    ('testing.py', 'from d2l.nn import LayerNorm', 'testing imports nn'),
    ('_compat.py', 'from d2l import __version__', '_compat imports __init__'),
    ('_blas.py', 'from d2l import _compat', '_blas imports _compat'),
    ('_compat.py', 'def f():\n    from mxnet import base', '_compat imports mxnet'),
    ('_numpy_names.py', 'from d2l import _compat', '_numpy_names imports _compat'),
    ('__init__.py', 'from d2l import ops', '__init__ imports ops'),
    ('__init__.py', 'import mxnet', 'the package imports mxnet'),
    ('kitchen/a.py', '', 'kitchen is no room')])
def test_planted_violations_show(tree, file, source, arrow):
    (tree / file).parent.mkdir(exist_ok=True)
    (tree / file).write_text(source)
    found = violations(tree)
    assert len(found) == 1 and found[0].startswith(file.split('.')[0]) and arrow in found[0]


@pytest.mark.parametrize('file, source', [
    ('nn/a.py', 'from d2l.utils.timing import Timer\nfrom d2l import ops, __version__'),
    ('train/a.py', 'from d2l.data import x\nfrom d2l.nn.conv import y\nfrom .b import z'),
    ('contrib/a.py', 'import mxnet\nfrom d2l.deploy import x'),
    ('utils/a.py', 'import numpy, mxnet, d2l'),
    ('cli.py', 'from d2l import _compat, ops'),
    ('mxnet.py', 'from d2l.parallel import x\nfrom mxnet import np')])
def test_allowed_arrows_pass(tree, file, source):
    (tree / file).write_text(source)
    assert violations(tree) == []


@pytest.mark.parametrize('source, lines', [
    ('x = lambda: 1', [1]), ('import os\n\n\ndef f(): pass', [4]), ('class A: pass', [1]),
    ('if 1:\n    async def f(): pass', [2]), ('from d2l.nn import LayerNorm\nd2l = 1', [])])
def test_planted_definitions_show(tmp_path, source, lines):
    path = tmp_path / 'mxnet.py'
    path.write_text(source)
    assert definitions(path) == lines
