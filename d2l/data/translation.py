"""English sentences and their French translations, as padded arrays of numbers."""
import itertools
import numbers
import os

import numpy as onp
from mxnet import np

from d2l.data.arrays import load_array, positive_int
from d2l.data.text import Vocab
from d2l.utils import hub
from d2l.utils.files import open_text

_MIN_FREQ = 3


def read_data_nmt():
    """The sentence pairs as they are: one to a line, English, a tab, French.  Returns a str.

    The full file has 167,130 pairs; the sample that ships with the package, used with a warning
    if the full one is not found, has its first 12,000.  Raises what ``hub.download_extract``
    raises.  Book section 9.5.
    """
    path = os.path.join(hub.download_extract('fra-eng'), 'fra.txt')
    with open_text(path) as file:
        return file.read()


def preprocess_nmt(text):
    """Lower case, plain spaces for no-break ones, and a space before each of ``, . !``.

    None is added where a space is already or the text begins.  As in the book a '?' stays with
    its word.  Returns a str.  Book section 9.5.
    """
    text = text.replace('\u202f', ' ').replace('\xa0', ' ').lower()
    begins_apart = text.startswith((',', '.', '!'))
    for mark in ',.!':
        # One space more before all of them, and one less where this made two.
        text = text.replace(mark, ' ' + mark).replace('  ' + mark, ' ' + mark)
    return text[1:] if begins_apart else text


def tokenize_nmt(text, num_examples=None):
    """The words of the first ``num_examples`` sentence pairs, of all if it is None.

    ``text`` has one pair to a line; further columns after the second, the licences of newer
    files, are ignored, and so are lines without a tab.  Sentences are split at each single
    space.  Returns (source, target), two lists of lists of str.  Raises ``TypeError`` or
    ``ValueError`` unless ``num_examples`` is a positive integer or None.  Book section 9.5.
    """
    columns = [line.split('\t', 2) for line in _pairs(text, num_examples)]
    return ([pair[0].split(' ') for pair in columns], [pair[1].split(' ') for pair in columns])


def truncate_pad(line, num_steps, padding_token):
    """``line``, a list, cut or padded to ``num_steps`` entries.  Returns a new list.

    Raises ``ValueError`` for a ``num_steps`` that is negative or not whole.  Book section 9.5.
    """
    if not isinstance(num_steps, numbers.Integral) or num_steps < 0:
        raise ValueError('truncate_pad: num_steps must be a whole number of at least 0, got '
                         f'{num_steps!r}')
    return list(line[:num_steps]) + [padding_token] * (num_steps - len(line))


def build_array(lines, vocab, num_steps, is_source):
    """Sentences as rows of numbers, cut or padded with '<pad>'.  Returns (array, valid_len).

    ``lines`` is a list of n lists of tokens.  Unless ``is_source``, each is put between '<bos>'
    and '<eos>', and what is too long loses words, not its '<eos>'.  ``array`` is float32 of shape
    (n, num_steps); ``valid_len``, int64 of shape (n,), counts the entries before the padding.

    Raises ``TypeError`` or ``ValueError`` for a ``num_steps`` that is not a positive integer, or
    is 1 with '<bos>' and '<eos>', and ``ValueError`` for a ``vocab`` without the special tokens.
    Book section 9.5.
    """
    array, valid_len = _numbered(lines, vocab, num_steps, is_source)
    return np.array(array, dtype='float32'), np.array(valid_len, dtype='int64')


def load_data_nmt(batch_size, num_steps, num_examples=1000):
    """Pairs of English and French sentences.  Returns (src_vocab, tgt_vocab, data_iter).

    The first ``num_examples`` pairs are used, all if it is None.  The vocabularies have the words
    that occur three times, and '<pad>', '<bos>' and '<eos>' as 1, 2 and 3.  A batch is a list of
    X, X_valid_len, Y and Y_valid_len, for which see ``build_array``; the pairs are shuffled anew
    in each pass (see ``ArrayLoader`` about seeds), and the last batch may be smaller.

    Raises ``TypeError`` or ``ValueError`` for a wrong argument, ``ValueError`` for a file without
    pairs, and what ``read_data_nmt`` raises.  Book section 9.5.
    """
    batch_size = positive_int('load_data_nmt: batch_size', batch_size)
    num_steps = positive_int('load_data_nmt: num_steps', num_steps)
    if num_examples is not None:
        num_examples = positive_int('load_data_nmt: num_examples', num_examples)
    # Cut first: most of the file is not asked for by default.
    pairs = _pairs(read_data_nmt(), num_examples)
    if not pairs:
        raise ValueError('load_data_nmt: fra.txt must have sentence pairs, with a tab between '
                         'English and French, but has none')
    sides = tokenize_nmt(preprocess_nmt('\n'.join(pairs)))
    vocabs = [Vocab(lines, _MIN_FREQ, ['<pad>', '<bos>', '<eos>']) for lines in sides]
    arrays = [array for side, (lines, vocab) in enumerate(zip(sides, vocabs))
              for array in build_array(lines, vocab, num_steps, is_source=side == 0)]
    return vocabs[0], vocabs[1], load_array(arrays, batch_size)


def _pairs(text, num_examples):
    """The first lines that have two columns or more."""
    if num_examples is not None:
        num_examples = positive_int('num_examples', num_examples)
    lines = (line for line in text.split('\n') if '\t' in line)
    return list(itertools.islice(lines, num_examples))


def _numbered(lines, vocab, num_steps, is_source):
    """``build_array`` in numpy: all tokens are looked up in one list."""
    num_steps = positive_int('build_array: num_steps', num_steps)
    special = ['<pad>'] if is_source else ['<pad>', '<bos>', '<eos>']
    missing = [token for token in special if token not in vocab.token_to_idx]
    if missing:
        raise ValueError('build_array: vocab must have the reserved token '
                         f'{" and ".join(map(repr, missing))}')
    room, first = (num_steps, 0) if is_source else (num_steps - 2, 1)
    if room < 0:
        raise ValueError('build_array: num_steps must be at least 2 for <bos> and <eos>, got 1')
    lengths = onp.fromiter(map(len, lines), 'int64', len(lines))
    array = onp.full((len(lines), num_steps), vocab['<pad>'], 'float32')
    # Where in its sentence each token stands.
    place = onp.arange(lengths.sum()) - onp.repeat(onp.cumsum(lengths) - lengths, lengths)
    row = onp.repeat(onp.arange(len(lines)), lengths)
    numbers = onp.array(vocab[list(itertools.chain.from_iterable(lines))], 'float32')
    kept = place < room
    array[row[kept], place[kept] + first] = numbers[kept]
    lengths = onp.minimum(lengths, room)
    if not is_source:
        array[:, 0] = vocab['<bos>']
        array[onp.arange(len(lines)), lengths + 1] = vocab['<eos>']
        lengths = lengths + 2
    return array, lengths
