"""The command d2l: it must say something useful on every installation, above all on broken ones."""
import base64
import hashlib
import json
import os
import subprocess
import sys
import types
from pathlib import Path

import pytest

from d2l import _compat, cli

ROOT = Path(__file__).resolve().parents[1]
SECTIONS = ['mxnet', 'd2l', 'python', 'packages', 'variables', 'threads', 'memory', 'blas',
            'processor', 'operators', 'gpus', 'data', 'problems']


def command(*args, options=('-S',), path=(ROOT,), **variables):
    """Runs `python -m d2l` in a fresh process; -S hides site-packages, and MXNet with it."""
    environ = {name: value for name, value in os.environ.items()
               if not name.startswith(('D2L_', 'MXNET_', 'OMP_'))}
    environ.update(variables, PYTHONPATH=os.pathsep.join(map(str, path)))
    return subprocess.run([sys.executable, *options, '-m', 'd2l', *args], text=True, env=environ,
                          capture_output=True, cwd='/', timeout=120)


def env(*args, **kwargs):
    """The facts of `d2l env --json` in a fresh process."""
    done = command('env', '--json', *args, **kwargs)
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert list(facts) == SECTIONS
    return facts


def problem(facts, fragment):
    found = [text for text in facts['problems'] if fragment in text]
    assert found, facts['problems']
    return found[0]


# --- The command line -----------------------------------------------------------------------------

def test_help_and_version_work_without_anything_installed():
    done = command('--help')
    assert done.returncode == 0 and 'env' in done.stdout
    assert command().stdout == done.stdout
    assert command('--version').stdout.strip() == 'd2l ' + cli._version_of_d2l()
    assert '--json' in command('env', '--help').stdout


def test_help_imports_nothing_heavy():
    code = ('import sys; from d2l.cli import main; main([]); main(["--version"]); '
            'print([n for n in ("numpy", "mxnet", "importlib.metadata") if n in sys.modules])')
    done = subprocess.run([sys.executable, '-c', code], stdout=subprocess.PIPE, text=True,
                          env=dict(os.environ, PYTHONPATH=str(ROOT)))
    assert done.stdout.splitlines()[-1] == '[]'


def test_unknown_command():
    done = command('fly')
    assert done.returncode == 2 and 'fly' in done.stderr


def test_command_of_another_module(monkeypatch):
    """One line in COMMANDS is all it takes, and only the chosen command's module is imported."""
    module = types.ModuleType('launcher')
    module.add_arguments = lambda parser: parser.add_argument('-n', type=int)
    module.run = lambda args: args.n
    monkeypatch.setitem(sys.modules, 'launcher', module)
    monkeypatch.setitem(cli.COMMANDS, 'launch', ('start processes', 'launcher'))
    monkeypatch.setitem(cli.COMMANDS, 'never', ('not asked for', 'no_such_module'))
    assert cli.main(['launch', '-n', '3']) == 3


# --- A working installation -----------------------------------------------------------------------

@pytest.fixture(scope='module')
def facts():
    return cli.gather()


def test_facts_of_this_process(facts):
    import mxnet
    import numpy
    assert list(facts) == SECTIONS
    assert facts['mxnet']['version'] == mxnet.__version__
    assert facts['mxnet']['location'] == os.path.dirname(mxnet.__file__)
    assert 'MKLDNN' in facts['mxnet']['features'] or 'MKLDNN' in facts['mxnet']['features_off']
    assert facts['packages']['numpy'] == numpy.__version__
    assert facts['d2l']['location'] == str(ROOT / 'd2l')
    assert facts['python']['executable'] == sys.executable
    assert facts['threads']['mxnet_uses'] >= 1
    assert facts['blas']['kernel'] == _compat.loaded_openblas_core()
    assert set(facts['processor']['instructions']) <= _compat.processor_flags()
    assert facts['gpus']['seen_by_mxnet'] == mxnet.context.num_gpus()
    assert 'time_machine' in facts['data']['samples']
    assert not [name for name in SECTIONS[:-1] if 'error' in facts[name] and facts[name]['error']]


def test_json_and_text_tell_the_same(facts, monkeypatch, capsys):
    monkeypatch.setattr(cli, 'gather', lambda: facts)
    assert cli.main(['env', '--json']) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(facts))
    assert cli.main(['env']) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if not line.startswith(' ')] == SECTIONS
    assert all(len(line) <= 100 for line in lines if os.sep not in line)
    assert any(line.split() == ['version', facts['mxnet']['version']] for line in lines)


def test_text_of_values():
    text = cli.as_text({'a': {'one': 1, 'yes': True, 'none': None, 'empty': [],
                              'map': {'x': [1, 2], 'y': False}}, 'problems': ['p']})
    assert [line.split(None, 1) for line in text.splitlines()] == [
        ['a'], ['one', '1'], ['yes', 'yes'], ['none', '-'], ['empty', '-'],
        ['map', 'x: 1, 2, y: no'], ['problems'], ['p']]


