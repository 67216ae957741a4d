"""docs/faults.md is whole: every marked name has a row, every row four cells and a real test."""
import ast
import json
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGE = ROOT / 'docs' / 'faults.md'
# The names of the book's module that are known to have a fault or a pitfall.
MARKED = json.loads((pathlib.Path(__file__).parent / 'faults.json').read_text(encoding='utf-8'))
HEAD = ['name', 'what the original did', 'what d2l does', 'test']
TEST_ID = re.compile(r'`(tests/[\w/]+\.py)::(\w+)(\[[^\]`]+\])?`')


def tables(text):
    """Return the list of tables, each a list of lines, each a list of cells."""
    found, inside = [], False
    for line in text.splitlines():
        if line.startswith('|'):
            if not inside:
                found.append([])
            found[-1].append([cell.strip() for cell in line.strip().strip('|').split('|')])
        inside = line.startswith('|')
    return found


def rows(text):
    """Return the rows of all tables, without the two lines of each head."""
    return [row for table in tables(text) for row in table[2:]]


def malformed(text):
    """Return what is wrong with heads, rows and the cells of the last column."""
    found = [f'head {table[0]}' for table in tables(text)
             if table[0] != HEAD or table[1:2] != [['---'] * 4]]
    for row in rows(text):
        if len(row) != len(HEAD) or not all(row):
            found.append(f'{len(row)} cells, or an empty one: {row}')
        elif not TEST_ID.fullmatch(row[3]):
            found.append(f'no test id: {row[3]}')
    return found


def defined_in(path):
    """Return the names of the test functions of a file."""
    body = ast.parse(path.read_text(encoding='utf-8')).body
    return {node.name for node in body if isinstance(node, ast.FunctionDef)}


def missing_tests(text, root=ROOT):
    """Return the tests that the page names and nobody has written."""
    wanted = [TEST_ID.fullmatch(row[-1]).groups() for row in rows(text)
              if TEST_ID.fullmatch(row[-1])]
    defined = {file: defined_in(root / file) if (root / file).is_file() else set()
               for file, _, _ in wanted}
    return sorted({f'{file}::{name}' for file, name, _ in wanted if name not in defined[file]})


def unmentioned(text, names):
    """Return the names without a row."""
    present = {row[0].strip('`') for row in rows(text)}
    return sorted(set(names) - present)


def opened_without_encoding(source):
    """Return the lines that call open() for text in whatever encoding the machine has."""
    calls = [node for node in ast.walk(ast.parse(source))
             if isinstance(node, ast.Call) and getattr(node.func, 'id', None) == 'open']
    found = []
    for call in calls:
        arguments = {keyword.arg: keyword.value for keyword in call.keywords}
        mode = arguments.get('mode', call.args[1] if len(call.args) > 1 else None)
        if 'encoding' not in arguments and 'b' not in getattr(mode, 'value', ''):
            found.append(call.lineno)
    return found


def page():
    if not PAGE.is_file():
        pytest.fail(f'{PAGE} is not there')
    return PAGE.read_text(encoding='utf-8')


def test_rows_are_whole():
    assert malformed(page()) == []


def test_every_marked_name_has_a_row():
    assert len(MARKED) == 103
    assert unmentioned(page(), MARKED) == []


def test_every_test_exists():
    assert missing_tests(page()) == []


def test_no_row_twice():
    names = [(row[0], row[1]) for row in rows(page())]
    assert sorted({name for name in names if names.count(name) > 1}) == []


@pytest.mark.parametrize('path', sorted((ROOT / 'd2l' / 'data').glob('*.py')), ids=lambda p: p.stem)
def test_data_are_read_in_an_encoding_of_their_own(path):
    """The original's readers failed where the machine's is not UTF-8."""
    assert opened_without_encoding(path.read_text(encoding='utf-8')) == []


# The checks above see what they are for.

GOOD = '''# Faults

## Chapter 2

| name | what the original did | what d2l does | test |
|---|---|---|---|
| `plot` | fails | works | `tests/a.py::test_a[x-1]` |

## Chapter 3

| name | what the original did | what d2l does | test |
|---|---|---|---|
| `Timer.avg` | fails | works | `tests/a.py::test_b` |
'''


@pytest.fixture
def repository(tmp_path):
    (tmp_path / 'tests').mkdir()
    (tmp_path / 'tests' / 'a.py').write_text(
        'def test_a(x): pass\n\n\ndef test_b():\n    def test_c(): pass\n')
    return tmp_path


def test_a_good_page_passes(repository):
    assert malformed(GOOD) == [] and missing_tests(GOOD, repository) == []
    assert unmentioned(GOOD, ['plot', 'Timer.avg']) == []


@pytest.mark.parametrize('old, new, count', [
    ('| works | `tests/a.py::test_b` |', '| `tests/a.py::test_b` |', 1),
    ('| works | `tests/a.py::test_b` |', '| works | or not | `tests/a.py::test_b` |', 1),
    ('| fails | works | `tests/a.py::test_b`', '|  | works | `tests/a.py::test_b`', 1),
    ('`tests/a.py::test_b`', 'tests/a.py::test_b', 1), ('`tests/a.py::test_b`', '`test_b`', 1),
    ('| name | what', '| Name | what', 2), ('|---|---|---|---|\n', '', 2)])
def test_a_malformed_page_shows(old, new, count):
    assert old in GOOD
    assert len(malformed(GOOD.replace(old, new))) == count


@pytest.mark.parametrize('new', ['test_d', 'test_c', 'test_B'])
def test_a_missing_test_shows(repository, new):
    assert missing_tests(GOOD.replace('test_b', new), repository) == [f'tests/a.py::{new}']


def test_a_missing_file_shows(repository):
    (repository / 'tests' / 'a.py').unlink()
    assert missing_tests(GOOD, repository) == ['tests/a.py::test_a', 'tests/a.py::test_b']


@pytest.mark.parametrize('name', ['Timer', 'plots', 'Timer.sum'])
def test_a_missing_name_shows(name):
    assert unmentioned(GOOD, ['plot', name]) == [name]


@pytest.mark.parametrize('call, lines', [
    ('open(p)', [1]), ('\nwith open(p, "r") as f:\n    pass', [2]), ('open(p, mode="w")', [1]),
    ('open(p, "rb")', []), ('open(p, mode="wb")', []), ('open(p, encoding="utf-8")', []),
    ('os.open(p, 0)', []), ('opened(p)', [])])
def test_an_encoding_left_out_shows(call, lines):
    assert opened_without_encoding(call) == lines
