"""IMDb and SNLI: against plain loops, end to end on real data and on the samples."""
import collections
import os
import re
import tarfile
from functools import partial

import numpy as onp
import pytest
from mxnet import gluon, np, npx

from d2l.data import language
from d2l.data.language import (
    PairLoader,
    SNLIDataset,
    load_data_imdb,
    load_data_snli,
    read_imdb,
    read_snli,
)
from d2l.data.text import Vocab
from d2l.utils.hub import download_extract
from tests.hub_files.language import NUM_REVIEWS, parsed

HEADINGS = 'gold_label\tsentence1_binary_parse\tsentence2_binary_parse\tsentence1_parse\n'
SENTENCES = (['a b c', 'b', ' '.join('abcdefghij')], ['c c', 'x a', 'j'], [2, 0, 1])
VOCAB = Vocab([list('abcdefghij')], reserved_tokens=['<pad>'])
NUMBERS = {word: number for number, word in enumerate(['<unk>', '<pad>'] + list('abcdefghij'))}


def imdb_folder(folder, reviews):
    """reviews: 'train/pos/1_9.txt' -> bytes.  All four folders are made."""
    for half in ('train', 'test'):
        for label in ('pos', 'neg'):
            (folder / half / label).mkdir(parents=True)
    for name, content in reviews.items():
        (folder / name).write_bytes(content)
    return str(folder)


def snli_folder(folder, text, part='train'):
    (folder / f'snli_1.0_{part}.txt').write_bytes(text.encode('utf-8'))
    return str(folder)


def words_at_least_five_times(lines):
    counts = collections.Counter(word for line in lines for word in line)
    return {word for word, count in counts.items() if count >= 5}


def numbers_of(vocab):
    """The vocabulary's list of words, turned round."""
    return {word: number for number, word in enumerate(vocab.idx_to_token)}


def padded(line, numbers, num_steps, padding):
    """Word by word."""
    row = [numbers.get(word, 0) for word in line]
    while len(row) < num_steps:
        row.append(padding)
    return row[:num_steps]


def all_rows(batches):
    return [onp.concatenate([array.asnumpy() for array in arrays]) for arrays in zip(*batches)]


# Reading IMDb

def test_reviews_in_the_order_of_their_names(tmp_path, monkeypatch):
    names = ['10_9', '2_8', '1_7', '21_10']
    folder = imdb_folder(tmp_path, dict(
        [(f'train/{label}/{name}.txt', f'{label} {name}'.encode())
         for label in ('pos', 'neg') for name in names]
        + [('test/pos/0_9.txt', b'good'), ('test/neg/0_1.txt', b'bad')]))
    listdir = os.listdir

    def ordered_listdir(backwards, path):
        return sorted(listdir(path), reverse=backwards)

    for backwards in (False, True):
        monkeypatch.setattr('os.listdir', partial(ordered_listdir, backwards))
        expected = ['10_9', '1_7', '21_10', '2_8']
        assert read_imdb(folder, True) == ([f'pos {name}' for name in expected]
                                           + [f'neg {name}' for name in expected],
                                           [1] * 4 + [0] * 4)
        assert read_imdb(folder, False) == (['good', 'bad'], [1, 0])


def test_reviews_are_utf8_and_lose_their_line_feeds_only(tmp_path):
    text = 'Un caf\xe9<br />\nnoir\r\n \u0085x\u2028y\n'
    folder = imdb_folder(tmp_path, {'train/pos/0_9.txt': text.encode('utf-8'),
                                    'train/neg/0_1.txt': b''})
    assert read_imdb(folder, True)[0] == ['Un caf\xe9<br />noir\r \u0085x\u2028y', '']


def test_other_files_are_no_reviews(tmp_path):
    folder = imdb_folder(tmp_path, {
        'train/pos/0_9.txt': b'good', 'train/neg/0_1.txt': b'bad', 'train/pos/.DS_Store': b'\xff',
        'train/pos/._0_9.txt': b'\xff', 'train/neg/urls': b'x'})
    assert read_imdb(folder, True) == (['good', 'bad'], [1, 0])


def test_missing_and_damaged_reviews(tmp_path):
    with pytest.raises(FileNotFoundError, match='read_imdb: data_dir must hold the folder '
                                                r'train.pos, got .*nowhere'):
        read_imdb(str(tmp_path / 'nowhere'), True)
    folder = imdb_folder(tmp_path, {'train/pos/0_9.txt': b'good', 'test/pos/0_9.txt': b'\xff\xfe',
                                    'test/neg/0_1.txt': b'bad'})
    with pytest.raises(FileNotFoundError, match=r'read_imdb: .*neg should hold reviews'):
        read_imdb(folder, True)
    with pytest.raises(ValueError, match=r'0_9\.txt is not UTF-8 text'):
        read_imdb(folder, False)


