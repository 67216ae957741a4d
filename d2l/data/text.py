"""Text as numbers: tokens, vocabularies, and batches of one long sequence of tokens.

The Time Machine, which ships with the package, is the text of the book's chapter 8.
"""
import collections
import functools
import itertools
import numbers
import operator
import random
import re

import mxnet as mx
import numpy as onp

from d2l.data._tokens import count_sorted
from d2l.data.arrays import ArrayLoader, positive_int
from d2l.utils import hub
from d2l.utils.files import open_text


def read_time_machine():
    """The lines of The Time Machine.  Returns a list of str, empty lines included.

    Only letters, in lower case, with one space for whatever stood between them.  Raises what
    ``hub.download`` raises.  Book section 8.2.
    """
    with open_text(hub.download('time_machine')) as file:
        text = file.read()
    text = re.sub('[^A-Za-z\n]+', ' ', text).lower()
    lines = [line.strip() for line in text.split('\n')]
    # What follows the last line end is a line only if there is something.
    return lines if lines[-1] else lines[:-1]


def tokenize(lines, token='word'):
    """Split each line into words, at white space, or into characters.

    ``lines`` is a list of str, ``token`` is 'word' or 'char'.  Returns a list of lists of str.
    Raises ``ValueError`` for another ``token`` and ``TypeError`` if ``lines`` is a str.  Book
    section 8.2.
    """
    if isinstance(lines, (str, bytes)):
        raise TypeError(f'tokenize: lines must be a list of str, got {type(lines).__name__}')
    if token == 'word':
        return [line.split() for line in lines]
    if token == 'char':
        return [list(line) for line in lines]
    raise ValueError(f"tokenize: token must be 'word' or 'char', got {token!r}")


class Vocab:
    """Numbers for tokens: 0 is '<unk>', then ``reserved_tokens``, then the tokens by frequency.

    ``tokens`` is a list of tokens, or a list of lists of them.  The most frequent comes first;
    equally frequent ones are in their own order.  Tokens rarer than ``min_freq`` have no number.
    One that is reserved, too, or reserved twice, has its first number only.  A token may be a
    tuple, as bigrams are.

    ``idx_to_token`` is the list of tokens with numbers, ``token_to_idx`` the dict back and
    ``unk`` the number of unknown tokens; they may be replaced.  ``token_freqs`` is the list of
    (token, count) in falling frequency, rare ones included.

    Raises ``TypeError`` for tokens that cannot be counted.  Time is that of sorting, and linear
    otherwise.  Book section 8.2.
    """

    def __init__(self, tokens=None, min_freq=0, reserved_tokens=None):
        if isinstance(reserved_tokens, str):
            raise TypeError('Vocab: reserved_tokens must be a list of tokens, got a str')
        self._sorted = frequent, counts = _sorted_counts([] if tokens is None else tokens)
        self.unk = 0
        if counts and counts[-1] < min_freq:
            frequent = [token for token, count in zip(frequent, counts) if count >= min_freq]
        self.idx_to_token = ['<unk>', *(reserved_tokens or ()), *frequent]
        self.token_to_idx = _places(self.idx_to_token)
        if len(self.token_to_idx) < len(self.idx_to_token):  # some are reserved, too
            self.idx_to_token = list(dict.fromkeys(self.idx_to_token))  # keeps their first places
            self.token_to_idx = _places(self.idx_to_token)

    @functools.cached_property
    def token_freqs(self):
        return list(zip(*self._sorted))

    def __len__(self):
        return len(self.idx_to_token)

    def __getitem__(self, tokens):
        """The number of a token, or a list of those in a list, tuple or array, nested at will.

        What is not in the vocabulary, a number for one, gets ``unk``.  A tuple that is a token
        itself counts as one.
        """
        if isinstance(tokens, (onp.ndarray, mx.nd.NDArray)):
            tokens = _as_numpy(tokens).tolist()
        find, unk = self.token_to_idx.get, self.unk
        if not isinstance(tokens, (list, tuple)):
            return find(tokens, unk)
        if isinstance(tokens, tuple) and _hashable(tokens) and tokens in self.token_to_idx:
            return find(tokens)
        if set(map(type, tokens)) == {str}:
            return list(map(find, tokens, itertools.repeat(unk)))
        return [self[token] for token in tokens]

    def to_tokens(self, indices):
        """The token of a number, or a list of those in a list, tuple or array, nested at will.

        Arrays, of MXNet or numpy, may have floating-point dtypes if the numbers are whole, as
        batches have.  Raises ``IndexError`` for a number that no token has, negative ones
        included, and ``TypeError`` for what is not a whole number.
        """
        if isinstance(indices, (onp.ndarray, mx.nd.NDArray)):
            indices = _whole_numbers(_as_numpy(indices)).tolist()
        if isinstance(indices, (list, tuple)):
            if indices and set(map(type, indices)) == {int} and min(indices) >= 0 \
                    and max(indices) < len(self):
                return list(map(self.idx_to_token.__getitem__, indices))
            return [self.to_tokens(index) for index in indices]
        try:
            index = operator.index(indices)
        except TypeError:
            raise TypeError('Vocab.to_tokens: indices must be whole numbers, '
                            f'got {indices!r}') from None
        if not 0 <= index < len(self):
            raise IndexError(f'Vocab.to_tokens: indices must be from 0 to {len(self) - 1}, '
                             f'got {index}')
        return self.idx_to_token[index]


