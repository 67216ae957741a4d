"""WikiText-2 made into BERT's examples: whole arrays against one example at a time.

Timed is all that `load_data_wiki` does once it has the file: reading, splitting, counting words,
pairing, masking, padding.  The text is WikiText-2's valid text (214,000 tokens; the training text
has ten times as many) where the shared data folder is there, else the time machine.  Nine tenths
of the plain version's time go into its MXNet arrays of one example each.
"""
import collections
import os
import random
import tempfile
import zipfile

import numpy as onp
from mxnet import np

from benchmarks.run import Case
from d2l.data.pretraining import _read_wiki, _WikiTextDataset
from tests import hub_files

RESERVED = ['<unk>', '<pad>', '<mask>', '<cls>', '<sep>']
CLS, SEP, MASK, PAD = (RESERVED.index(token) for token in ('<cls>', '<sep>', '<mask>', '<pad>'))


def d2l_arrays(folder, max_len):
    random.seed(0)
    data = _WikiTextDataset(_read_wiki(folder), max_len)
    return [onp.array([len(data.vocab)])] + list(data._arrays)


def plain_arrays(folder, max_len):
    """As a reader would write it: a loop over examples, an MXNet array for each of their fields."""
    random.seed(0)
    with open(os.path.join(folder, 'wiki.train.tokens'), encoding='utf-8') as file:
        paragraphs = [[sentence.split() for sentence in line.strip().lower().split(' . ')]
                      for line in file if len(line.split(' . ')) >= 2]
    random.shuffle(paragraphs)
    counts = collections.Counter(token for paragraph in paragraphs for sentence in paragraph
                                 for token in sentence)
    words = [word for word, count in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
             if count >= 5 and word not in RESERVED]
    index = {token: i for i, token in enumerate(RESERVED + words)}
    fields = [[] for _ in range(7)]
    for paragraph in paragraphs:
        for a, b in zip(paragraph, paragraph[1:]):
            is_next = random.random() < 0.5
            if not is_next:
                b = random.choice(random.choice(paragraphs))
            if len(a) + len(b) + 3 <= max_len:
                for field, array in zip(fields, plain_example(a, b, is_next, index, words,
                                                              max_len)):
                    field.append(array)
    return [onp.array([len(index)])] + fields


def plain_example(a, b, is_next, index, words, max_len):
    tokens = ['<cls>'] + a + ['<sep>'] + b + ['<sep>']
    segments = [0] * (len(a) + 2) + [1] * (len(b) + 1)
    positions = [i for i, token in enumerate(tokens) if token not in ('<cls>', '<sep>')]
    random.shuffle(positions)
    positions = sorted(positions[:max(1, round(0.15 * len(tokens)))])
    labels = [index.get(tokens[i], 0) for i in positions]
    for i in positions:
        draw = random.random()
        if draw < 0.8:
            tokens[i] = '<mask>'
        elif draw < 0.9:
            tokens[i] = random.choice(words)
    rest, slots = max_len - len(tokens), round(0.15 * max_len) - len(positions)
    return (np.array([index.get(token, 0) for token in tokens] + [PAD] * rest, dtype='int32'),
            np.array(segments + [0] * rest, dtype='int32'),
            np.array(len(tokens), dtype='float32'),
            np.array(positions + [0] * slots, dtype='int32'),
            np.array([1.0] * len(positions) + [0.0] * slots, dtype='float32'),
            np.array(labels + [0] * slots, dtype='int32'), np.array(is_next))


def check(results):
    """Both have the same words, and all that chance does not decide fits; else AssertionError."""
    numbers = {}
    for name, (num_words, *fields) in results.items():
        fields = [onp.stack([row.asnumpy() for row in field]) if isinstance(field, list) else field
                  for field in fields]
        numbers[name] = check_fields(name, *fields)
        assert num_words == results['plain'][0], name
    for name, (num_examples, masked, kept, following) in numbers.items():
        expected = numbers['plain']
        assert abs(num_examples / expected[0] - 1) < 0.05, name
        onp.testing.assert_allclose((masked, kept, following), expected[1:], atol=0.05,
                                    err_msg=name)


def check_fields(name, tokens, segments, lengths, positions, weights, labels, is_next):
    """Returns the number of examples and the shares of masks, unchanged tokens, and next ones."""
    inside = onp.arange(tokens.shape[1]) < lengths[:, onp.newaxis]
    assert (tokens[:, 0] == CLS).all() and (tokens[~inside] == PAD).all(), name
    seps = tokens == SEP
    assert (seps.sum(axis=1) == 2).all(), name
    onp.testing.assert_array_equal(segments, seps.cumsum(axis=1) - seps == 1, err_msg=name)
    expected = onp.maximum(1, onp.rint(0.15 * lengths))
    onp.testing.assert_array_equal(weights.sum(axis=1), onp.minimum(expected, lengths - 3))
    rows, slots = onp.nonzero(weights)
    shown, hidden = tokens[rows, positions[rows, slots]], labels[rows, slots]
    assert not onp.isin(hidden, (CLS, SEP, PAD)).any(), name
    return len(tokens), (shown == MASK).mean(), (shown == hidden).mean(), is_next.mean()


def cases():
    real = os.path.isdir(hub_files.SHARED)
    folder = tempfile.TemporaryDirectory()
    hub_files.build('wikitext-2', folder.name, real)
    with zipfile.ZipFile(os.path.join(folder.name, 'wikitext-2-v1.zip')) as archive:
        archive.extractall(folder.name)

    def provider(load, max_len):
        # The folder lasts as long as its object, which this function holds.
        return lambda: load(os.path.join(folder.name, 'wikitext-2'), max_len)
    for max_len in (64, 128):
        yield Case(f'wikitext-2 {"valid" if real else "time machine"} max_len {max_len}',
                   {'d2l': provider(d2l_arrays, max_len), 'plain': provider(plain_arrays, max_len)},
                   check)
