"""The cells of a table as numbers: the operator library and loops, against a dict by hand."""
import itertools
import random

import numpy as onp
import pytest

from d2l.data._cells import number_cells
from d2l.utils import _native


@pytest.fixture(params=['library', 'loops'])
def number(request, monkeypatch):
    if request.param == 'loops':
        monkeypatch.setenv('D2L_OPS', '0')
    elif _native.function('d2l_number_cells') is None:
        pytest.skip('the operator library was not built')
    else:
        monkeypatch.setattr('d2l.data._cells._by_line', lambda *args: None)
    return number_cells


def check(cells, rows):
    """Numbers in the order of first appearance, each with its column and text."""
    places = {}
    expected = [[places.setdefault(cell, len(places)) for cell in enumerate(row)] for row in rows]
    assert cells.numbers.tolist() == expected and cells.numbers.dtype == onp.int32
    assert cells.columns.tolist() == [column for column, _ in places]
    assert [cells.text(i) for i in range(len(places))] == [text for _, text in places]


@pytest.mark.parametrize('rows', [
    [['a']], [['']], [['', '', '']], [['a', 'a'], ['b', 'a'], ['a', '']],
    [['a', 'a\0'], ['a\0', 'a'], ['\0', '']], [['\u00e9', 'e\u0301'], ['\u8a9e', '\U0001f600']],
    [['12345678', '1234567'], ['123456789', '12345678'], ['1234567', '12345678\0']]])
@pytest.mark.parametrize('end', ['', '\n'])
def test_tables_by_hand(number, rows, end):
    text = '\n'.join('\t'.join(row) for row in rows)
    if text or end:
        check(number(text + end, len(rows[0])), rows)


def test_an_empty_line_is_one_empty_cell(number):
    check(number('\na\n\n', 1), [[''], ['a'], ['']])


@pytest.mark.parametrize('columns', [1, 2, 7])
def test_cells_of_every_length(number, columns):
    """More different ones than the table of the library begins with; long ones share ends."""
    source = random.Random(columns)
    words = [''.join(source.choice('ab\u00e9') for _ in range(length)) + tail
             for length in range(25) for tail in ('', 'x' * 8, 'y' * 17)]
    words += [str(i) for i in range(3000)]
    words += source.choices(words, k=columns * len(words) - len(words))
    rows = [words[i:i + columns] for i in range(0, len(words), columns)]
    source.shuffle(rows)
    check(number('\n'.join(map('\t'.join, rows)), columns), rows)


@pytest.mark.parametrize('text, columns', [
    ('a\tb\n', 1), ('a\tb\n', 3), ('a\tb\nc\n', 2), ('a\tb\n\nc\td\n', 2), ('a\tb\tc\nd\n', 2),
    ('', 2), ('\n', 2), ('a\nb\tc\td\n', 2), ('a\tb\nc\td\te', 2)])
def test_what_is_no_such_table(number, text, columns):
    assert number(text, columns) is None


def test_both_ways_agree_on_random_text(monkeypatch):
    if _native.function('d2l_number_cells') is None:
        pytest.skip('the operator library was not built')
    source, found = random.Random(0), []
    texts = [''.join(source.choices('ab\t\n\u00e9', weights=(9, 9, 3, 1, 3), k=source.randrange(60)))
             for _ in range(300)]
    for switch in ('1', '0'):
        monkeypatch.setenv('D2L_OPS', switch)
        cells = [number_cells(text, columns) for text, columns in itertools.product(texts, (1, 2))]
        found.append([one and (one.numbers.tolist(), one.columns.tolist(),
                               list(map(one.text, range(len(one.columns))))) for one in cells])
    assert found[0] == found[1] and 50 < sum(one is not None for one in found[0]) < 500
