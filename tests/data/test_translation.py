"""English and French: preparing, splitting and numbering, against plain loops and end to end."""
import zipfile

import numpy as onp
import pytest
from mxnet import np, npx

from d2l.data import translation
from d2l.data.text import Vocab
from d2l.data.translation import (
    build_array,
    load_data_nmt,
    preprocess_nmt,
    read_data_nmt,
    tokenize_nmt,
    truncate_pad,
)
from d2l.utils import hub

RESERVED = ['<pad>', '<bos>', '<eos>']
# <unk> 0, <pad> 1, <bos> 2, <eos> 3, a 4, b 5, c 6
VOCAB = Vocab(['a', 'b', 'c'], reserved_tokens=RESERVED)


def plain_preprocess(text):
    """Character by character."""
    out = ''
    for char in text.replace('\u202f', ' ').replace('\xa0', ' ').lower():
        out += ' ' + char if char in ',.!' and out and not out.endswith(' ') else char
    return out


def zipped(monkeypatch, tmp_path, content):
    """The loaders find a file of these bytes."""
    (tmp_path / 'fra-eng').mkdir()
    (tmp_path / 'fra-eng' / 'fra.txt').write_bytes(content)
    monkeypatch.setattr(translation.hub, 'download_extract', lambda name: str(tmp_path / name))


# Reading

@pytest.mark.parametrize('real', [True, False])
def test_read_data_nmt(hub_data, real):
    hub_data('fra-eng', real=real)
    with zipfile.ZipFile(hub.download('fra-eng')) as archive:
        expected = archive.read('fra-eng/fra.txt').decode('utf-8')
    text = read_data_nmt()
    assert text == expected
    assert text.startswith('Go.\tVa !\nHi.\tSalut !\nRun!\tCours\u202f!\n')
    assert text.count('\n') == (167130 if real else 12000)


def test_read_as_utf8_whatever_the_locale(tmp_path, monkeypatch):
    zipped(monkeypatch, tmp_path, 'I see.\tJe vois\u202f: \xe9t\xe9.\r\n'.encode())
    seen = []

    def opened(*args, **kwargs):
        seen.append(kwargs.get('encoding'))
        return open(*args, **kwargs)
    monkeypatch.setattr('d2l.utils.files.open', opened, raising=False)
    assert read_data_nmt() == 'I see.\tJe vois\u202f: \xe9t\xe9.\n'
    assert seen == ['utf-8']


def test_missing_data(monkeypatch):
    def nowhere(name):
        raise hub.DataNotFoundError(f'{name}: not found')
    monkeypatch.setattr(translation.hub, 'download_extract', nowhere)
    for call in (read_data_nmt, lambda: load_data_nmt(2, 8)):
        with pytest.raises(hub.DataNotFoundError, match='fra-eng'):
            call()


# Preparing

@pytest.mark.parametrize('text, expected', [
    ('', ''),
    ('Go.\tVa\u202f!\nHi.', 'go .\tva !\nhi .'),
    ('Well, well... no !', 'well , well . . . no !'),
    ('Who?!  Yes .', 'who? !  yes .'),
    ('.', '.'), ('!a', '!a'), (',.', ', .'), (' .', ' .'), ('  ,', '  ,'),
    ('a\t.b\n!\xa0,', 'a\t .b\n ! ,'),
    ('\xc9T\xc9\xa0!\u202f?', '\xe9t\xe9 ! ?'),
])
def test_preprocess(text, expected):
    assert preprocess_nmt(text) == plain_preprocess(text) == expected


def test_preprocess_of_random_text():
    source = onp.random.RandomState(0)
    letters = list('aB ,.!?\t\n\xa0\u202f\xe9')
    for length in range(400):
        text = ''.join(source.choice(letters, length % 40))
        assert preprocess_nmt(text) == plain_preprocess(text), repr(text)


@pytest.mark.parametrize('real', [True, False])
def test_preprocess_of_the_data(hub_data, real):
    hub_data('fra-eng', real=real)
    text = read_data_nmt()[-300000:]
    assert preprocess_nmt(text) == plain_preprocess(text)


# Splitting

TEXT = 'go .\tva !\nhi .\tsalut  !\nno tab\n\nrun !\tcours !\twith a licence\nwho ?\tqui ?'
PAIRS = ([['go', '.'], ['hi', '.'], ['run', '!'], ['who', '?']],
         [['va', '!'], ['salut', '', '!'], ['cours', '!'], ['qui', '?']])


