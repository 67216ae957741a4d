"""The different cells of a table in text, each column for itself, as numbers.

The operator library goes through the text once; where there is none, loops do the same.
"""
import collections
import ctypes

import numpy as onp

from d2l.utils import _native

# numbers: int32 (rows, columns), from 0 in the order in which cells first appear; columns: int64,
# of each number; text: a function from a number to the cell, a str.
Cells = collections.namedtuple('Cells', 'numbers columns text')


def number_cells(text, columns):
    """``Cells`` of lines of cells that are separated by tabs; None if it is no such table.

    ``text`` is a str.  Each of its lines, of which there is at least one, must have so many cells;
    the last may do without its end.  Equal cells of two columns have two numbers.
    """
    if not text.endswith('\n'):
        text += '\n'
    return _by_library(text, columns) or _by_line(text, columns)


def _by_library(text, columns):
    number = _native.function('d2l_number_cells', ctypes.c_int64)
    if number is None:
        return None
    data, rows = text.encode('utf-8'), text.count('\n')
    numbers = onp.empty((rows, columns), dtype='int32')
    firsts = onp.empty((rows * columns, 3), dtype='int64')
    found = number(data, *map(ctypes.c_int64, (len(data), rows, columns)),
                   *(array.ctypes.data_as(ctypes.c_void_p) for array in (numbers, firsts)))
    if found < 0:
        return None
    begins, ends = firsts[:found, 1].tolist(), firsts[:found, 2].tolist()
    if len(data) == len(text):
        return Cells(numbers, firsts[:found, 0], lambda i: text[begins[i]:ends[i]])
    return Cells(numbers, firsts[:found, 0], lambda i: data[begins[i]:ends[i]].decode('utf-8'))


def _by_line(text, columns):
    rows = [line.split('\t') for line in text.split('\n')[:-1]]
    if any(len(row) != columns for row in rows):
        return None
    known = {}
    numbers = onp.array([[known.setdefault(cell, len(known)) for cell in enumerate(row)]
                         for row in rows], dtype='int32')
    cells = list(known)
    return Cells(numbers, onp.array([column for column, _ in cells]), lambda i: cells[i][1])
