"""Tokens, vocabularies and sequences: against plain loops, on the text itself, and bad input."""
import collections
import random
import types

import numpy as onp
import pytest
from mxnet import np

from d2l.data import text
from d2l.data.text import (
    SeqDataLoader,
    Vocab,
    count_corpus,
    load_corpus_time_machine,
    load_data_time_machine,
    read_time_machine,
    seq_data_iter_random,
    seq_data_iter_sequential,
    tokenize,
)
from d2l.utils import hub

ITERATORS = (seq_data_iter_random, seq_data_iter_sequential)


# Reading and splitting

def letters_only(line):
    """Character by character; what is between letters is one space."""
    words = ''.join(c if 'a' <= c <= 'z' else ' ' for c in
                    (d.lower() if d.isascii() else ' ' for d in line)).split(' ')
    return ' '.join(word for word in words if word)


# The sample that ships with the package is the complete file.
def test_time_machine_against_a_plain_loop(hub_data):
    hub_data(real=False)
    with open(hub.download('time_machine'), encoding='utf-8') as file:
        expected = [letters_only(line) for line in file]
    lines = read_time_machine()
    assert lines == expected and len(lines) == 3221
    assert lines[0] == 'the time machine by h g wells' and lines[1] == ''


@pytest.mark.parametrize('content, lines', [
    ('', []), ('\n', ['']), ('One\n\nTwo', ['one', '', 'two']), ('One\n\n', ['one', '']),
    ("1. It's\u2014\u00e9t\u00e9, \u212a no_one \n", ['it s t no one']),
])
def test_lines_of_any_text_are_read_as_utf8(content, lines, tmp_path, monkeypatch):
    path = tmp_path / 'timemachine.txt'
    path.write_bytes(content.encode('utf-8'))
    monkeypatch.setattr(text.hub, 'download', lambda name: str(path))
    seen = []

    def opened(*args, **kwargs):
        seen.append(kwargs.get('encoding'))
        return open(*args, **kwargs)
    monkeypatch.setattr('d2l.utils.files.open', opened, raising=False)
    assert read_time_machine() == lines
    assert seen == ['utf-8']


def test_tokenize():
    lines = ['the time  machine', '', ' a\tb ']
    assert tokenize(lines) == [['the', 'time', 'machine'], [], ['a', 'b']]
    assert tokenize(lines, 'word') == tokenize(lines, token='word') == tokenize(lines)
    assert tokenize(['ab c', ''], 'char') == [['a', 'b', ' ', 'c'], []]
    assert tokenize([]) == []


@pytest.mark.parametrize('args, error, fragment', [
    ((['a'], 'words'), ValueError, "tokenize: token must be 'word' or 'char', got 'words'"),
    ((['a'], None), ValueError, 'tokenize: token must be .* got None'),
    (('a b',), TypeError, 'tokenize: lines must be a list of str, got str'),
])
def test_tokenize_of_bad_arguments(args, error, fragment):
    with pytest.raises(error, match=fragment):
        tokenize(*args)


# Counting

def test_count_corpus():
    flat = collections.Counter({'a': 2, 'b': 1})
    for tokens in (['a', 'b', 'a'], [['a', 'b'], [], ['a']], [[], ('a', 'b'), ['a']],
                   iter(['a', 'b', 'a']), onp.array(['a', 'b', 'a'])):
        counter = count_corpus(tokens)
        assert counter == flat and isinstance(counter, collections.Counter)
    assert count_corpus([]) == count_corpus([[]]) == {}
    assert count_corpus([('a', 'b'), ('a', 'b')]) == {('a', 'b'): 2}  # bigrams are tokens


@pytest.mark.parametrize('tokens, fragment', [
    ([['a'], 'bc'], "got lists and, as entry 1, 'bc'"),
    (['a', ['b']], 'count_corpus: tokens must be a list of tokens or of lists of them'),
    ([[['a']]], 'count_corpus: tokens must be a list'),
])
def test_count_corpus_of_mixtures(tokens, fragment):
    with pytest.raises(TypeError, match=fragment):
        count_corpus(tokens)


