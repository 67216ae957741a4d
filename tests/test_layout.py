"""Each thing stands where the map says, whole: operators, tests, results, sizes, docstrings."""
import ast
import csv
import io
import re
import subprocess
import tokenize
from pathlib import Path

import pytest

import d2l.ops
from benchmarks.run import FIELDS
from d2l.ops import _library

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ['utils', 'data', 'ops', 'parallel', 'nn', 'models', 'train', 'deploy']
SOURCES = ('.py', '.cc', '.h', '.cu')
MAX_LINES = 500
# The files of an operator, with {} for its stem.
STEM = ['src/operators/{}.h', 'src/operators/{}.cc', 'src/operators/{}.cu', 'd2l/ops/{}.py',
        'tests/ops/test_{}.py', 'benchmarks/ops/{}.py']
# Modules without a test file of their own, and tests that no module has the name of.
TESTED_ELSEWHERE = {
    'd2l/nn/layer_norm.py': 'tests/ops/test_layer_norm.py'}
TESTS_OF_NO_MODULE = {
    'tests/ops/test_random_calls.py': 'calls all operators',
    'tests/ops/test_random_updates.py': 'calls those that change lists of arrays',
    'tests/ops/test_direct.py': 'src/operators/mxnet/direct.cc',
    'tests/ops/test_build.py': 'setup.py and the objects it makes',
    'tests/ops/test_sanitized.py': 'tests/ops/sanitized.py',
    'tests/ops/test_vec_math.py': 'src/operators/common/vec_math.h and half.h',
    'tests/ops/test_gemm.py': 'src/operators/common/gemm.h',
    'tests/ops/test_stream.py': 'src/operators/common/stream.h',
    'tests/ops/test_philox.py': 'src/operators/common/philox.h and dropout.h',
    'tests/ops/sanitized.py': 'what make asan runs',
    'tests/nn/test_modes.py': 'all blocks and models, in every mode',
    'tests/parallel/test_faults.py': 'whole jobs of which a process fails',
    'tests/parallel/test_examples.py': 'examples/resnet18.py and bert_small.py',
    'tests/parallel/test_two_hosts.py': 'where jobs listen',
    'tests/parallel/test_engine_defects.py': 'the defects of MXNet that d2l.parallel mends',
    'tests/parallel/test_checkpoint_workers.py': 'd2l/parallel/checkpoint.py',
    'tests/parallel/test_ring.py': 'd2l/parallel/stores/ring.py'}
# Code that needs characters beyond ASCII in its strings or comments: file -> which, why.
NON_ASCII = {}
REQUIRED = ['date', 'commit', 'machine', 'isa', 'threads', 'case', 'provider', 'cpu_ms', 'wall_ms',
            'spread']
# In two halves, so that this line is not one of those it looks for.
MACHINE_PATH = re.compile(r'(?<![\w.:>)}])/(?:ro' r'ot|wo' r'rk|ho' r'me/\w+|Us' r'ers/\w+)/')


def repository_files(root=ROOT):
    """Tracked files and those about to be; without git, what stands in the source folders."""
    try:
        out = subprocess.check_output(['git', 'ls-files', '-z', '-co', '--exclude-standard'],
                                      cwd=str(root), stderr=subprocess.DEVNULL)
        names = sorted(set(filter(None, out.decode().split('\0'))))
    except (OSError, subprocess.CalledProcessError):
        names = [str(p.relative_to(root)) for folder in ('d2l', 'src', 'tests', 'benchmarks')
                 for p in sorted((root / folder).rglob('*')) if '__pycache__' not in p.parts]
    return [root / name for name in names if (root / name).is_file()]


def source_files():
    return [p for p in repository_files() if p.suffix in SOURCES]


def read(path):
    return path.read_text(encoding='utf-8')


def incomplete_stems(root):
    """Files that an operator lacks, for every operator that has at least one of them."""
    present = {}
    for pattern in STEM:
        folder, name = pattern.rsplit('/', 1)
        expression = re.compile(name.replace('.', r'\.').replace('{}', '([a-z][a-z0-9_]*)') + '$')
        for path in (root / folder).glob('*'):
            match = expression.match(path.name)
            if match and str(path.relative_to(root)) not in TESTS_OF_NO_MODULE and not (
                    root / 'd2l' / 'ops' / '_{}.py'.format(match.group(1))).exists():
                present.setdefault(match.group(1), set()).add(pattern)
    return sorted(pattern.format(stem) for stem, found in present.items()
                  for pattern in STEM if pattern not in found)


