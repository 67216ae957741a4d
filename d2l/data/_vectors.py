"""Files of word vectors, as GloVe and fastText write them, parsed as whole arrays.

A line is a token, then its numbers, separated by single spaces.  Most numbers are one digit, a
point and up to eight digits.  The eight bytes behind the point are read as one integer and their
digits joined by three multiplications.  Every other number goes through ``float``.  Both give the
same bits: the integer is exact, and its one division rounds as ``float`` does.
"""
import numpy as onp

# Pieces of about this size are parsed at once.  Their arrays, 8 bytes for each number, then stay
# below the size from which the C library gets fresh pages for every one of them.
_CHUNK_BYTES = 112 << 10

_SPACE, _NEWLINE, _MINUS, _POINT, _ZERO = b' \n-.0'


def read_vectors(path, on_bytes=None):
    """The tokens and the vectors of a file.

    Returns a list of n str, and a float32 numpy array of shape (n + 1, d) whose first row is
    zeros; the row of token i is i + 1.  A first line with one number, as fastText has it, is
    skipped, and so are blank lines.  ``on_bytes`` is called with the number of bytes that have
    been read since its last call.

    Raises ``ValueError`` with the number of the line for one that has not d numbers or is not
    UTF-8, and for a file without vectors.
    """
    with open(path, 'rb') as file:
        lines = 1 + sum(_line_ends(chunk) for chunk in iter(lambda: file.read(1 << 16), b''))
        file.seek(0)
        head, rest = _header(file)
        size = _vector_size(rest)
        if size < 2:
            raise ValueError(f'{path}, line {head + 1}: a line must have a token and at least two '
                             f'numbers, got {rest[:80]!r}')
        vectors = onp.zeros((lines + 1, size), dtype='float32')
        tokens, number, done = [], head + 1, 0
        for chunk in _chunks(file, rest):
            new, values = _parse(chunk, size) or _parse_by_line(chunk, size, path, number)
            vectors[len(tokens) + 1:len(tokens) + 1 + len(new)] = values
            tokens += new
            number += _line_ends(chunk)
            if on_bytes is not None:
                on_bytes(file.tell() - done)
                done = file.tell()
    return tokens, vectors[:len(tokens) + 1]


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


def _parse(chunk, size):
    """The tokens and the float32 rows of whole lines; None if a line is blank or damaged."""
    found = _parse_plain(chunk, size)
    return _parse_plain(_stripped(chunk), size) if found is None else found


def _parse_plain(text, size):
    # Eight bytes more: a word of eight may begin at the last byte.
    padded = onp.frombuffer(text + bytes(8), dtype='uint8')
    content = padded[:len(text)]
    ends = onp.flatnonzero((content == _SPACE) | (content == _NEWLINE))
    if len(ends) % (size + 1):
        return None
    ends = ends.reshape(-1, size + 1)
    if (content[ends[:, -1]] != _NEWLINE).any() or _line_ends(text) != len(ends):
        return None
    begins = onp.concatenate([[0], ends[:-1, -1] + 1]).tolist()
    try:
        tokens = [text[begin:end].decode('utf-8')
                  for begin, end in zip(begins, ends[:, 0].tolist())]
        values = _numbers(text, padded, ends[:, :-1].ravel() + 1, ends[:, 1:].ravel())
    except ValueError:
        return None
    return tokens, values.reshape(-1, size)


def _numbers(text, padded, begins, ends):
    """The numbers between begins and ends, float32.  Raises ValueError for what is none."""
    heads = _words(padded, '<u4')[begins]
    negative = (heads & 0xFF) == _MINUS
    heads >>= negative.astype('uint32') << 3
    digits = (heads & 0xFF) - _ZERO
    fractions = begins + 2
    fractions += negative
    lengths = ends - fractions
    # Of a shorter fraction only the bytes that belong to it count; zeros follow.
    unused = onp.minimum(onp.maximum(64 - 8 * lengths, 0), 63).view('uint64')
    tails = _words(padded, '<u8')[onp.minimum(fractions, len(text))]
    tails ^= onp.uint64(0x3030303030303030)
    tails &= onp.uint64(0xFFFFFFFFFFFFFFFF) >> unused
    above_nine = ((tails + onp.uint64(0x7676767676767676)) | tails) & onp.uint64(0x8080808080808080)
    fast = (lengths >= 1) & (lengths <= 8) & (above_nine == 0)
    fast &= ((heads >> 8) & 0xFF) == _POINT
    fast &= digits <= 9
    values = digits * 1e8
    values += _joined(tails)
    values /= 1e8
    values *= 1.0 - 2.0 * negative
    others = onp.flatnonzero(~fast)
    values[others] = [_float(text[begin:end]) for begin, end
                      in zip(begins[others].tolist(), ends[others].tolist())]
    with onp.errstate(over='ignore'):
        return values.astype('float32')


def _words(padded, dtype):
    """A view with an entry for each byte: the word that begins there."""
    return onp.ndarray((len(padded) - 7,), dtype, buffer=padded, strides=(1,))


def _joined(digits):
    """Eight bytes of 0 to 9, the first one being the most significant, as one number."""
    digits = digits * onp.uint64(10 * 2 ** 8 + 1)
    digits >>= onp.uint64(8)
    digits &= onp.uint64(0x00FF00FF00FF00FF)
    digits *= onp.uint64(100 * 2 ** 16 + 1)
    digits >>= onp.uint64(16)
    digits &= onp.uint64(0x0000FFFF0000FFFF)
    digits *= onp.uint64(10000 * 2 ** 32 + 1)
    digits >>= onp.uint64(32)
    return digits


def _float(text):
    # float() would also take white space around a number, and underscores in it.
    if b'_' in text or text != text.strip():
        raise ValueError(f'{text!r} is no number')
    return float(text)


def _parse_by_line(chunk, size, path, number):
    """What ``_parse`` gives, for lines of which one is blank or damaged."""
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