# Vocabularies

def plain_vocab(lines, min_freq, reserved):
    """idx_to_token and token_freqs: place by place, the best of those left."""
    counts = {}
    for line in lines:
        for token in line:
            counts[token] = counts.get(token, 0) + 1
    freqs = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    names = ['<unk>'] + reserved
    for token, count in freqs:
        if count >= min_freq and token not in names:
            names.append(token)
    return names, freqs


@pytest.mark.parametrize('reserved', [[], ['<pad>', '<bos>', '<eos>'], ['time', '<pad>']])
@pytest.mark.parametrize('min_freq', [0, 1, 3, 10 ** 6])
def test_vocab_against_a_plain_loop(min_freq, reserved, hub_data):
    hub_data(real=False)
    lines = tokenize(read_time_machine())[:800]
    vocab = Vocab(lines, min_freq, reserved)
    names, freqs = plain_vocab(lines, min_freq, reserved)
    assert vocab.idx_to_token == names and vocab.token_freqs == freqs
    assert vocab.token_to_idx == {token: i for i, token in enumerate(names)}
    assert vocab.unk == 0 and len(vocab) == len(names)
    assert isinstance(vocab.idx_to_token, list) and isinstance(vocab.token_freqs, list)
    assert vocab[lines] == [[names.index(t) if t in names else 0 for t in line] for line in lines]


def test_vocab_of_the_whole_time_machine(hub_data):
    hub_data(real=False)
    vocab = Vocab(tokenize(read_time_machine()))
    # Counted with tr, sort and uniq -c over the file.
    assert vocab.token_freqs[:4] == [('the', 2261), ('i', 1267), ('and', 1245), ('of', 1155)]
    assert len(vocab) == 4579 + 1


def test_empty_vocabs():
    for vocab in (Vocab(), Vocab([]), Vocab([[]]), Vocab(None, 3, None)):
        assert vocab.idx_to_token == ['<unk>'] and vocab.token_freqs == [] and len(vocab) == 1
        assert vocab['a'] == 0 and vocab[[]] == [] and vocab[()] == []


def test_each_token_has_one_number():
    vocab = Vocab(['<unk>', 'a', '<pad>', 'a'], reserved_tokens=['<pad>', '<unk>', '<pad>'])
    assert vocab.idx_to_token == ['<unk>', '<pad>', 'a']
    assert vocab['<unk>'] == vocab.unk == 0 and vocab['a'] == 2


def test_a_vocab_takes_linear_time():
    class Token(str):
        """Counts comparisons with other tokens."""
        compared = 0

        def __eq__(self, other):
            Token.compared += 1
            return str.__eq__(self, other)

        __hash__ = str.__hash__

    size = 3000
    Vocab([Token(i) for i in range(size)])
    assert Token.compared < 5 * size  # looking through a list: size * size / 2


def test_numbers_of_tokens():
    vocab = Vocab(['b', 'a', 'a', 'c'])
    assert vocab.idx_to_token == ['<unk>', 'a', 'b', 'c']
    assert vocab['a'] == 1 and vocab['z'] == 0 and vocab[3] == 0 and vocab[None] == 0
    assert vocab[['a', 'z', 'c']] == vocab[('a', 'z', 'c')] == [1, 0, 3]
    assert vocab[[['a'], [], ('b', ['c', 7])]] == [[1], [], [2, [3, 0]]]
    assert vocab[onp.array([['a', 'c'], ['z', 'b']])] == [[1, 3], [0, 2]]
    assert vocab[['a', 1]] == [1, 0]


def test_bigrams():
    vocab = Vocab([('a', 'b'), ('a', 'b'), ('b', 'a')])
    assert vocab.token_freqs == [(('a', 'b'), 2), (('b', 'a'), 1)]
    assert vocab[('a', 'b')] == 1 and vocab[[('b', 'a'), ('a', 'b')]] == [2, 1]
    assert vocab.to_tokens([2, 0]) == [('b', 'a'), '<unk>']