def untested(root):
    """Public modules of the rooms without a test file, and test files without a module."""
    found = []
    for room in ROOMS:
        for path in sorted((root / 'd2l' / room).glob('[!_]*.py')):
            name = str(path.relative_to(root))
            test = 'tests/{}/test_{}'.format(room, path.name)
            if not (root / test).exists() and name not in TESTED_ELSEWHERE:
                found.append('{} has no {}'.format(name, test))
        for path in sorted((root / 'tests' / room).glob('test_*.py')):
            module, name = path.name[len('test_'):], str(path.relative_to(root))
            if name not in TESTS_OF_NO_MODULE and not any(
                    (root / 'd2l' / room / n).exists() for n in (module, '_' + module)):
                found.append('{} tests no module'.format(name))
    return found


def unpackaged(package):
    """Folders with modules that an installed d2l would lack, since they are no packages."""
    folders = sorted({p.parent for p in package.rglob('*.py')})
    return [str(f.relative_to(package)) for f in folders if not (f / '__init__.py').exists()]


def too_long(paths):
    counts = ((path, len(read(path).splitlines())) for path in paths)
    return ['{}: {} lines'.format(path, n) for path, n in counts if n > MAX_LINES]


def machine_paths(paths):
    """'file:line: text' wherever a text file names a folder of somebody's machine."""
    found = []
    for path in paths:
        data = path.read_bytes()
        if b'\0' in data:
            continue
        for number, line in enumerate(data.decode('utf-8', 'replace').splitlines(), 1):
            if MACHINE_PATH.search(line):
                found.append('{}:{}: {}'.format(path, number, line.strip()[:80]))
    return found


def without_text(path):
    """A source with its comments and strings blanked."""
    source = read(path)
    if path.suffix == '.py':
        texts = [tokenize.STRING, tokenize.COMMENT] + [
            getattr(tokenize, name) for name in ('FSTRING_START', 'FSTRING_MIDDLE', 'FSTRING_END')
            if hasattr(tokenize, name)]
        tokens = tokenize.generate_tokens(io.StringIO(source).readline)
        return ' '.join(token.string for token in tokens if token.type not in texts)
    return re.sub(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"', '', source, flags=re.S)


def non_ascii(paths, permitted=()):
    """Sources with other characters than ASCII: in code never, in text only where permitted."""
    return [str(path) for path in paths if not read(path).isascii()
            and not (str(path) in permitted and without_text(path).isascii())]


def undocumented(package):
    """'file:line: name' of public functions and classes without a docstring."""
    found = []
    for path in sorted(p for room in ROOMS for p in (package / room).rglob('*.py')):
        for node in ast.parse(read(path)).body:
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) and not (
                    node.name.startswith('_') or ast.get_docstring(node)):
                found.append('{}:{}: {}'.format(path.relative_to(package), node.lineno, node.name))
    return found


def bad_results(path):
    """What is wrong with a file of benchmark rows."""
    with path.open(newline='', encoding='utf-8') as f:
        lines = list(csv.reader(f))
    if not lines or lines[0] != FIELDS:
        return ['{}: the fields are not those of benchmarks/run.py'.format(path)]
    found = []
    for number, line in enumerate(lines[1:], 2):
        row = dict(zip(FIELDS, line))
        if len(line) != len(FIELDS) or not all(row[name] for name in REQUIRED):
            found.append('{}:{}: incomplete'.format(path, number))
    return found


def none(found):
    assert not found, '\n' + '\n'.join(found)


def operators():
    return sorted(p.stem for p in (ROOT / 'src' / 'operators').glob('*.cc'))


def test_operators_have_all_files():
    assert 'layer_norm' in operators()
    none(incomplete_stems(ROOT))


@pytest.mark.parametrize('name', operators())
def test_operator_is_exported_and_built(name):
    assert name in d2l.ops.__all__ and getattr(d2l.ops, name).kernel == name
    if _library.library() is None:
        pytest.fail('the operator library is not built: make build')
    assert name in d2l.ops.available()
    assert set(d2l.ops.info()['operators'][name]) >= {'v2', 'v3', 'v4'}


def test_library_has_no_other_operators():
    assert d2l.ops.available() == operators()


def test_rooms_are_packages():
    none(unpackaged(ROOT / 'd2l'))


def test_modules_have_tests():
    none(untested(ROOT))


def test_listed_exceptions_exist():
    listed = [*TESTED_ELSEWHERE, *TESTS_OF_NO_MODULE, *NON_ASCII]
    none([name for name in listed if not (ROOT / name).exists()])


def test_files_are_short():
    none(too_long(source_files()))


def test_no_machine_paths():
    none(machine_paths(repository_files()))


def test_code_is_ascii():
    none(non_ascii(source_files(), [str(ROOT / name) for name in NON_ASCII]))


def test_public_names_have_docstrings():
    none(undocumented(ROOT / 'd2l'))


def test_results_have_all_fields():
    files = [p for p in sorted((ROOT / 'benchmarks' / 'results').glob('*.csv'))
             if not p.name.startswith('gpu_')]  # those have fields of their own
    none([text for path in files for text in bad_results(path)])


