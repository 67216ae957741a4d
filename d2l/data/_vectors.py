"""Files of word vectors, as GloVe and fastText write them.

A line is a token, then its numbers, separated by single spaces.  Whole pieces of the file go to a
parser in the operator library; a piece in which something is unusual, and every one where there is
no library, is taken apart line by line.  Both give the bits of ``float``.
"""
import ctypes
import os

import numpy as onp

from d2l.utils import _native

_CHUNK_BYTES = 1 << 17

_NEWLINE = ord('\n')


def read_vectors(path, on_bytes=None):
    """The tokens and the vectors of a file.

    Returns a list of n str, and a float32 numpy array of shape (n + 1, d) whose first row is
    zeros; the row of token i is i + 1.  A first line with one number, as fastText has it, is
    skipped, and so are blank lines.  ``on_bytes`` is called with the number of bytes that have
    been read since its last call.

    Raises ``ValueError`` with the number of the line for one that has not d numbers or is not
    UTF-8, and for a file without vectors.
    """
    tokens, done = [], 0
    with open(path, 'rb') as file:
        length = os.fstat(file.fileno()).st_size
        number, rest = _header(file)
        number += 1
        size = _vector_size(rest)
        if size < 2:
            raise ValueError(f'{path}, line {number}: a line must have a token and at least two '
                             f'numbers, got {rest[:80]!r}')
        vectors, used = onp.zeros((1, size), dtype='float32'), 1
        for chunk in _chunks(file, rest):
            lines = _line_ends(chunk)
            if used + lines > len(vectors):
                # As many lines a byte as here: one array from the start, no copy of pieces.
                left = lines * max(length - file.tell(), 0) // len(chunk)
                vectors.resize((used + lines + left, size), refcheck=False)
            new = _parse(chunk, vectors[used:used + lines])
            if new is None:
                new, values = _parse_by_line(chunk, size, path, number)
                vectors[used:used + len(values)] = values
            tokens += new
            used += len(new)
            number += lines
            if on_bytes is not None:
                on_bytes(file.tell() - done)
                done = file.tell()
    vectors.resize((used, size), refcheck=False)
    return tokens, vectors


def _chunks(file, rest):
    """``rest`` and what follows it, in pieces of whole lines, each with its line end."""
    for more in iter(lambda: file.read(_CHUNK_BYTES), b''):
        rest += more
        end = rest.rfind(b'\n') + 1
        if end:
            yield rest[:end]
            rest = rest[end:]
    if rest:
        yield rest if rest.endswith(b'\n') else rest + b'\n'


def _line_ends(chunk):
    # Four times as fast as chunk.count.
    return onp.count_nonzero(onp.frombuffer(chunk, dtype='uint8') == _NEWLINE)


def _header(file):
    """The number of lines to skip at the beginning, and the first line after them."""
    skipped = 0
    for line in iter(file.readline, b''):
        if len(line.split()) > 2 or skipped and line.strip():
            return skipped, line
        skipped += 1
    return skipped, b''


def _vector_size(line):
    return len(_stripped(line).rstrip(b'\n').split(b' ')) - 1


def _stripped(chunk):
    """Without spaces and carriage returns at the ends of lines."""
    while b' \n' in chunk or b'\r\n' in chunk:
        chunk = chunk.replace(b' \n', b'\n').replace(b'\r\n', b'\n')
    return chunk


def _parse(chunk, rows):
    """The tokens of whole lines, whose numbers go to the float32 rows, one for each line.

    None if they must be found line by line.
    """
    parse = _native.function('d2l_parse_vectors', ctypes.c_int64)
    if parse is None:
        return None
    tokens = onp.empty(len(chunk), dtype='uint8')
    used = parse(chunk, ctypes.c_int64(len(chunk)), ctypes.c_int64(rows.shape[1]),
                 rows.ctypes.data_as(ctypes.c_void_p), tokens.ctypes.data_as(ctypes.c_void_p))
    if used < 0:
        return None
    try:
        return tokens[:used].tobytes().decode('utf-8').split('\n')[:-1]
    except UnicodeDecodeError:
        return None


def _float(text):
    # float() would also take white space around a number, and underscores in it.
    if b'_' in text or text != text.strip():
        raise ValueError(f'{text!r} is no number')
    return float(text)


def _parse_by_line(chunk, size, path, number):
    """The tokens and the float32 rows of whole lines, some of which may be blank."""
    tokens, rows = [], []
    for count, line in enumerate(chunk.split(b'\n')[:-1], start=number):
        if not line.strip():
            continue
        token, *values = _stripped(line + b'\n')[:-1].split(b' ')
        if len(values) != size:
            raise ValueError(f'{path}, line {count}: the line should have a token and {size} '
                             f'numbers, as the first one, got {len(values)} numbers')
        try:
            tokens.append(token.decode('utf-8'))
        except UnicodeDecodeError as error:
            raise ValueError(f'{path}, line {count}: the token is not UTF-8: {error}') from error
        try:
            rows.append([_float(value) for value in values])
        except ValueError as error:
            raise ValueError(f'{path}, line {count}: {error}') from error
    with onp.errstate(over='ignore'):
        return tokens, onp.array(rows).reshape(len(rows), size).astype('float32')
