"""Penn Treebank for word2vec: whole arrays against one word at a time.

The text is the real one of the shared data folder; where that is absent, the time machine.  The
plain version does what section 14.3 describes in loops, with Python's ``random``, ends in lists,
and batches with gluon's DataLoader in this process.  Vocab is ours in both.  With one seed both
have the same centers and contexts.  The noise words are drawn in another order: of these the
numbers are compared, that none is among its contexts, and, with two seeds, how often each word
comes.
"""
import bisect
import collections
import itertools
import math
import os
import random
import tempfile

import numpy as onp
from mxnet import gluon, np

from benchmarks.run import Case
from d2l.data import word2vec
from d2l.data.text import Vocab
from d2l.utils import hub
from tests import hub_files

BATCH_SIZE, WINDOW, NOISE = 512, 5, 5


def unpacked():
    """The folder of the unpacked text; it is removed when the program ends."""
    target = tempfile.TemporaryDirectory(prefix='d2l-benchmark-')
    unpacked.kept.append(target)
    hub_files.build('ptb', target.name, real=os.path.isdir(hub_files.SHARED))
    before = {key: os.environ.get(key) for key in ('D2L_DATA', 'D2L_OFFLINE')}
    os.environ.update(D2L_DATA=target.name, D2L_OFFLINE='1')
    try:
        return hub.download_extract('ptb', cache_dir=os.path.join(target.name, 'data'))
    finally:
        for key, value in before.items():
            os.environ.pop(key)
            if value is not None:
                os.environ[key] = value


unpacked.kept = []


def plain_read(folder):
    with open(os.path.join(folder, 'ptb.train.txt'), encoding='utf-8') as file:
        return [line.split() for line in file.read().split('\n')]


def plain_subsampling(sentences, vocab):
    sentences = [[vocab.idx_to_token[vocab[word]] for word in line] for line in sentences]
    counter = collections.Counter(word for line in sentences for word in line)
    total = sum(counter.values())
    return [[word for word in line
             if random.uniform(0, 1) < math.sqrt(1e-4 / counter[word] * total)]
            for line in sentences]


def plain_contexts(corpus, max_window_size):
    centers, contexts = [], []
    for line in corpus:
        if len(line) < 2:
            continue
        for place, word in enumerate(line):
            size = random.randint(1, max_window_size)
            around = range(max(0, place - size), min(len(line), place + size + 1))
            centers.append(word)
            contexts.append([line[other] for other in around if other != place])
    return centers, contexts


def plain_negatives(all_contexts, corpus, K):
    counter = collections.Counter(word for line in corpus for word in line)
    cumulative = list(itertools.accumulate(counter[i] ** 0.75 for i in range(max(counter) + 1)))
    negatives = []
    for contexts in all_contexts:
        row = []
        while len(row) < K * len(contexts):
            word = bisect.bisect(cumulative, random.random() * cumulative[-1])
            if word not in contexts:
                row.append(word)
        negatives.append(row)
    return negatives


def plain_batchify(data):
    longest = max(len(contexts) + len(negatives) for _, contexts, negatives in data)
    centers, rows, masks, labels = [], [], [], []
    for center, contexts, negatives in data:
        used = len(contexts) + len(negatives)
        centers.append([center])
        rows.append(contexts + negatives + [0] * (longest - used))
        masks.append([1] * used + [0] * (longest - used))
        labels.append([1] * len(contexts) + [0] * (longest - len(contexts)))
    return np.array(centers), np.array(rows), np.array(masks), np.array(labels)


def plain_load(folder):
    sentences = plain_read(folder)
    vocab = Vocab(sentences, min_freq=10)
    corpus = [vocab[line] for line in plain_subsampling(sentences, vocab)]
    centers, contexts = plain_contexts(corpus, WINDOW)
    negatives = plain_negatives(contexts, corpus, NOISE)
    data = gluon.data.ArrayDataset(centers, contexts, negatives)
    return gluon.data.DataLoader(data, BATCH_SIZE, shuffle=True,
                                 batchify_fn=plain_batchify), vocab


def our_load(folder):
    before, hub.download_extract = hub.download_extract, lambda *args: folder
    try:
        return word2vec.load_data_ptb(BATCH_SIZE, WINDOW, NOISE)
    finally:
        hub.download_extract = before


def seeded(function, *arguments, seed=1):
    def run():
        random.seed(seed)
        return function(*arguments)
    return run


def one_pass(loader):
    """Gives the numbers of batches, ids, contexts, and the sums of centers, ids and labels."""
    def run():
        facts = onp.zeros(4)
        for centers, rows, masks, labels in loader:
            facts += [1, float(centers.sum()), float(masks.sum()), float(labels.sum())]
            last = rows
        return facts, last.shape[1] % (1 + NOISE)
    return run


def check_equal(results):
    """Both give the same; else AssertionError."""
    for name, result in results.items():
        assert result == results['plain'], name


def check_pass(results):
    for name, (facts, remainder) in results.items():
        assert (facts == results['plain'][0]).all() and remainder == 0, name


def check_load(results):
    (mine, words), (theirs, expected) = results['d2l'], results['plain']
    assert words.idx_to_token == expected.idx_to_token and len(mine) == len(theirs)
    check_pass({'d2l': one_pass(mine)(), 'plain': one_pass(theirs)()})


def negatives_checker(contexts):
    def check(results):
        counts = {}
        for name, rows in results.items():
            assert [len(row) for row in rows] == [NOISE * len(line) for line in contexts], name
            assert all(set(row).isdisjoint(line) for row, line in zip(rows, contexts)), name
            counts[name] = onp.bincount(list(itertools.chain.from_iterable(rows)), minlength=10000)
        # Two samples of one distribution: the squared difference of counts is about their sum.
        mine, theirs = counts['d2l'].astype(float), counts['plain'].astype(float)
        drawn = mine + theirs > 50
        excess = ((mine - theirs) ** 2 / (mine + theirs).clip(1))[drawn].mean()
        assert abs(excess - 1) < 0.2, excess
    return check


def cases():
    folder = unpacked()
    sentences = plain_read(folder)
    vocab = Vocab(sentences, min_freq=10)
    yield Case(f'subsampling {len(sentences)} sentences',
               {'d2l': seeded(word2vec.subsampling, sentences, vocab),
                'plain': seeded(plain_subsampling, sentences, vocab)}, check_equal)
    yield Case(f'load_data_ptb {len(sentences)} sentences',
               {'d2l': seeded(our_load, folder), 'plain': seeded(plain_load, folder)}, check_load)
    corpus = [vocab[line] for line in seeded(word2vec.subsampling, sentences, vocab)()]
    yield Case('get_centers_and_contexts',
               {'d2l': seeded(word2vec.get_centers_and_contexts, corpus, WINDOW),
                'plain': seeded(plain_contexts, corpus, WINDOW)}, check_equal)
    centers, contexts = seeded(word2vec.get_centers_and_contexts, corpus, WINDOW)()
    yield Case(f'get_negatives {len(centers)} examples',
               {'d2l': seeded(word2vec.get_negatives, contexts, corpus, NOISE),
                'plain': seeded(plain_negatives, contexts, corpus, NOISE, seed=2)},
               negatives_checker(contexts))
    del centers, contexts
    loaders = [seeded(load, folder)()[0] for load in (our_load, plain_load)]
    yield Case(f'pass over {len(loaders[0])} batches',
               {'d2l': one_pass(loaders[0]), 'plain': one_pass(loaders[1])}, check_pass)