def test_tokenize_takes_as_many_pairs_as_asked_for():
    for count in (1, 2, 3, 4, 5, onp.int64(3)):
        assert tokenize_nmt(TEXT, count) == tuple(side[:count] for side in PAIRS)
    assert tokenize_nmt(TEXT) == tokenize_nmt(TEXT, num_examples=None) == PAIRS
    assert tokenize_nmt('') == tokenize_nmt('no pairs\n', 3) == ([], [])


@pytest.mark.parametrize('count, error, fragment', [
    (0, ValueError, 'num_examples must be at least 1, got 0'),
    (-1, ValueError, 'num_examples must be at least 1'),
    (2.0, TypeError, 'num_examples must be an integer'),
])
def test_tokenize_of_a_bad_number(count, error, fragment):
    with pytest.raises(error, match=fragment):
        tokenize_nmt(TEXT, count)


# Cutting, padding and numbering

def test_truncate_pad():
    line = [7, 8, 9]
    assert truncate_pad(line, 5, 1) == [7, 8, 9, 1, 1]
    assert truncate_pad(line, 2, 1) == [7, 8]
    same = truncate_pad(line, 3, 1)
    assert same == line and same is not line and line == [7, 8, 9]
    assert truncate_pad([], 2, 'x') == ['x', 'x'] and truncate_pad(line, 0, 1) == []
    assert truncate_pad(('a',), 2, '<pad>') == ['a', '<pad>']


LINES = [['a', 'b'], [], ['c', 'z', 'a', 'b', 'c', 'a']]


def test_build_array_of_sources():
    array, valid_len = build_array(LINES, VOCAB, 4, True)
    assert array.tolist() == [[4, 5, 1, 1], [1, 1, 1, 1], [6, 0, 4, 5]]
    assert valid_len.tolist() == [2, 0, 4]
    assert isinstance(array, np.ndarray) and isinstance(valid_len, np.ndarray)
    assert (array.dtype, valid_len.dtype) == (onp.float32, onp.int64)


def test_build_array_of_targets_keeps_eos():
    array, valid_len = build_array(LINES, VOCAB, 5, is_source=False)
    assert array.tolist() == [[2, 4, 5, 3, 1], [2, 3, 1, 1, 1], [2, 6, 0, 4, 3]]
    assert valid_len.tolist() == [4, 2, 5]
    array, valid_len = build_array(LINES, VOCAB, 2, is_source=False)
    assert array.tolist() == [[2, 3]] * 3 and valid_len.tolist() == [2, 2, 2]
    # One that fits exactly.
    array, valid_len = build_array([['a', 'b']], VOCAB, 4, is_source=False)
    assert array.tolist() == [[2, 4, 5, 3]] and valid_len.tolist() == [4]


def test_words_that_look_like_padding_count():
    assert build_array([['a', '<pad>', 'b']], VOCAB, 4, True)[1].tolist() == [3]


def test_build_array_of_no_lines():
    for is_source in (True, False):
        array, valid_len = build_array([], VOCAB, 4, is_source)
        assert array.shape == (0, 4) and valid_len.shape == (0,)


@pytest.mark.parametrize('vocab, num_steps, is_source, error, fragment', [
    (VOCAB, 0, True, ValueError, 'build_array: num_steps must be at least 1, got 0'),
    (VOCAB, 2.5, True, TypeError, 'build_array: num_steps must be an integer'),
    (VOCAB, 1, False, ValueError, 'build_array: num_steps must be at least 2 for <bos> and <eos>'),
    (Vocab(['a']), 3, True, ValueError, "build_array: vocab must have the reserved token '<pad>'"),
    (Vocab(['a'], 0, ['<pad>']), 3, False, ValueError, "token '<bos>' and '<eos>'"),
])
def test_build_array_of_bad_arguments(vocab, num_steps, is_source, error, fragment):
    with pytest.raises(error, match=fragment):
        build_array(LINES, vocab, num_steps, is_source)


# End to end

def plain_data(text, num_examples, num_steps):
    """The words of both vocabularies as sets, and for each pair a row of words and its length,
    for both sides: a loop over lines and words."""
    pairs = [line.split('\t')[:2] for line in plain_preprocess(text).split('\n') if '\t' in line]
    words, rows = [], []
    for side in (0, 1):
        lines = [pair[side].split(' ') for pair in pairs[:num_examples]]
        counts = {}
        for line in lines:
            for word in line:
                counts[word] = counts.get(word, 0) + 1
        known = {word for word, count in counts.items() if count >= 3}
        words.append(known)
        rows.append([])
        for line in lines:
            line = [word if word in known else '<unk>' for word in line]
            if side == 1:
                line = ['<bos>'] + line[:num_steps - 2] + ['<eos>']
            line = line[:num_steps]
            rows[side].append((tuple(line + ['<pad>'] * (num_steps - len(line))), len(line)))
    return words, list(zip(*rows))