def test_whole_command_in_a_fresh_process():
    facts = env(options=(), OMP_NUM_THREADS='1')
    assert facts['threads']['mxnet_uses'] == 1
    assert facts['threads']['set_by'] == 'OMP_NUM_THREADS=1 (user)'
    assert facts['variables']['OMP_NUM_THREADS'] == '1'
    assert facts['variables']['MXNET_EXEC_INPLACE_GRAD_SUM_CAP'] == '100000 (set by d2l)'


@pytest.mark.parametrize('environ, chosen, expected', [
    ('3', None, 3), ('', {'value': '5'}, 5), ('', {'value': '99'}, 8), ('', None, 4)])
def test_threads_of_mxnet(monkeypatch, environ, chosen, expected):
    monkeypatch.setenv('OMP_NUM_THREADS', environ)
    assert cli._threads_of_mxnet(chosen, 8) == expected


# --- Without MXNet, and with a broken one ---------------------------------------------------------

def test_without_mxnet():
    facts = env()
    assert 'd2l needs MXNet 1.9.1' in facts['mxnet']['error']
    assert 'pip install mxnet==1.9.1' in problem(facts, 'MXNet cannot be imported')
    assert 'MXNet' in facts['operators']['error']
    assert facts['processor']['machine'] and facts['threads']['usable_cores'] >= 1


def test_without_mxnet_as_text():
    done = command('env')
    assert done.returncode == 0 and 'Traceback' not in done.stdout + done.stderr
    assert 'pip install mxnet==1.9.1' in done.stdout.replace('\n    ', ' ')


@pytest.mark.parametrize('body, fragment', [
    ("raise OSError('libcudnn.so.7: cannot open shared object file')", 'CUDA, cuDNN and NCCL'),
    ('raise RuntimeError("half an installation")', 'Install it anew'),
])
def test_broken_mxnet(tmp_path, body, fragment):
    (tmp_path / 'mxnet').mkdir()
    (tmp_path / 'mxnet' / '__init__.py').write_text(body)
    (tmp_path / 'distutils.py').write_text('')  # Python 3.12 has none, and -S hides setuptools'
    facts = env(path=(tmp_path, ROOT))
    text = problem(facts, 'MXNet cannot be imported')
    assert fragment in text and 'pip install' in text
    assert body.split('(')[0].split()[1] in facts['mxnet']['error']


def test_doubled_mxnet_is_a_problem_even_if_it_breaks(tmp_path):
    (tmp_path / 'mxnet').mkdir()
    (tmp_path / 'mxnet' / '__init__.py').write_text('raise RuntimeError("mixed")')
    (tmp_path / 'distutils.py').write_text('')
    for name in ('mxnet', 'mxnet_cu112'):
        (tmp_path / (name + '-1.9.1.dist-info')).mkdir()
    assert 'pip uninstall -y mxnet mxnet-cu112' in problem(env(path=(tmp_path, ROOT)), 'share')


# --- Operators ------------------------------------------------------------------------------------

@pytest.mark.parametrize('info, fragment', [
    ({'path': '/nowhere/libd2l_ops.so', 'loaded': False, 'error': None}, 'make build'),
    ({'path': __file__, 'loaded': False, 'error': None}, 'D2L_OPS=0'),
    ({'path': __file__, 'loaded': False, 'error': 'file too short'}, 'file too short'),
    ({'path': __file__, 'loaded': True, 'error': None}, None),
])
def test_operator_library(monkeypatch, info, fragment):
    from d2l import ops
    monkeypatch.setattr(ops, 'info', lambda: info)
    problems = []
    assert cli._operators(problems) == info
    assert len(problems) == (fragment is not None)
    assert fragment is None or fragment in problems[0]


def test_operators_that_cannot_be_imported(monkeypatch):
    import d2l
    monkeypatch.setitem(sys.modules, 'd2l.ops', None)
    monkeypatch.delattr(d2l, 'ops', raising=False)
    problems = []
    assert 'error' in cli._operators(problems)
    assert 'install it anew' in problems[0]


def test_library_file_that_is_no_library(tmp_path):
    library = tmp_path / 'libd2l_ops.so'
    library.write_text('not a library')
    facts = env(options=(), D2L_OPS_LIBRARY=str(library))
    assert facts['operators']['loaded'] is False
    assert 'libd2l_ops.so' in problem(facts, 'The operators are not loaded')


# --- One section fails ----------------------------------------------------------------------------

def test_section_that_fails_leaves_the_others(monkeypatch):
    def _gpus(problems):
        raise ValueError('no idea')
    monkeypatch.setattr(cli, '_gpus', _gpus)
    facts = cli.gather()
    assert facts['gpus'] == {'error': 'ValueError: no idea'}
    assert 'gpus: ValueError: no idea' in facts['problems']
    assert facts['data'] and 'error' not in facts['data']