def test_replaced_tables_count():
    vocab = Vocab(['a'])
    vocab.idx_to_token = ['x', 'y', 'z']
    vocab.token_to_idx = {'x': 0, 'y': 1, 'z': 2}
    vocab.unk = 2
    assert len(vocab) == 3 and vocab[['y', 'nothing']] == [1, 2]
    assert vocab.to_tokens([2, 1]) == ['z', 'y']


@pytest.mark.parametrize('make', [
    list, tuple, onp.array, np.array, lambda rows: onp.array(rows, 'int32'),
    lambda rows: np.array(rows, dtype='int64'), lambda rows: onp.array(rows, 'uint8')])
def test_to_tokens_takes_lists_and_arrays(make):
    vocab = Vocab(['b', 'a', 'a', 'c'])
    assert vocab.to_tokens(make([1, 0, 3])) == ['a', '<unk>', 'c']
    assert vocab.to_tokens(make([[1, 0], [3, 2]])) == [['a', '<unk>'], ['c', 'b']]
    assert vocab.to_tokens(make([])) == []


def test_to_tokens_of_one_number():
    vocab = Vocab(['b', 'a', 'a', 'c'])
    for number in (3, onp.int64(3), onp.array(3), np.array(3), np.array([3])[0]):
        assert vocab.to_tokens(number) == 'c'
    assert vocab.to_tokens([1, [2, onp.int32(3)], np.array([0, 1])]) == [
        'a', ['b', 'c'], ['<unk>', 'a']]


@pytest.mark.parametrize('indices, error, fragment', [
    (4, IndexError, r'Vocab\.to_tokens: indices must be from 0 to 3, got 4'),
    (-1, IndexError, 'from 0 to 3, got -1'),
    ([0, 4], IndexError, 'got 4'),
    ([0, -1], IndexError, 'got -1'),
    (onp.array([[0, 9]]), IndexError, 'got 9'),
    (1.0, TypeError, r'Vocab\.to_tokens: indices must be whole numbers, got 1\.0'),
    ('a', TypeError, "got 'a'"),
    (None, TypeError, 'got None'),
    (onp.array([0.5]), TypeError, 'indices must be whole numbers, got an array of float64'),
    (onp.array([onp.nan]), TypeError, 'indices must be whole numbers'),
    (onp.array(['a']), TypeError, 'indices must be whole numbers'),
])
@pytest.mark.filterwarnings('ignore:invalid value')
def test_to_tokens_of_what_has_none(indices, error, fragment):
    with pytest.raises(error, match=fragment):
        Vocab(['b', 'a', 'a', 'c']).to_tokens(indices)


def test_reserved_tokens_are_a_list():
    with pytest.raises(TypeError, match='Vocab: reserved_tokens must be a list'):
        Vocab(['a'], reserved_tokens='<pad>')


# The corpus

def test_corpus_of_the_time_machine(hub_data):
    hub_data(real=False)
    corpus, vocab = load_corpus_time_machine()
    assert isinstance(corpus, list) and set(map(type, corpus)) == {int}
    assert ''.join(vocab.to_tokens(corpus)) == ''.join(read_time_machine())
    assert len(corpus) == 170580 and len(vocab) == 28
    assert vocab.idx_to_token[:3] == ['<unk>', ' ', 'e']
    for max_tokens in (-1, 0, 10 ** 9):
        assert load_corpus_time_machine(max_tokens)[0] == corpus
    first, same = load_corpus_time_machine(10)
    assert first == corpus[:10] and same.idx_to_token == vocab.idx_to_token
    for wrong in ('10', None, 1.5, True):
        with pytest.raises(TypeError, match='load_corpus_time_machine: max_tokens must be an int'):
            load_corpus_time_machine(wrong)