@pytest.mark.parametrize('num_steps', [4, 10])
@pytest.mark.parametrize('real', [True, False])
def test_load_data_against_plain_loops(hub_data, real, num_steps):
    hub_data('fra-eng', real=real)
    npx.random.seed(1)
    src_vocab, tgt_vocab, data_iter = load_data_nmt(64, num_steps)
    text = '\n'.join(read_data_nmt().split('\n')[:3000])
    words, expected = plain_data(text, 1000, num_steps)
    for vocab, known in zip((src_vocab, tgt_vocab), words):
        assert vocab.idx_to_token[:4] == ['<unk>'] + RESERVED
        assert set(vocab.idx_to_token[4:]) == known and len(vocab) == len(known) + 4
    assert len(data_iter) == 16
    orders = []
    for _ in range(2):
        batches = list(data_iter)
        assert [len(batch[0]) for batch in batches] == [64] * 15 + [40]
        for batch in batches:
            assert [array.dtype for array in batch] == [onp.float32, onp.int64] * 2
            assert [array.ndim for array in batch] == [2, 1, 2, 1]
        X, X_len, Y, Y_len = (onp.concatenate([array.asnumpy() for array in arrays])
                              for arrays in zip(*batches))
        got = [((tuple(src_vocab.to_tokens(x)), n), (tuple(tgt_vocab.to_tokens(y)), m))
               for x, n, y, m in zip(X, X_len, Y, Y_len)]
        assert sorted(got) == sorted(expected)
        orders.append(got)
    assert orders[0] != orders[1] and orders[0] != expected  # shuffled, anew in each pass


def test_number_of_examples(hub_data):
    hub_data('fra-eng', real=False)
    for count in (1, 7, 601):
        loader = load_data_nmt(50, 8, count)[2]
        assert sum(len(batch[0]) for batch in loader) == count
    loader = load_data_nmt(1000, 8, num_examples=None)[2]
    assert len(loader) == 12


@pytest.mark.slow
def test_all_pairs_of_the_full_file(hub_data):
    hub_data('fra-eng')
    src_vocab, tgt_vocab, data_iter = load_data_nmt(512, 12, None)
    words, expected = plain_data(read_data_nmt(), None, 12)
    assert [len(src_vocab) - 4, len(tgt_vocab) - 4] == [len(known) for known in words]
    assert len(expected) == 167130 and len(data_iter) == -(-167130 // 512)
    sums = onp.zeros(2, 'int64')
    for _, X_len, _, Y_len in data_iter:
        sums += [int(X_len.asnumpy().sum()), int(Y_len.asnumpy().sum())]
    assert sums.tolist() == [sum(row[side][1] for row in expected) for side in (0, 1)]


def test_files_with_licences_in_a_third_column(tmp_path, monkeypatch):
    zipped(monkeypatch, tmp_path, ''.join(
        f'Go.\tVa\u202f!\tCC-BY 2.0, no. {i}!\n' for i in range(5)).encode())
    src_vocab, tgt_vocab, data_iter = load_data_nmt(5, 6)
    assert src_vocab.idx_to_token[4:] == ['.', 'go'] and tgt_vocab.idx_to_token[4:] == ['!', 'va']
    X, X_len, Y, Y_len = next(iter(data_iter))
    assert X.tolist() == [[5, 4, 1, 1, 1, 1]] * 5 and X_len.tolist() == [2] * 5
    assert Y.tolist() == [[2, 5, 4, 3, 1, 1]] * 5 and Y_len.tolist() == [4] * 5


@pytest.mark.parametrize('args, error, fragment', [
    ((0, 8), ValueError, 'load_data_nmt: batch_size must be at least 1, got 0'),
    ((2, 0), ValueError, 'load_data_nmt: num_steps must be at least 1, got 0'),
    ((2, 1), ValueError, 'num_steps must be at least 2'),
    ((2, 8, 0), ValueError, 'num_examples must be at least 1, got 0'),
    ((2, 8, '9'), TypeError, 'num_examples must be an integer'),
])
def test_bad_arguments(args, error, fragment, hub_data):
    hub_data('fra-eng', real=False)
    with pytest.raises(error, match=fragment):
        load_data_nmt(*args)


def test_a_file_without_pairs(tmp_path, monkeypatch):
    zipped(monkeypatch, tmp_path, b'no tabs here\n')
    with pytest.raises(ValueError, match=r'fra\.txt must have sentence pairs'):
        load_data_nmt(2, 8)