# The checks above see what they are for.

@pytest.fixture
def tree(tmp_path):
    """A repository with one whole operator."""
    for pattern in STEM:
        path = tmp_path / pattern.format('relu')
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path


@pytest.mark.parametrize('pattern', STEM)
def test_a_missing_file_shows(tree, pattern):
    assert incomplete_stems(tree) == []
    (tree / pattern.format('relu')).unlink()
    assert incomplete_stems(tree) == [pattern.format('relu')]


@pytest.mark.parametrize('pattern', STEM)
def test_an_orphan_shows(tree, pattern):
    (tree / pattern.format('gelu')).touch()
    assert incomplete_stems(tree) == sorted(p.format('gelu') for p in STEM if p != pattern)


def test_private_modules_are_no_operators(tree):
    for name in ('d2l/ops/_library.py', 'd2l/ops/__init__.py', 'tests/ops/test_library.py',
                 'tests/ops/conftest.py', 'tests/ops/sanitized.py'):
        (tree / name).touch()
    assert incomplete_stems(tree) == []
    assert untested(tree) == []


def test_an_untested_module_and_an_orphaned_test_show(tree):
    (tree / 'd2l' / 'data').mkdir()
    (tree / 'd2l' / 'data' / 'text.py').touch()
    (tree / 'tests' / 'ops' / 'test_gone.py').touch()
    assert untested(tree) == ['d2l/data/text.py has no tests/data/test_text.py',
                              'tests/ops/test_gone.py tests no module']


def test_a_room_without_init_shows(tree):
    assert unpackaged(tree / 'd2l') == ['ops']
    (tree / 'd2l' / 'ops' / '__init__.py').touch()
    assert unpackaged(tree / 'd2l') == []


def test_a_long_file_shows(tmp_path):
    for name, lines in (('short.py', MAX_LINES), ('long.py', MAX_LINES + 1)):
        (tmp_path / name).write_text('x\n' * lines)
    assert too_long(sorted(tmp_path.glob('*'))) == [
        '{}: {} lines'.format(tmp_path / 'long.py', MAX_LINES + 1)]


@pytest.mark.parametrize('text, count', [
    ('cd /ro' 'ot/x', 1), ('a\n"/wo' 'rk/main"\n', 1), ('/ho' 'me/me/data and', 1),
    ('(/Us' 'ers/me/x)', 1), ('http://a.org/wo' 'rk/x', 0), ('src/ho' 'me/x/y', 0),
    ('$(ROOT)/wo' 'rk/', 0), ('/usr/share/datasets', 0), ('\0/ro' 'ot/x', 0)])
def test_machine_paths_show(tmp_path, text, count):
    path = tmp_path / 'a.md'
    path.write_text(text)
    assert len(machine_paths([path])) == count


@pytest.mark.parametrize('name, source, permitted, fine', [
    ('a.py', 'x = "\xe9"', False, False), ('a.py', 'x = "\xe9"  # \xe9', True, True),
    ('a.py', 'x = f"{x}\xe9"', True, True), ('a.py', '\xe9 = 1', True, False),
    ('a.py', 'x = 1', False, True), ('a.h', '// \xe9\n/* \xe9\n */ "\xe9";', True, True),
    ('a.h', '// x\nint \xe9;', True, False), ('a.cc', '// \xe9', False, False)])
def test_non_ascii_shows(tmp_path, name, source, permitted, fine):
    path = tmp_path / name
    path.write_text(source, encoding='utf-8')
    assert non_ascii([path], [str(path)] if permitted else []) == ([] if fine else [str(path)])


def test_a_missing_docstring_shows(tmp_path):
    (tmp_path / 'nn').mkdir()
    (tmp_path / 'nn' / 'conv.py').write_text(
        'def _private(): pass\n\n\ndef f():\n    """Text."""\n    def inner(): pass\n\n\n'
        'def g(): pass\n\n\nclass A:\n    def f(self): pass\n')
    assert undocumented(tmp_path) == ['nn/conv.py:9: g', 'nn/conv.py:12: A']


def test_bad_results_show(tmp_path):
    path = tmp_path / 'relu.csv'
    row = ','.join('1' for _ in FIELDS)
    path.write_text(','.join(FIELDS) + '\n' + row + '\n')
    assert bad_results(path) == []
    path.write_text(','.join(FIELDS) + '\n' + row + ',1\n' + ',' * (len(FIELDS) - 1) + '\n')
    assert bad_results(path) == ['{}:2: incomplete'.format(path), '{}:3: incomplete'.format(path)]
    path.write_text(','.join(FIELDS[1:]) + '\n')
    assert len(bad_results(path)) == 1
