"""The names of the book are there, under its signatures."""
import ast
import importlib
import inspect
import json
import os
import pathlib
import subprocess
import sys
import types

import mxnet
import pytest
from mxnet import np

from d2l import mxnet as d2l

BOOK = json.loads((pathlib.Path(__file__).parent / 'api.json').read_text(encoding='utf-8'))
# The book evaluates these defaults while its module is imported; here None stands for them, and
# they are evaluated at the call.
LATE_DEFAULTS = {'d2l.try_gpu()', 'd2l.try_all_gpus()', 'd2l.split_batch'}


def book_parameters(signature):
    """Return the list of (name, kind, default) of a signature as the book writes it."""
    source = f'def f{signature}: pass'
    args = ast.parse(source).body[0].args
    defaults = [ast.get_source_segment(source, node) for node in args.defaults]
    late = [text for text in defaults if text.startswith('d2l.')]
    assert set(late) <= LATE_DEFAULTS
    for text in late:
        signature = signature.replace('=' + text, '=None')
    namespace = {'os': os}
    exec(f'def f{signature}: pass', namespace)  # text of this repository
    return list(inspect.signature(namespace['f']).parameters.values())


def check_signature(ours, signature):
    """Whatever call the book's signature allows, ours must take in the same sense.

    What the book requires may have a default here.
    """
    ours = list(inspect.signature(ours).parameters.values())
    book = book_parameters(signature)
    named = [(p.name, p.kind, p.default) for p in book if p.kind != p.VAR_KEYWORD]
    assert [(p.name, p.kind, p.empty if default is p.empty else p.default)
            for p, (_, _, default) in zip(ours, named)] == named
    if any(p.kind == p.VAR_KEYWORD for p in book):
        # What a Block takes beside its own arguments is these two.
        assert any(p.kind == p.VAR_KEYWORD for p in ours) or \
            [p.name for p in ours[len(named):]] == ['prefix', 'params']
    assert all(p.default is not p.empty or p.kind == p.VAR_KEYWORD for p in ours[len(named):])


def test_the_list_is_that_of_the_whole_book():
    assert len(BOOK['functions']) == 106
    assert len(BOOK['classes']) == 35
    assert len(BOOK['aliases']) == 28
    assert len(BOOK['modules']) == 25
    assert len(BOOK['data_hub']) == 21


@pytest.mark.parametrize('name', BOOK['functions'])
def test_function(name):
    check_signature(getattr(d2l, name), BOOK['functions'][name]['signature'])


def forward_of(cls):
    """What takes a block's inputs: its own ``forward``, or ``hybrid_forward`` without F."""
    if 'forward' in vars(cls):
        return cls.forward

    def without_namespace():
        pass
    signature = inspect.signature(cls.hybrid_forward)
    without_namespace.__signature__ = signature.replace(
        parameters=[p for p in signature.parameters.values() if p.name != 'F'])
    return without_namespace


@pytest.mark.parametrize('name', BOOK['classes'])
def test_class(name):
    cls = getattr(d2l, name)
    for method, signature in BOOK['classes'][name]['methods'].items():
        check_signature(forward_of(cls) if method == 'forward' else getattr(cls, method),
                        signature)


@pytest.mark.parametrize('name', BOOK['constants'])
def test_constant(name):
    assert getattr(d2l, name)


def test_documented():
    for name in [*BOOK['functions'], *BOOK['classes']]:
        assert inspect.getdoc(getattr(d2l, name)), name


@pytest.mark.parametrize('name', BOOK['data_hub'])
def test_data_hub(name):
    url, sha1 = d2l.DATA_HUB[name]
    assert [url.rsplit('/', 1)[1], sha1] == BOOK['data_hub'][name]
    assert url.startswith('https://')


@pytest.mark.parametrize('name', ['bert.base', 'bert.small'])
def test_pretrained_bert_is_in_the_hub(name):
    assert d2l.DATA_HUB[name][0] == d2l.DATA_URL + name + '.zip'


@pytest.mark.parametrize('name', BOOK['aliases'])
def test_alias(name):
    target = BOOK['aliases'][name]
    if target.startswith('np.'):
        expected = np
        for part in target.split('.')[1:]:
            expected = getattr(expected, part)
        assert getattr(d2l, name) is expected
    else:
        # The behaviour is tested in tests/utils/test_arrays.py.
        assert callable(getattr(d2l, name))


@pytest.mark.parametrize('name', BOOK['modules'])
def test_module(name):
    here = {'plt': 'matplotlib.pyplot', 'pd': 'pandas', 'display': 'IPython.display',
            'nn': 'mxnet.gluon.nn', 'rnn': 'mxnet.gluon.rnn', 'np': 'mxnet.numpy',
            'npx': 'mxnet.numpy_extension', 'init': 'mxnet.initializer',
            'defaultdict': 'collections'}
    module = here.get(name, f'mxnet.{name}' if hasattr(mxnet, name) and name in
                      ('autograd', 'context', 'gluon', 'image') else name)
    expected = importlib.import_module(module)
    if name == 'defaultdict':
        expected = expected.defaultdict
    assert getattr(d2l, name) is expected


def test_the_module_knows_itself():
    assert d2l.d2l is d2l
    assert isinstance(d2l.d2l, types.ModuleType)


def test_the_facade_only_gathers():
    tree = ast.parse(pathlib.Path(d2l.__file__).read_text(encoding='utf-8'))
    allowed = (ast.Import, ast.ImportFrom, ast.Assign, ast.Expr)
    assert all(isinstance(node, allowed) for node in tree.body)
    assert all(isinstance(node.value, ast.Constant) for node in tree.body
               if isinstance(node, ast.Expr))
    assert [node.targets[0].id for node in tree.body if isinstance(node, ast.Assign)] == ['d2l']


IMPORT_ALONE = '''
import builtins, socket, sys
sys.modules['IPython'] = None
def no_network(*args, **kwargs):
    raise AssertionError('the import opened a connection')
socket.socket.connect = no_network
socket.create_connection = no_network
import d2l
from mxnet import context, util
import mxnet
def no_probe(*args, **kwargs):
    raise AssertionError('the import looked for a GPU')
context.num_gpus = util.get_gpu_count = mxnet.npx.num_gpus = no_probe
context._LIB.MXGetGPUCount = no_probe
was_numpy = util.is_np_array()
from d2l import mxnet as d2l
d2l.display.display('a figure')
d2l.display.clear_output(wait=True)
d2l.plot([1, 2])
animator = d2l.Animator()
animator.add(1, 2)
assert util.is_np_array() == was_numpy
'''


def test_import_without_ipython_network_and_gpu(tmp_path):
    env = dict(os.environ, MPLBACKEND='Agg', D2L_PROGRESS='0', HOME=str(tmp_path),
               PYTHONPATH=os.pathsep.join(sys.path))
    done = subprocess.run([sys.executable, '-c', IMPORT_ALONE], cwd=str(tmp_path), env=env,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout
    assert done.stdout == ''
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith('.')] == []