# Sequences

def rows_of(data_iter):
    """The rows of X as lists of int, batch by batch; checks Y, dtypes and shapes."""
    batches = []
    for X, Y in data_iter:
        assert isinstance(X, np.ndarray) and isinstance(Y, np.ndarray)
        assert X.dtype == Y.dtype == onp.float32 and X.shape == Y.shape
        # In the corpora of these tests every number is that of its place.
        assert (Y.asnumpy() == X.asnumpy() + 1).all()
        batches.append(X.asnumpy().astype(int).tolist())
    return batches


def plain_sequential(length, offset, batch_size, num_steps):
    """Places in the corpus."""
    per_row = (length - offset - 1) // batch_size
    return [[[offset + row * per_row + i * num_steps + j for j in range(num_steps)]
             for row in range(batch_size)] for i in range(per_row // num_steps)]


SIZES = [(35, 2, 5), (100, 3, 7), (17, 1, 1), (60, 4, 1), (50, 1, 10)]


@pytest.mark.parametrize('length, batch_size, num_steps', SIZES)
def test_sequential_against_a_plain_loop(length, batch_size, num_steps):
    offsets = set()
    for seed in range(60):
        random.seed(seed)
        batches = rows_of(seq_data_iter_sequential(list(range(length)), batch_size, num_steps))
        offset = batches[0][0][0]
        offsets.add(offset)
        assert batches == plain_sequential(length, offset, batch_size, num_steps)
    assert offsets == set(range(num_steps))


@pytest.mark.parametrize('length, batch_size, num_steps', SIZES)
def test_random_covers_the_corpus_once(length, batch_size, num_steps):
    offsets, orders = set(), set()
    for seed in range(60):
        random.seed(seed)
        batches = rows_of(seq_data_iter_random(list(range(length)), batch_size, num_steps))
        assert {len(batch) for batch in batches} == {batch_size}
        rows = [row for batch in batches for row in batch]
        starts = [row[0] for row in rows]
        assert rows == [list(range(start, start + num_steps)) for start in starts]
        offset = starts[0] % num_steps
        offsets.add(offset)
        orders.add(tuple(starts))
        pieces = (length - offset - 1) // num_steps
        whole = [offset + i * num_steps for i in range(pieces)]
        assert len(set(starts)) == len(starts) == pieces // batch_size * batch_size
        assert set(starts) <= set(whole)
    # The offset num_steps would be the offset 0 with a piece fewer.
    assert offsets == set(range(num_steps)) and len(orders) > 10


@pytest.mark.parametrize('data_iter', ITERATORS)
@pytest.mark.parametrize('make', [list, tuple, onp.array, np.array,
                                  lambda corpus: onp.array(corpus, 'int32')])
def test_corpus_of_any_kind(data_iter, make):
    def batches(corpus):
        random.seed(1)
        return rows_of(data_iter(corpus, 2, 5))
    corpus = make(list(range(40)))
    assert batches(corpus) == batches(list(range(40)))
    assert list(corpus) == list(range(40))


@pytest.mark.parametrize('data_iter', ITERATORS)
def test_reproducible_by_pythons_seed(data_iter):
    def starts(seed):
        random.seed(seed)
        return [rows_of(data_iter(range(200), 2, 5)) for _ in range(2)]
    assert starts(1) == starts(1)
    assert starts(1) != starts(2)
    first, second = starts(4)
    assert first != second  # each pass has its own


@pytest.mark.parametrize('data_iter', ITERATORS)
@pytest.mark.parametrize('length', range(0, 11))
def test_a_corpus_too_short_for_a_batch_yields_nothing(data_iter, length):
    for seed in range(12):
        random.seed(seed)
        batches = rows_of(data_iter(list(range(length)), 2, 5))
        assert batches == []
    assert isinstance(data_iter([], 2, 5), types.GeneratorType)


@pytest.mark.parametrize('data_iter', ITERATORS)
def test_shortest_corpus_for_one_batch(data_iter):
    found = set()
    for seed in range(40):
        random.seed(seed)
        found.add(len(rows_of(data_iter(list(range(11)), 2, 5))))
    assert found == {0, 1}  # only without an offset


@pytest.mark.parametrize('data_iter', ITERATORS)
def test_batches_do_not_share_memory_with_the_corpus(data_iter):
    corpus = onp.arange(40, dtype='float32')
    for X, Y in data_iter(corpus, 2, 5):
        X[:] = -1
        Y[:] = -1
    assert corpus.tolist() == list(range(40))


@pytest.mark.parametrize('data_iter', ITERATORS)
@pytest.mark.parametrize('args, error, fragment', [
    (([1] * 9, 0, 2), ValueError, 'batch_size must be at least 1, got 0'),
    (([1] * 9, 2, 0), ValueError, 'num_steps must be at least 1, got 0'),
    (([1] * 9, 2.0, 2), TypeError, 'batch_size must be an integer'),
    (([1] * 9, 2, '2'), TypeError, 'num_steps must be an integer'),
    (([[1, 2], [3, 4]], 1, 1), ValueError, r'corpus must be one sequence .* shape \(2, 2\)'),
    ((['a', 'b', 'c'], 1, 1), TypeError, 'corpus must hold numbers of tokens'),
    ((5, 1, 1), ValueError, 'corpus must be one sequence'),
])
def test_bad_sequences(data_iter, args, error, fragment):
    # At the call, not at the first batch.
    with pytest.raises(error, match=fragment):
        data_iter(*args)


# The loader

@pytest.mark.parametrize('use_random_iter', [False, True])
def test_loader_of_the_time_machine(use_random_iter, hub_data):
    hub_data(real=False)
    data_iter, vocab = load_data_time_machine(32, 35, use_random_iter)
    assert isinstance(data_iter, SeqDataLoader) and data_iter.vocab is vocab
    assert (data_iter.batch_size, data_iter.num_steps) == (32, 35)
    assert data_iter.data_iter_fn is ITERATORS[not use_random_iter]
    whole = ''.join(read_time_machine())[:10000]
    assert ''.join(vocab.to_tokens(data_iter.corpus)) == whole
    passes = []
    random.seed(0)
    for _ in range(2):
        texts = []
        for X, Y in data_iter:
            assert X.shape == Y.shape == (32, 35)
            assert (X[:, 1:] == Y[:, :-1]).all()
            texts += [''.join(row) for row in vocab.to_tokens(X)]
        assert len(texts) in (32 * 7, 32 * 8) and all(text in whole for text in texts)
        passes.append(texts)
    assert passes[0] != passes[1]


def test_rows_go_on_in_the_next_batch(hub_data):
    hub_data(real=False)
    data_iter, vocab = load_data_time_machine(4, 20, max_tokens=2000)
    rows = [''.join(sum(pieces, [])) for pieces in zip(*(vocab.to_tokens(X) for X, _ in data_iter))]
    assert len(rows) == 4 and all(row in ''.join(read_time_machine()) for row in rows)
    assert all(len(row) > 450 for row in rows)


@pytest.mark.parametrize('args, error, fragment', [
    ((0, 5), ValueError, 'batch_size must be at least 1'),
    ((5, 0), ValueError, 'num_steps must be at least 1'),
    ((5, 5, False, None), TypeError, 'max_tokens must be an integer'),
])
def test_bad_loaders(args, error, fragment, hub_data):
    hub_data(real=False)
    with pytest.raises(error, match=fragment):
        load_data_time_machine(*args)


def test_missing_text(tmp_path, monkeypatch):
    def nowhere(name):
        raise hub.DataNotFoundError(f'{name}: not found')
    monkeypatch.setattr(text.hub, 'download', nowhere)
    with pytest.raises(hub.DataNotFoundError, match='time_machine'):
        load_data_time_machine(2, 5)
