"""Vocabularies and sentence pairs: counting, numbering and preparing against plain loops.

The plain versions take one word after the other: each is counted, compared with the least
frequency, and asked for its number by itself, and text is prepared character by character.  All of
it is linear in the number of words, but for sorting.  The original counts with Python's Counter,
which is a loop in C; the rows "beside Counter" have it in the plain version, too.  Each sample of
Vocab and of lookup gets new strings, as reading a text gives them: Python keeps the hash of one
that was counted before.

Timed without reading files.  The words are those of Penn Treebank and of the full English-French
file where the shared data folder is there, else of the time machine and of the sample.
"""
import collections
import gc
import os
import tempfile
import time
import zipfile

import numpy as onp
from mxnet import np

from benchmarks.run import Case
from d2l.data.text import Vocab
from d2l.data.translation import build_array, preprocess_nmt, tokenize_nmt
from d2l.testing import summary_of_times
from tests import hub_files

RESERVED = ['<pad>', '<bos>', '<eos>']
NUM_STEPS = 10


def read_texts():
    """The lines of the language model's text, and the text of the sentence pairs."""
    real = os.path.isdir(hub_files.SHARED)
    texts = []
    with tempfile.TemporaryDirectory() as folder:
        for name, member in (('ptb', 'ptb/ptb.train.txt'), ('fra-eng', 'fra-eng/fra.txt')):
            hub_files.build(name, folder, real)
            with zipfile.ZipFile(os.path.join(folder, f'{name}.zip')) as archive:
                texts.append(archive.read(member).decode('utf-8'))
    return [line.split() for line in texts[0].split('\n')], texts[1]


def counted_in_a_loop(lines):
    counts = {}
    for line in lines:
        for word in line:
            counts[word] = counts.get(word, 0) + 1
    return counts


def counted_by_counter(lines):
    return collections.Counter([word for line in lines for word in line])


class PlainVocab:
    """Words in falling frequency after the reserved ones; count gives the counts of lines."""

    def __init__(self, lines, min_freq=0, reserved=(), count=None):
        self.words = ['<unk>'] + list(reserved)
        self.index = {word: number for number, word in enumerate(self.words)}
        counts = (count or counted_in_a_loop)(lines)
        for word, number in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])):
            if number >= min_freq and word not in self.index:
                self.index[word] = len(self.words)
                self.words.append(word)

    def __getitem__(self, words):
        if not isinstance(words, (list, tuple)):
            return self.index.get(words, 0)
        return [self[word] for word in words]


def d2l_pairs(text, num_examples):
    sides = tokenize_nmt(preprocess_nmt(text), num_examples)
    arrays = []
    for lines, is_source in zip(sides, (True, False)):
        vocab = Vocab(lines, 3, RESERVED)
        arrays += build_array(lines, vocab, NUM_STEPS, is_source)
    return [array.asnumpy() for array in arrays]


def plain_pairs(text, num_examples):
    text = text.replace('\u202f', ' ').replace('\xa0', ' ').lower()
    chars = []
    for i, char in enumerate(text):
        if char in ',.!' and i > 0 and text[i - 1] != ' ':
            chars.append(' ')
        chars.append(char)
    sides = [], []
    for line in ''.join(chars).split('\n'):
        if '\t' in line and len(sides[0]) != num_examples:
            for side, sentence in zip(sides, line.split('\t')):
                side.append(sentence.split(' '))
    arrays = []
    for lines, is_source in zip(sides, (True, False)):
        vocab = PlainVocab(lines, 3, RESERVED)
        rows, lengths = [], []
        for line in lines:
            numbers = vocab[line]
            if not is_source:
                numbers = [2] + numbers[:NUM_STEPS - 2] + [3]
            numbers = numbers[:NUM_STEPS]
            rows.append(numbers + [1] * (NUM_STEPS - len(numbers)))
            lengths.append(len(numbers))
        arrays += [np.array(rows), np.array(lengths, dtype='int64')]
    return [array.asnumpy() for array in arrays]


def check(results):
    """Every provider gives what the plain one gives, element for element; else AssertionError."""
    for name, arrays in results.items():
        assert len(arrays) == len(results['plain']), name
        for mine, expected in zip(arrays, results['plain']):
            onp.testing.assert_array_equal(mine, expected, err_msg=name)


def first_pairs(text, count):
    return '\n'.join(text.split('\n')[:count])


class Lines:
    """``words``: lines of words, lists of str; ``renew`` makes them new, or ``flat`` ones."""

    def __init__(self, words, flat=False):
        self.text, self.flat = [' '.join(line) for line in words], flat
        self.renew()

    def renew(self):
        self.words = None
        self.words = [line.split(' ') for line in self.text]
        if self.flat:
            self.words = [word for line in self.words for word in line]
        gc.collect()

    def time(self, functions, samples):
        """What time_op returns, of one call a sample, each with new words."""
        taken = {name: [] for name in functions}
        for _ in range(samples):
            for name, function in functions.items():
                self.renew()
                cpu, wall = time.process_time(), time.perf_counter()
                function()
                taken[name].append((time.process_time() - cpu, time.perf_counter() - wall))
        return {name: summary_of_times(values) for name, values in taken.items()}


def cases():
    text, pairs_text = read_texts()
    pairs = tokenize_nmt(preprocess_nmt(pairs_text))
    for title, words in (('language model', text), ('French', pairs[1])):
        size = sum(map(len, words))
        vocab, plain = Vocab(words), PlainVocab(words)
        name = f'{title} {size} words {len(vocab)} different'
        lines = Lines(words)
        for beside, count in (('', counted_in_a_loop), ('beside Counter ', counted_by_counter)):
            yield Case(f'Vocab {beside}{name}',
                       {'d2l': lambda lines=lines: [Vocab(lines.words).idx_to_token],
                        'plain': lambda lines=lines, count=count: [
                            PlainVocab(lines.words, count=count).words]}, check, time=lines.time)
        lines = Lines(words, flat=True)
        yield Case(f'Vocab lookup {name}',
                   {'d2l': lambda lines=lines, vocab=vocab: [vocab[lines.words]],
                    'plain': lambda lines=lines, plain=plain: [plain[lines.words]]}, check,
                   time=lines.time)
    for count in (1000, 10000, len(pairs[0])):
        part = first_pairs(pairs_text, count)
        yield Case(f'fra-eng {count} pairs',
                   {'d2l': lambda part=part, count=count: d2l_pairs(part, count),
                    'plain': lambda part=part, count=count: plain_pairs(part, count)}, check)
