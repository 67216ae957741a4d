"""Parsing of word vectors: the same bits as float() for every number, and what is damaged."""
import random
import tracemalloc

import numpy as onp
import pytest

from d2l.data import _vectors
from d2l.data._vectors import read_vectors
from d2l.utils import _native


@pytest.fixture(params=['library', 'line by line'])
def read(request, tmp_path, monkeypatch):
    """read_vectors of a text, in both ways."""
    if request.param == 'line by line':
        monkeypatch.setenv('D2L_OPS', '0')
    elif _native.function('d2l_parse_vectors') is None:
        pytest.skip('the operator library was not built')

    def run(content, **kwargs):
        path = tmp_path / 'vec.txt'
        path.write_bytes(content if isinstance(content, bytes) else content.encode('utf-8'))
        return read_vectors(str(path), **kwargs)
    return run


def bits(values):
    with onp.errstate(over='ignore'):
        return onp.asarray(values, dtype='float32').view('uint32').tolist()


def by_float(lines):
    return onp.array([[float(value) for value in line.split(' ')[1:]] for line in lines])


ODD = ['1e-5', '-1E+5', '-0', '0', '-0.0', '0.0', 'nan', '-nan', 'inf', '-inf', '1', '12', '-7',
       '10.5', '-10.5', '123456.789', '.5', '-.5', '5.', '+1.5', '0.1234567', '0.12345678',
       '-0.12345678', '0.123456789', '0.1234567890123456789', '-9.99999999', '9.99999999',
       '0.00000001', '-0.00000001', '1e40', '-1e40', '1e-50', '1e-310', '3.4028236e38', '0.1e3',
       '1.0e-4', '1.e2', '00.5', '0.30000001192092896', '1.00000006', '16777217.0', '0.5e', '0x1']


@pytest.mark.parametrize('text', ODD[:-2])
@pytest.mark.parametrize('place', [0, 1, 2])
def test_odd_numbers_have_the_bits_of_float(read, text, place):
    """At the beginning, in the middle and at the very end of the text."""
    numbers = ['0.25', '-0.5', '1.75']
    numbers[place] = text
    line = ' '.join(['word', *numbers])
    for content in (line, line + '\n', line + '\nother 1.5 2.5 -3.5\n'):
        assert bits(read(content)[1][1]) == bits(by_float([line])[0])


@pytest.mark.parametrize('text', [
    *ODD[-2:], '', '-', '.', '1_0', '1_0.5', '0.1_5', '\t1.5', '1.5\t', '0.5\x00', '1,5', '0:5',
    '0./5', '0.5:', '0.:5', '--0.5', '0-5', '1.-5', ':.5', '/.5', '0.5\xb2', '\u0661.5'])
def test_what_is_no_number(read, text):
    for numbers in ((text, '0.5', '0.5'), ('0.5', text, '0.5')):
        with pytest.raises(ValueError, match=r'vec\.txt, line 3: '):
            read(' '.join(['a', '0.1', '0.2', '0.3']) + '\nb 1 2 3\n' + ' '.join(['c', *numbers])
                 + '\nd 0.1 0.2 0.3\n')


def test_many_numbers_have_the_bits_of_float(read):
    source = random.Random(0)
    kinds = [lambda: f'{source.gauss(0, 1):.{source.randint(0, 12)}f}',
             lambda: f'{source.gauss(0, 1):.5g}', lambda: repr(source.gauss(0, 10)),
             lambda: f'{source.gauss(0, 1e-5):.{source.randint(1, 9)}e}',
             lambda: f'{source.randint(-9, 9)}.{source.randint(0, 10 ** 8 - 1):08d}']
    lines = [' '.join([f'w{i}', *(source.choice(kinds)() for _ in range(7))])
             for i in range(6000)]
    tokens, vectors = read('\n'.join(lines) + '\n')
    assert tokens == [f'w{i}' for i in range(6000)]
    assert vectors.dtype == 'float32' and vectors.shape == (6001, 7)
    assert not vectors[0].any() and bits(vectors[1:]) == bits(by_float(lines))