def test_slow_kernel_is_a_problem(monkeypatch):
    monkeypatch.setattr(_compat, 'loaded_openblas_core', lambda: 'Prescott')
    monkeypatch.setattr(_compat, 'processor_flags', lambda: {'avx2', 'fma'})
    problems = []
    assert cli._blas(problems)['kernel'] == 'Prescott'
    assert 'Prescott' in problems[0]
    monkeypatch.setattr(_compat, 'loaded_openblas_core', lambda: 'Haswell')
    problems = []
    cli._blas(problems)
    assert problems == []


@pytest.mark.parametrize('core, forced, flags, fragment', [
    ('Haswell', 'Haswell', {'avx2', 'fma', 'avx512f'}, 'OPENBLAS_CORETYPE=Haswell keeps'),
    ('Haswell', 'Haswell', {'avx2', 'fma'}, None),
    ('Haswell', None, {'avx2', 'fma', 'avx512f'}, None),
    ('SkylakeX', 'SkylakeX', {'avx2', 'fma', 'avx512f'}, None),
    (None, 'Haswell', {'avx2', 'fma', 'avx512f'}, None)])
def test_forced_kernel_is_a_problem(monkeypatch, core, forced, flags, fragment):
    products = {'products': 'modern', 'config': 'OpenBLAS', 'core': core, 'functions': ['dot']}
    monkeypatch.setattr(_compat, 'report', lambda: {'blas': None, 'products': core and products})
    monkeypatch.setattr(_compat, 'loaded_openblas_core', lambda: 'Haswell')
    monkeypatch.setattr(_compat, 'processor_flags', lambda: flags)
    monkeypatch.delenv('OPENBLAS_CORETYPE', raising=False)
    if forced:
        monkeypatch.setenv('OPENBLAS_CORETYPE', forced)
    problems = []
    found = cli._blas(problems)['products']
    assert found.startswith('OpenBLAS, for dot' if core else "MXNet's own")
    assert [fragment in text for text in problems] == ([True] if fragment else [])


@pytest.mark.parametrize('script, expected', [
    ('echo "NVIDIA H100, 550.54, 81559 MiB, 9.0"', ['NVIDIA H100, 550.54, 81559 MiB, 9.0']),
    ('echo "no driver"; exit 9', 'error: no driver'), (None, 'not installed')])
def test_nvidia_smi(monkeypatch, tmp_path, script, expected):
    monkeypatch.setenv('PATH', str(tmp_path))
    if script:
        (tmp_path / 'nvidia-smi').write_text('#!/bin/sh\n' + script + '\n')
        (tmp_path / 'nvidia-smi').chmod(0o755)
    assert cli._nvidia_smi() == expected


# --- The book's own package over ours -------------------------------------------------------------

@pytest.fixture
def installed(tmp_path):
    """A site-packages folder with d2l-gluon as pip leaves it (Python files only)."""
    (tmp_path / 'd2l').mkdir()
    record = []
    for name in ('__init__.py', '__main__.py', '_compat.py', 'cli.py', 'testing.py'):
        data = (ROOT / 'd2l' / name).read_bytes()
        (tmp_path / 'd2l' / name).write_bytes(data)
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b'=').decode()
        record.append(f'd2l/{name},sha256={digest},{len(data)}')
    info = tmp_path / 'd2l_gluon-0.1.0.dist-info'
    info.mkdir()
    (info / 'METADATA').write_text('Metadata-Version: 2.1\nName: d2l-gluon\nVersion: 0.1.0\n')
    (info / 'RECORD').write_text('\n'.join(record) + '\n')
    return tmp_path


def test_installed_package(installed):
    facts = env(path=(installed,))
    assert facts['d2l']['distribution'] == 'd2l-gluon 0.1.0'
    assert 'changed_files' not in facts['d2l'] and 'other' not in facts['d2l']
    assert not [text for text in facts['problems'] if 'as they were installed' in text]


def test_overwritten_by_the_books_own_package(installed):
    (installed / 'd2l' / '__init__.py').write_text('__version__ = "1.0.3"\n')
    (installed / 'd2l-1.0.3.dist-info').mkdir()
    (installed / 'd2l-1.0.3.dist-info' / 'METADATA').write_text('Name: d2l\nVersion: 1.0.3\n')
    facts = env(path=(installed,))
    assert facts['d2l']['changed_files'] == ['d2l/__init__.py']
    assert facts['d2l']['other'] == ['d2l 1.0.3']
    assert facts['d2l']['version'] == '1.0.3'
    assert 'd2l/__init__.py' in problem(facts, 'not as they were installed')
    assert 'pip uninstall -y d2l d2l-gluon' in problem(facts, 'd2l 1.0.3 is installed in the same')
    assert 'd2l needs MXNet' in facts['mxnet']['error'], 'prepare() runs all the same'


def test_missing_and_changed_files(installed):
    (installed / 'd2l' / 'testing.py').unlink()
    with (installed / 'd2l' / '_compat.py').open('a') as file:
        file.write('# changed\n')
    facts = env(path=(installed,))
    assert facts['d2l']['changed_files'] == ['d2l/_compat.py', 'd2l/testing.py']
    problem(facts, 'pip install --force-reinstall --no-deps')