def _places(tokens):
    return dict(zip(tokens, range(len(tokens))))


def _sorted_counts(tokens):
    """Tokens and counts, two lists, in falling count, equally frequent tokens in their order."""
    if isinstance(tokens, list) and tokens:
        found = count_sorted(tokens if isinstance(tokens[0], list) else [tokens])
        if found is not None:
            return found
    by_token = sorted(count_corpus(tokens).items(), key=operator.itemgetter(0))
    freqs = sorted(by_token, key=operator.itemgetter(1), reverse=True)
    return [token for token, _ in freqs], [count for _, count in freqs]


def count_corpus(tokens):
    """How often each token occurs.  Returns a ``collections.Counter``.

    ``tokens`` is a list of tokens, or of lists of tokens if its first entry is a list.  Raises
    ``TypeError`` for a mixture of both and for tokens that cannot be counted.  Book section 8.2.
    """
    if isinstance(tokens, (onp.ndarray, mx.nd.NDArray)):
        tokens = _as_numpy(tokens).tolist()
    elif not isinstance(tokens, (list, tuple, str)):
        tokens = list(tokens)
    if tokens and isinstance(tokens[0], list):
        # Types first: there are few, but many lines.
        if not all(issubclass(kind, (list, tuple)) for kind in set(map(type, tokens))):
            number, line = next((number, line) for number, line in enumerate(tokens)
                                if not isinstance(line, (list, tuple)))
            raise TypeError('count_corpus: tokens must be a list of tokens or of lists of them, '
                            f'got lists and, as entry {number}, {line!r}')
        tokens = itertools.chain.from_iterable(tokens)
    try:
        return collections.Counter(tokens)
    except TypeError as error:
        raise TypeError('count_corpus: tokens must be a list of tokens or of lists of them; '
                        f'{error}') from error


def load_corpus_time_machine(max_tokens=-1):
    """The Time Machine as the numbers of its characters.  Returns (corpus, vocab).

    ``corpus`` is a list of int: the lines one after the other with nothing between them, cut to
    the first ``max_tokens`` if that is positive.  ``vocab`` is the ``Vocab`` of the whole text.
    Raises ``TypeError`` for a ``max_tokens`` that is no integer.  Book section 8.2.
    """
    if isinstance(max_tokens, bool) or not isinstance(max_tokens, numbers.Integral):
        raise TypeError('load_corpus_time_machine: max_tokens must be an integer, '
                        f'got {max_tokens!r}')
    tokens = tokenize(read_time_machine(), 'char')
    vocab = Vocab(tokens)
    corpus = itertools.chain.from_iterable(tokens)
    if max_tokens > 0:
        corpus = itertools.islice(corpus, max_tokens)
    return vocab[list(corpus)], vocab


def seq_data_iter_random(corpus, batch_size, num_steps):
    """Batches of pieces of a sequence, in random order.  Returns a generator of (X, Y).

    ``corpus`` is a list, numpy or MXNet array of n numbers.  X and Y have shape (batch_size,
    num_steps), are float32 and on the CPU; Y is X one token later.  A pass begins at a random
    offset below ``num_steps`` and no two of its pieces overlap.  Tokens that do not fill a batch
    are left out: as in the book, a corpus too short for one batch yields nothing.

    Offset and order come from Python's random numbers: ``random.seed`` makes them reproducible.
    Raises ``TypeError`` or ``ValueError`` for a wrong argument.  Book section 8.3.
    """
    return _random_batches(*_checked(corpus, batch_size, num_steps))