@pytest.mark.parametrize('size', [1, 3, 17, 64, 1000])
def test_pieces_of_any_size(read, monkeypatch, size):
    lines = [f'w{i}\xe9 {i}.25 -0.{i:03d} 1e-{i % 40}' for i in range(60)]
    monkeypatch.setattr(_vectors, '_CHUNK_BYTES', size)
    steps = []
    content = ('60 3\n' + ' \n'.join(lines[:30]) + '\n\n\n' + '\n'.join(lines[30:])
               + '\n').encode('utf-8')
    tokens, vectors = read(content, on_bytes=steps.append)
    assert tokens == [line.split(' ')[0] for line in lines]
    assert bits(vectors[1:]) == bits(by_float(lines))
    assert sum(steps) == len(content) and min(steps) >= 0
    damaged = content.replace(b'w41\xc3\xa9 41.25', b'w41\xc3\xa9 41:25')
    with pytest.raises(ValueError, match='line 45: '):
        read(damaged)


@pytest.mark.parametrize('content', [
    'a 0.1 0.2\nb 0.3 0.4\n', 'a 0.1 0.2\nb 0.3 0.4', 'a 0.1 0.2\r\nb 0.3 0.4\r\n',
    'a 0.1 0.2 \nb 0.3 0.4 \n', 'a 0.1 0.2 \r\nb 0.3 0.4 \r\n', 'a 0.1 0.2  \r\nb 0.3 0.4',
    '2 2\na 0.1 0.2\nb 0.3 0.4\n', '2 2\r\na 0.1 0.2\r\nb 0.3 0.4\r\n',
    '\na 0.1 0.2\n\n\nb 0.3 0.4\n\n', '2 2\n\na 0.1 0.2\n \nb 0.3 0.4\n\r\n',
    'a 0.1 0.2\nb 0.3 0.4 \n', 'a 0.1 0.2\n\nb 0.3 0.4 \r\n\n'])
def test_forms_of_the_same_file(read, content):
    tokens, vectors = read(content)
    assert tokens == ['a', 'b']
    assert bits(vectors) == bits([[0, 0], [0.1, 0.2], [0.3, 0.4]])


def test_tokens_are_utf8_and_may_be_anything_without_spaces(read):
    expected = ['caf\xe9', '\u4e2d\u6587', '\xa0', '\x85', '\u2028', '\U0001f600', '0.5', '-', '']
    tokens, vectors = read('\n'.join(f'{token} 1.5 {i}' for i, token in enumerate(expected)))
    assert tokens == expected and vectors[1:, 1].tolist() == list(range(9))


@pytest.mark.parametrize('content, message', [
    (b'a 0.1 0.2\nb 0.1\n', 'line 2: the line should have a token and 2 numbers.*got 1 numbers'),
    (b'a 0.1 0.2\nb 0.1 0.2 0.3\n', 'line 2: .*got 3 numbers'),
    (b'2 2\na 0.1 0.2\n\nb 0.1\n', 'line 4: .*got 1 numbers'),
    (b'a 0.1 0.2\nb 0.1\nc 0.1 0.2 0.3\n', 'line 2: .*got 1 numbers'),  # the sum is right
    (b'1 0.1 0.2\n2 0.1\n3 0.1 0.2 0.3\n', 'line 2: .*got 1 numbers'),
    (b'a 0.1 0.2\nb  0.2\n', "line 2: .*could not convert string to float"),
    (b'a 0.1 0.2\nb\t0.1\t0.2\n', 'line 2: .*got 0 numbers'),
    (b'a 0.1 0.2\nb\n', 'line 2: .*got 0 numbers'),
    (b'a 0.1 0.2\n\xff\xfe 0.1 0.2\n', 'line 2: the token is not UTF-8'),
    (b'a 0.1 0.2\ncaf\xe9 0.1 0.2\n', 'line 2: the token is not UTF-8'),
    (b'2 2\n', 'line 2: a line must have a token and at least two numbers'),
    (b'', 'line 1: a line must have a token and at least two numbers'),
    (b'a 0.1\nb 0.2\n', 'line 2: a line must have a token and at least two numbers'),
])
def test_damaged_files(read, content, message):
    with pytest.raises(ValueError, match=r'vec\.txt, ' + message):
        read(content)


def test_memory_is_that_of_the_array(read):
    """Lists of float took eight times as much."""
    content = b''.join(b'word%d' % i + b' 0.12345' * 100 + b'\n' for i in range(4000))
    size = 4 * 100 * 4000
    tracemalloc.start()
    try:
        vectors = read(content)[1]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert vectors.nbytes == size + 400
    assert peak < 2.5 * size + (2 << 20), peak / size
