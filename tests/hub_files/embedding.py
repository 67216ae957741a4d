"""Word vectors: part of GloVe, and vectors counted in short texts, in the formats of the hub.

GloVe's files have one line for each word.  fastText's also have a first line with the numbers of
words and dimensions, and a space at the end of each line.
"""
import collections
import os
import re
import tarfile
import zipfile

import numpy as onp

from d2l.utils.hub import download

_WINDOW = 4


def glove_50d(shared, folder):
    """The vectors of GloVe's 20,000 most frequent words, as they were published."""
    with tarfile.open(os.path.join(shared, 'glove', 'glove.6B.50d.top20k.tar.xz')) as source:
        text = source.extractfile('glove.6B.50d.top20k/vec.txt').read()
    write(folder, 'glove.6B.50d', text)


def write(folder, name, text):
    with zipfile.ZipFile(os.path.join(folder, name + '.zip'), 'w', zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name + '/vec.txt', text)


def time_machine():
    with open(download('time_machine'), encoding='utf-8') as file:
        return re.findall(r"[a-z']+|[.,;:?!-]", file.read().lower())


def wikitext(shared):
    """The words of the valid and test texts of WikiText-2."""
    with zipfile.ZipFile(os.path.join(shared, 'wikitext-2', 'wikitext-2-valid-test.zip')) as source:
        return b' '.join(source.read(f'wikitext-2/wiki.{part}.tokens')
                         for part in ('valid', 'test')).decode('utf-8').lower().split()


def counted_vectors(words, size):
    """The words that occur five times, most frequent first, and vectors of what stands near them.

    Positive pointwise mutual information with the most frequent words, of which the first
    principal directions are kept (Levy and Goldberg, 2014).
    """
    counter = collections.Counter(words)
    known = [word for word, count in counter.most_common() if count >= 5]
    index = {word: number for number, word in enumerate(known)}
    ids = onp.array([index.get(word, -1) for word in words])
    width = min(len(known), 2 * size)
    counts = onp.zeros((len(known), width))
    for distance in range(1, _WINDOW + 1):
        for one, other in ((ids[distance:], ids[:-distance]), (ids[:-distance], ids[distance:])):
            near = (one >= 0) & (other >= 0) & (other < width)
            onp.add.at(counts, (one[near], other[near]), 1)
    expected = counts.sum(axis=1, keepdims=True) * counts.sum(axis=0) / counts.sum()
    information = onp.log(onp.maximum(counts / onp.maximum(expected, 1e-9), 1))
    directions = onp.linalg.eigh(information.T @ information)[1][:, ::-1]
    return known, information @ directions[:, :size]


def text_of(known, vectors, fasttext=False):
    """vec.txt as bytes; a number has five significant digits, as GloVe's have."""
    end = ' \n' if fasttext else '\n'
    line = '%s' + ' %.5g' * vectors.shape[1] + end
    head = '%d %d\n' % vectors.shape if fasttext else ''
    return (head + ''.join([line % (word, *row)
                            for word, row in zip(known, vectors.tolist())])).encode('utf-8')


def write_counted(folder, name, words, size):
    write(folder, name, text_of(*counted_vectors(words, size), fasttext=name == 'wiki.en'))


REAL = {'glove.6b.50d': glove_50d,
        'glove.6b.100d': lambda shared, folder: write_counted(folder, 'glove.6B.100d',
                                                              wikitext(shared), 100),
        'wiki.en': lambda shared, folder: write_counted(folder, 'wiki.en', wikitext(shared), 300)}
SAMPLES = {
    'glove.6b.50d': lambda folder: write_counted(folder, 'glove.6B.50d', time_machine(), 50),
    'glove.6b.100d': lambda folder: write_counted(folder, 'glove.6B.100d', time_machine(), 100),
    'wiki.en': lambda folder: write_counted(folder, 'wiki.en', time_machine(), 300)}