def _random_batches(corpus, batch_size, num_steps):
    corpus = corpus[random.randrange(num_steps):]
    pieces = max(0, len(corpus) - 1) // num_steps
    order = list(range(pieces))
    random.shuffle(order)
    order = onp.array(order[:pieces // batch_size * batch_size], dtype='int64')
    X, Y = (corpus[begin:begin + pieces * num_steps].reshape(pieces, num_steps)[order]
            for begin in (0, 1))
    return _batches(X, Y, batch_size)


def seq_data_iter_sequential(corpus, batch_size, num_steps):
    """Batches of pieces of a sequence that go on from batch to batch.

    The arguments, X and Y, what is left out and the errors are those of
    ``seq_data_iter_random``.  Row i of a batch continues row i of the batch before, so that the
    state of a recurrent network can be kept.  The offset of a pass, below ``num_steps``, comes
    from Python's random numbers.  Returns a generator of (X, Y).  Book section 8.3.
    """
    return _sequential_batches(*_checked(corpus, batch_size, num_steps))


def _sequential_batches(corpus, batch_size, num_steps):
    offset = random.randrange(num_steps)
    length = max(0, len(corpus) - offset - 1) // batch_size
    batches = length // num_steps

    def rows(begin):
        parts = corpus[begin:begin + batch_size * length].reshape(batch_size, length)
        parts = parts[:, :batches * num_steps].reshape(batch_size, batches, num_steps)
        return parts.transpose(1, 0, 2).reshape(batches * batch_size, num_steps)

    return _batches(rows(offset), rows(offset + 1), batch_size)


def _batches(X, Y, batch_size):
    if len(X):
        for batch in ArrayLoader((X, Y), batch_size):
            yield tuple(batch)


class SeqDataLoader:
    """Batches of characters of The Time Machine, anew in each pass.

    ``use_random_iter`` chooses between ``seq_data_iter_random`` and
    ``seq_data_iter_sequential``, which see for the batches.  The first ``max_tokens`` characters
    are used, all if it is not positive.  ``corpus`` is the list of their numbers and ``vocab``
    the vocabulary.  There is no ``len()``: with its offset a pass may lose a batch.

    Raises ``TypeError`` or ``ValueError`` unless ``batch_size`` and ``num_steps`` are positive
    integers.  Book section 8.3.
    """

    def __init__(self, batch_size, num_steps, use_random_iter, max_tokens):
        self.batch_size = positive_int('batch_size', batch_size)
        self.num_steps = positive_int('num_steps', num_steps)
        self.data_iter_fn = seq_data_iter_random if use_random_iter else seq_data_iter_sequential
        self.corpus, self.vocab = load_corpus_time_machine(max_tokens)

    def __iter__(self):
        return self.data_iter_fn(self.corpus, self.batch_size, self.num_steps)


def load_data_time_machine(batch_size, num_steps, use_random_iter=False, max_tokens=10000):
    """A ``SeqDataLoader`` and its vocabulary.  Returns (data_iter, vocab).

    Book section 8.3.
    """
    data_iter = SeqDataLoader(batch_size, num_steps, use_random_iter, max_tokens)
    return data_iter, data_iter.vocab


def _checked(corpus, batch_size, num_steps):
    """The corpus as float32 in numpy, and both sizes as int."""
    batch_size = positive_int('batch_size', batch_size)
    num_steps = positive_int('num_steps', num_steps)
    corpus = onp.asarray(_as_numpy(corpus))
    if corpus.ndim != 1:
        raise ValueError('corpus must be one sequence of numbers, got an array of shape '
                         f'{corpus.shape}')
    if corpus.size and corpus.dtype.kind not in 'iuf':
        raise TypeError(f'corpus must hold numbers of tokens, got the dtype {corpus.dtype}')
    return corpus.astype('float32'), batch_size, num_steps


def _as_numpy(array):
    return array.asnumpy() if isinstance(array, mx.nd.NDArray) else array


def _whole_numbers(array):
    if array.dtype.kind in 'iu':
        return array
    whole = array.astype('int64') if array.dtype.kind == 'f' else array[:0]
    if whole.shape != array.shape or (whole != array).any():
        raise TypeError('Vocab.to_tokens: indices must be whole numbers, got an array of '
                        f'{array.dtype} with others')
    return whole


def _hashable(value):
    try:
        hash(value)
    except TypeError:
        return False
    return True
