"""Preparing IMDb and SNLI: whole arrays against one review, pair and row at a time.

The data are 4,000 reviews and 19,666 pairs of the shared data folder; where that is absent, few
made of the samples.  Both providers begin with the unpacked files and end with the first batches,
reviews of 500 words and sentences of 50.  The plain one looks words up and pads line by line,
makes an array of the nested lists, and batches with gluon's DataLoader.  Another case is one pass
over SNLI's test set.  Vocab and tokenize are ours in both.
"""
import contextlib
import io
import os
import re
import tempfile
import zlib

import mxnet as mx
import numpy as onp
from mxnet import gluon, np

from benchmarks.run import Case
from d2l.data import language
from d2l.data.text import Vocab, tokenize
from d2l.utils import hub
from tests import hub_files

BATCH_SIZE = 64


def unpacked(name, folder=None):
    """The folder of the unpacked data; it is removed when the program ends."""
    target = tempfile.TemporaryDirectory(prefix='d2l-benchmark-')
    unpacked.kept.append(target)
    hub_files.build(name, target.name, real=os.path.isdir(hub_files.SHARED))
    before = {key: os.environ.get(key) for key in ('D2L_DATA', 'D2L_OFFLINE')}
    os.environ.update(D2L_DATA=target.name, D2L_OFFLINE='1')
    try:
        return hub.download_extract(name, folder, os.path.join(target.name, 'data'))
    finally:
        for key, value in before.items():
            os.environ.pop(key)
            if value is not None:
                os.environ[key] = value


unpacked.kept = []


def plain_pad(lines, vocab, num_steps, padding):
    rows = []
    for line in lines:
        row = vocab[line]
        rows.append(row[:num_steps] if len(row) > num_steps
                    else row + [padding] * (num_steps - len(row)))
    return np.array(rows)


def plain_imdb(folder, num_steps):
    halves = []
    for half in ('train', 'test'):
        data, labels = [], []
        for label in ('pos', 'neg'):
            path = os.path.join(folder, half, label)
            for name in sorted(os.listdir(path)):
                with open(os.path.join(path, name), encoding='utf-8') as file:
                    data.append(file.read().replace('\n', ''))
                labels.append(1 if label == 'pos' else 0)
        halves.append((tokenize(data), labels))
    vocab = Vocab(halves[0][0], min_freq=5)
    sets = [gluon.data.ArrayDataset(plain_pad(lines, vocab, num_steps, 0), labels)
            for lines, labels in halves]
    return sets, vocab


class PlainPairs(gluon.data.Dataset):
    def __init__(self, premises, hypotheses, labels):
        self.premises, self.hypotheses, self.labels = premises, hypotheses, np.array(labels)

    def __getitem__(self, idx):
        return (self.premises[idx], self.hypotheses[idx]), self.labels[idx]

    def __len__(self):
        return len(self.premises)


def plain_snli(folder, num_steps):
    def sentence(text):
        text = re.sub('[()]', '', text)
        return re.sub(r'\s{2,}', ' ', text).strip()

    labels = {'entailment': 0, 'contradiction': 1, 'neutral': 2}
    halves = []
    for half in ('train', 'test'):
        with open(os.path.join(folder, f'snli_1.0_{half}.txt'), encoding='utf-8') as file:
            rows = [line.split('\t') for line in file.readlines()[1:]]
        rows = [row for row in rows if row[0] in labels]
        halves.append([tokenize([sentence(row[column]) for row in rows]) for column in (1, 2)]
                      + [[labels[row[0]] for row in rows]])
    vocab = Vocab(halves[0][0] + halves[0][1], min_freq=5, reserved_tokens=['<pad>'])
    sets = [PlainPairs(*[plain_pad(lines, vocab, num_steps, vocab['<pad>'])
                         for lines in (premises, hypotheses)], numbers)
            for premises, hypotheses, numbers in halves]
    return sets, vocab


def ours(load, folder):
    """Loads from the folder instead of the hub; gives the loaders and the vocabulary."""
    def run():
        before, hub.download_extract = hub.download_extract, lambda *args: folder
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                return load(BATCH_SIZE)
        finally:
            hub.download_extract = before
    return first_batch(run)


def plain(load, folder, num_steps):
    def run():
        sets, vocab = load(folder, num_steps)
        loaders = [gluon.data.DataLoader(part, BATCH_SIZE, shuffle=shuffle)
                   for part, shuffle in zip(sets, (True, False))]
        return (*loaders, vocab)
    return first_batch(run)


def first_batch(prepare):
    """Prepare and take one training batch.

    Gives the numbers of batches and words, a checksum of the words, the shapes of the training
    batch, and the first test batch.
    """
    def run():
        train_iter, test_iter, vocab = prepare()
        shapes = [onp.array(array.shape) for array in flat(next(iter(train_iter)))]
        batch = [array.asnumpy() for array in flat(next(iter(test_iter)))]
        facts = [len(train_iter), len(test_iter), len(vocab),
                 zlib.crc32(' '.join(vocab.idx_to_token).encode('utf-8'))]
        return [onp.array(facts), *shapes, *batch]
    return run


def one_pass(loader):
    """Gives the number of batches, and the last one."""
    def run():
        batches = list(loader)
        mx.nd.waitall()
        return [onp.array([len(batches)])] + [array.asnumpy() for array in flat(batches[-1])]
    return run


def flat(batch):
    X, y = batch
    return [*(X if isinstance(X, list) else [X]), y]


def check(results):
    """Every provider gives what the plain one gives, element for element; else AssertionError."""
    for name, arrays in results.items():
        assert len(arrays) == len(results['plain']), name
        for mine, expected in zip(arrays, results['plain']):
            onp.testing.assert_array_equal(mine, expected, err_msg=name)


def cases():
    folder = unpacked('aclImdb', 'aclImdb')
    count = sum(len(language.read_imdb(folder, is_train)[1]) for is_train in (True, False))
    yield Case(f'imdb {count} reviews',
               {'d2l': ours(language.load_data_imdb, folder),
                'plain': plain(plain_imdb, folder, 500)}, check)
    folder = unpacked('SNLI')
    count = sum(len(language.read_snli(folder, is_train)[2]) for is_train in (True, False))
    yield Case(f'snli {count} pairs',
               {'d2l': ours(language.load_data_snli, folder),
                'plain': plain(plain_snli, folder, 50)}, check)
    pairs = language.read_snli(folder, False)
    with contextlib.redirect_stdout(io.StringIO()):
        data = language.SNLIDataset(pairs, 50)
    yield Case(f'snli pass over {len(data)} pairs',
               {'d2l': one_pass(language.PairLoader(data, BATCH_SIZE)),
                'plain': one_pass(gluon.data.DataLoader(data, BATCH_SIZE))}, check)