# IMDb end to end

@pytest.mark.slow
@pytest.mark.parametrize('real', [True, False])
def test_imdb_against_plain_loops(hub_data, real):
    hub_data('aclImdb', real=real)
    npx.random.seed(3)
    train_iter, test_iter, vocab = load_data_imdb(64, num_steps=40)
    folder = download_extract('aclImdb', 'aclImdb')
    halves = [read_imdb(folder, is_train) for is_train in (True, False)]
    if real:
        assert [collections.Counter(labels) for _, labels in halves] == [
            {1: NUM_REVIEWS, 0: NUM_REVIEWS}] * 2
    frequent = words_at_least_five_times(review.split() for review in halves[0][0])
    assert vocab.idx_to_token[0] == '<unk>' and set(vocab.idx_to_token[1:]) == frequent - {'<unk>'}
    numbers = numbers_of(vocab)

    for loader, (reviews, labels) in zip((train_iter, test_iter), halves):
        assert len(loader) == -(-len(reviews) // 64)
        batches = list(loader)
        X, y = batches[0]
        assert (X.shape, X.dtype, y.shape, y.dtype) == ((64, 40), onp.int32, (64,), onp.int32)
        X, y = all_rows(batches)
        expected = [(padded(review.split(), numbers, 40, 0), label)
                    for review, label in zip(reviews, labels)]
        got = list(zip(X.tolist(), y.tolist()))
        if loader is train_iter:
            assert got != expected
            got, expected = sorted(got), sorted(expected)
        assert got == expected


def test_imdb_pads_with_unk_as_in_the_book(hub_data):
    hub_data('aclImdb', real=False)
    _, test_iter, vocab = load_data_imdb(16)
    assert '<pad>' not in vocab.idx_to_token
    X, _ = next(iter(test_iter))
    assert X.shape == (16, 500)
    assert (X.asnumpy()[:, 300:] == vocab['<unk>']).all() and vocab['<unk>'] == 0


def test_imdb_order_comes_from_mxnets_seed(hub_data):
    hub_data('aclImdb', real=False)
    train_iter, _, _ = load_data_imdb(32, num_steps=30)
    orders = []
    for seed in (1, 1, 2):
        npx.random.seed(seed)
        orders.append(all_rows(train_iter)[0].tolist())
    assert orders[0] == orders[1] != orders[2]


@pytest.mark.slow
def test_ten_thousand_real_reviews(shared_data, tmp_path, monkeypatch):
    with tarfile.open(str(shared_data / 'aclImdb' / 'aclImdb_5k_5k.tar.xz')) as archive:
        archive.extractall(str(tmp_path))
    monkeypatch.setattr(language.hub, 'download_extract',
                        lambda name, folder=None: str(tmp_path / folder))
    train_iter, test_iter, vocab = load_data_imdb(512)
    # Counted with Perl over the training files, words ending at Unicode white space.
    assert len(vocab) == 15952 + 1
    for loader in (train_iter, test_iter):
        X, y = all_rows(loader)
        assert X.shape == (5000, 500) and y.sum() == 2500
        assert X.min() == 0 and X.max() == len(vocab) - 1


# Reading SNLI

def test_sentences_without_parse_and_rows_without_gold_label(tmp_path):
    text = HEADINGS + (
        'neutral\t( ( A child ) ( ( is playing ) . ) )\t( A  (girl)   .)\t(ROOT (S x))\tmore\t\n'
        '-\t( no label )\t( here )\t(ROOT)\n'
        'entailment\tplain text\t  ( with ) spaces \n'
        '\n'
        'other\tx\ty\tz\n'
        'contradiction\t( 10\u00a0km ( \u00a0 far ) )\t( Caf\xe9\u2028 noir )\tz\n')
    expected = (['A child is playing .', 'plain text', '10\u00a0km far'],
                ['A girl .', 'with spaces', 'Caf\xe9 noir'], [2, 0, 1])
    assert read_snli(snli_folder(tmp_path, text), True) == expected
    assert read_snli(snli_folder(tmp_path, text.replace('\n', '\r\n'), 'test'), False) == expected


def test_snli_is_utf8_everywhere(tmp_path, monkeypatch):
    def ascii_open(*args, encoding=None, _open=open, **kwargs):
        return _open(*args, encoding=encoding or 'ascii', **kwargs)
    monkeypatch.setattr('builtins.open', ascii_open)
    folder = snli_folder(tmp_path, HEADINGS + 'neutral\tUn caf\xe9\tnoir\n')
    assert read_snli(folder, True) == (['Un caf\xe9'], ['noir'], [2])


@pytest.mark.parametrize('text, fragment', [
    ('', r'snli_1\.0_train\.txt is not a file of SNLI'),
    ('neutral\ta\tb\n', r'snli_1\.0_train\.txt is not a file of SNLI'),
    ('{"gold_label": "neutral"}\n', 'is not a file of SNLI'),
    (HEADINGS, r'snli_1\.0_train\.txt should have rows with a gold label'),
    (HEADINGS + '-\ta\tb\n', 'should have rows with a gold label'),
    (HEADINGS + '-\ta\tb\nneutral\ta\n', 'train.txt, line 3: .* at least 3 columns .* got 2'),
])
def test_malformed_files(tmp_path, text, fragment):
    with pytest.raises(ValueError, match=fragment):
        read_snli(snli_folder(tmp_path, text), True)


def test_missing_file(tmp_path):
    folder = snli_folder(tmp_path, HEADINGS + 'neutral\ta\tb\n')
    with pytest.raises(FileNotFoundError, match='read_snli: data_dir must hold '
                                                r'snli_1\.0_test\.txt, got'):
        read_snli(folder, False)


def test_a_parse_and_back(tmp_path):
    sentences = ['Go .', 'One', 'Two women are embracing .']
    rows = ''.join(f'neutral\t{parsed(s)}\t{parsed(s)}\n' for s in sentences)
    assert parsed(sentences[0]) == '( Go . )'
    assert read_snli(snli_folder(tmp_path, HEADINGS + rows), True)[:2] == (sentences, sentences)


# The data set

def test_snli_dataset(capsys):
    data = SNLIDataset(SENTENCES, 4, VOCAB)
    assert capsys.readouterr().out == 'read 3 examples\n'
    assert isinstance(data, gluon.data.Dataset) and len(data) == 3
    assert data.vocab is VOCAB and data.num_steps == 4
    pad = VOCAB['<pad>']
    for i in range(3):
        (premise, hypothesis), label = data[i]
        assert premise.tolist() == padded(SENTENCES[0][i].split(), NUMBERS, 4, pad)
        assert hypothesis.tolist() == padded(SENTENCES[1][i].split(), NUMBERS, 4, pad)
        assert label.item() == SENTENCES[2][i]
    assert data[1][0][0].tolist() == [VOCAB['b'], pad, pad, pad] and pad == 1
    for array, shape in ((data.premises, (3, 4)), (data.hypotheses, (3, 4)), (data.labels, (3,))):
        assert isinstance(array, np.ndarray)
        assert (array.shape, array.dtype) == (shape, onp.int32)


def test_padding_by_itself():
    data = SNLIDataset(SENTENCES, 3, VOCAB)
    lines = [[], ['a'], ['a', 'zzz', 'b'], list('abcd')]
    assert data._pad(lines).tolist() == [padded(line, NUMBERS, 3, 1) for line in lines]
    assert data._pad([[], []]).tolist() == [[1] * 3] * 2


def test_vocabulary_of_both_sentences():
    data = SNLIDataset((['a b'] * 3 + ['c'], ['a'] * 2 + ['b c c c', 'c d'], [0] * 4), 2)
    # a: 5 times, b: 4, c: 5, d: once.
    assert data.vocab.idx_to_token == ['<unk>', '<pad>', 'a', 'c']


def test_batches_as_gluons_dataloader_makes_them():
    data = SNLIDataset(SENTENCES, 5, VOCAB)
    loader = PairLoader(data, 2)
    assert len(loader) == 2
    expected = list(gluon.data.DataLoader(data, 2))
    for _ in range(2):
        batches = list(loader)
        assert len(batches) == 2
        for (X, y), (their_X, their_y) in zip(batches, expected):
            assert isinstance(X, list) and len(X) == 2
            for mine, theirs in zip(X + [y], their_X + [their_y]):
                assert mine.dtype == theirs.dtype and mine.shape == theirs.shape
                assert (mine == theirs).all()


def test_order_is_drawn_when_a_pass_begins():
    count = 60
    data = SNLIDataset((['a'] * count, ['b'] * count, list(range(count))), 1, VOCAB)
    loader = PairLoader(data, 7, shuffle=True)
    orders = []
    for other_numbers in (False, True):
        npx.random.seed(5)
        batches = iter(loader)
        if other_numbers:
            np.random.normal(size=(3,))
        orders.append(onp.concatenate([y.asnumpy() for _, y in batches]).tolist())
    assert orders[0] == orders[1] != list(range(count)) == sorted(orders[0])


@pytest.mark.parametrize('dataset, num_steps, error, fragment', [
    (([], [], []), 3, ValueError, r'SNLIDataset: dataset must .* got the lengths \[0, 0, 0\]'),
    ((['a'], ['b', 'c'], [1]), 3, ValueError, r'got the lengths \[1, 2, 1\]'),
    ((['a'], ['b']), 3, ValueError, r'got the lengths \[1, 1\]'),
    (SENTENCES, 0, ValueError, 'SNLIDataset: num_steps must be at least 1, got 0'),
    (SENTENCES, 2.5, TypeError, 'SNLIDataset: num_steps must be an integer, got 2.5'),
])
def test_bad_data_sets(dataset, num_steps, error, fragment, capsys):
    with pytest.raises(error, match=fragment):
        SNLIDataset(dataset, num_steps, VOCAB)
    assert capsys.readouterr().out == ''


# SNLI end to end

@pytest.mark.parametrize('real', [True, False])
def test_snli_against_plain_loops(hub_data, real, capsys):
    hub_data('SNLI', real=real)
    npx.random.seed(4)
    train_iter, test_iter, vocab = load_data_snli(128, num_steps=12)
    halves = [read_snli(download_extract('SNLI'), is_train) for is_train in (True, False)]
    sizes = [len(labels) for _, _, labels in halves]
    assert capsys.readouterr().out == f'read {sizes[0]} examples\nread {sizes[1]} examples\n'
    if real:
        assert sizes == [9842, 9824]  # what the authors publish
    lines = [line.split() for line in halves[0][0] + halves[0][1]]
    assert not any(re.search(r'[()]|\s{2}', ' '.join(line)) for line in lines)
    assert vocab.idx_to_token[:2] == ['<unk>', '<pad>']
    assert set(vocab.idx_to_token[2:]) == words_at_least_five_times(lines)
    numbers = numbers_of(vocab)

    for loader, (premises, hypotheses, labels) in zip((train_iter, test_iter), halves):
        assert len(loader) == -(-len(labels) // 128)
        batches = [X + [y] for X, y in loader]
        for array, shape in zip(batches[0], ((128, 12), (128, 12), (128,))):
            assert array.shape == shape and array.dtype == onp.int32
        got = list(zip(*[array.tolist() for array in all_rows(batches)]))
        expected = [(padded(a.split(), numbers, 12, 1), padded(b.split(), numbers, 12, 1),
                     label)
                    for a, b, label in zip(premises, hypotheses, labels)]
        if loader is train_iter:
            assert got != expected
            got, expected = sorted(got), sorted(expected)
        assert got == expected


def test_snli_batches_can_be_split_between_devices(hub_data):
    hub_data('SNLI', real=False)
    _, test_iter, _ = load_data_snli(10)
    X, y = next(iter(test_iter))
    devices = [npx.cpu(0), npx.cpu(1)]
    premises, hypotheses, labels = (gluon.utils.split_and_load(array, devices)
                                    for array in (X[0], X[1], y))
    assert [part.shape for part in premises + hypotheses] == [(5, 50)] * 4
    assert [part.ctx for part in labels] == devices


@pytest.mark.parametrize('load', [load_data_imdb, load_data_snli])
@pytest.mark.parametrize('args, error, fragment', [
    ((0,), ValueError, 'batch_size must be at least 1, got 0'),
    ((2.0,), TypeError, 'batch_size must be an integer, got 2.0'),
    ((2, 0), ValueError, 'num_steps must be at least 1, got 0'),
    ((2, None), TypeError, 'num_steps must be an integer, got None'),
])
def test_bad_arguments_are_refused_before_any_data_is_read(monkeypatch, load, args, error,
                                                           fragment):
    monkeypatch.setattr(language.hub, 'download_extract',
                        lambda *args: pytest.fail('data were looked for'))
    with pytest.raises(error, match=f'{load.__name__}: {fragment}'):
        load(*args)
