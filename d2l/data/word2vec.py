"""Penn Treebank for word2vec: subsampling, skip-gram windows and negative sampling.

The random steps draw from Python's ``random``: ``random.seed`` makes them reproducible.
"""
import contextlib
import gc
import os
from itertools import chain, repeat

import numpy as onp
from mxnet import np

from d2l.data._python_random import WeightedDraws, randint, uniform
from d2l.data.arrays import ArrayLoader, positive_int, ranges
from d2l.data.text import Vocab
from d2l.utils import hub
from d2l.utils.files import open_text

_MIN_FREQ = 10

# Words that are more frequent than this share of the text are thinned out.
_SHARE = 1e-4

# Noise words that are drawn and compared at once.
_CHUNK = 1 << 17

# After so many draws that hit a context word, the words that may be drawn are listed instead.
_TRIES = 50


def read_ptb():
    """The training sentences of Penn Treebank: a list of lists of words.

    There is one list for each line of the file; the last is empty, because the file ends with a
    line end.  Raises what ``download_extract`` raises, ``FileNotFoundError`` where the archive
    has no ``ptb.train.txt``, and ``ValueError`` for a file that is not UTF-8.  Book section 14.3.
    """
    path = os.path.join(hub.download_extract('ptb'), 'ptb.train.txt')
    with open_text(path) as file, _no_collection():
        return [line.split() for line in file.read().split('\n')]


def subsampling(sentences, vocab):
    """Drop frequent words at random.  Returns a list of lists of words, as long as ``sentences``.

    ``sentences`` is a list of lists of words.  A word that ``vocab`` does not know becomes its
    unknown word first.  Then each of n words in all stays with the probability
    sqrt(0.0001 n / c), where c says how often it occurs.

    ``random.seed`` makes it reproducible.  Raises ``TypeError`` where a sentence is a str.  Book
    section 14.3.
    """
    sentences = list(sentences)
    if any(isinstance(sentence, str) for sentence in sentences):
        raise TypeError('subsampling: sentences must be a list of lists of words, got a str in it')
    ids, lengths = _numbered(sentences, vocab)
    kept = _subsample(ids)
    words = vocab.idx_to_token
    return _nested([words[i] for i in ids[kept].tolist()], _kept_lengths(kept, lengths))


def get_centers_and_contexts(corpus, max_window_size):
    """The words that have neighbours, and for each the words around it.

    ``corpus`` is a list of lists, of word ids in the book.  Returns ``centers``, the words of all
    lines with at least two, and ``contexts``, for each center a list of the words that are in its
    line and at most w places away; w is drawn anew for each, from 1 to ``max_window_size``.

    ``random.seed`` makes it reproducible.  Raises ``TypeError`` or ``ValueError`` for a
    ``max_window_size`` that is not a positive integer.  Book section 14.3.
    """
    max_window_size = positive_int('get_centers_and_contexts: max_window_size', max_window_size)
    lines = [line for line in corpus if len(line) >= 2]
    centers = list(chain.from_iterable(lines))
    begins, ends = _windows(onp.array([len(line) for line in lines], dtype='int64'),
                            max_window_size)
    with _no_collection():
        contexts = [centers[begin:i] + centers[i + 1:end]
                    for i, (begin, end) in enumerate(zip(begins.tolist(), ends.tolist()))]
    return centers, contexts


class RandomGenerator:
    """Random integers from 0 to n - 1, for n ``sampling_weights``.

    Number i comes with a probability proportional to ``sampling_weights[i]``.  10,000 are drawn
    ahead at a time.  ``random.seed`` before the first ``draw`` makes them reproducible.

    Raises ``ValueError`` unless the weights are finite, none is negative and at least one is
    positive.  Book section 14.3.
    """

    def __init__(self, sampling_weights):
        self.sampling_weights = sampling_weights
        self._draws = WeightedDraws(list(sampling_weights), 'RandomGenerator: sampling_weights')
        self._ahead = iter(())

    def draw(self):
        """The next number, an int."""
        number = next(self._ahead, None)
        if number is None:
            self._ahead = iter(self._draws.draw(10000).tolist())
            number = next(self._ahead)
        return number


def get_negatives(all_contexts, corpus, K):
    """Noise words: ``K`` for each context word.  Returns a list of lists of int.

    ``all_contexts`` and ``corpus`` are lists of lists of word ids; ``corpus`` may also be one
    list of them.  A word that occurs c times in ``corpus`` is drawn with a probability
    proportional to c ** 0.75; ids that do not occur in it are not drawn, however many of them
    there are.  No noise word is among the contexts that it goes with.

    ``random.seed`` makes it reproducible.  Raises ``TypeError`` for what are not ids, and
    ``ValueError`` for a negative id or ``K``, a corpus without words, and contexts that cover
    all words of the corpus, which leave nothing to draw.  Book section 14.3.
    """
    K = _checked_noise('get_negatives: K', K)
    contexts, lengths = _flat_ids(all_contexts, 'get_negatives: all_contexts')
    corpus = list(corpus)
    if corpus and not hasattr(corpus[0], '__len__'):
        corpus = [corpus]
    words, _ = _flat_ids(corpus, 'get_negatives: corpus')
    negatives = _draw_negatives(contexts, lengths, words, K, 'get_negatives')
    return _nested(negatives.tolist(), K * lengths)


def batchify(data):
    """Put examples together.  Returns (centers, contexts_negatives, masks, labels).

    ``data`` is a sequence of n examples (center, contexts, negatives): an id and two lists of
    ids.  ``centers`` has shape (n, 1), the others (n, m), m being the most contexts and negatives
    that an example has.  A row of ``contexts_negatives`` is the contexts, the negatives, then
    zeros; ``masks`` is 1 for ids and 0 for the zeros behind; ``labels`` is 1 for contexts, else
    0.  All are float32, as in the book, which holds ids up to 2 ** 24 exactly.

    Raises ``ValueError`` for no examples, or one without the three parts.  Book section 14.3.
    """
    data = list(data)
    if not data or any(len(example) != 3 for example in data):
        raise ValueError('batchify: data must hold at least one example, and each must be '
                         '(center, contexts, negatives)')
    centers, contexts, negatives = zip(*data)
    num_contexts = onp.array([len(line) for line in contexts])
    lengths = num_contexts + onp.array([len(line) for line in negatives])
    masks, labels = _masks_and_labels(lengths, num_contexts)
    rows = onp.zeros(masks.shape, dtype='float32')
    rows[masks] = onp.fromiter(chain.from_iterable(chain.from_iterable(zip(contexts, negatives))),
                               dtype='float32', count=int(lengths.sum()))
    return _batch(onp.array(centers), rows, masks, labels)


class SkipGramLoader(ArrayLoader):
    """Shuffled batches of skip-gram examples, each as ``batchify`` gives it.

    ``centers`` are n ids, ``contexts`` the ids of all their contexts one after the other, of
    which ``lengths`` says how many belong to each center, and ``negatives`` ``num_noise_words``
    times as many noise words in the same order: numpy arrays of one axis.
    """

    def __init__(self, centers, contexts, lengths, negatives, num_noise_words, batch_size):
        super().__init__((centers,), batch_size, shuffle=True)
        self._contexts, self._lengths, self._negatives = contexts, lengths, negatives
        self._begins = onp.cumsum(lengths) - lengths
        self._noise = num_noise_words

    def _batches(self, order):
        for first in range(0, self._length, self.batch_size):
            rows = order[first:first + self.batch_size]
            num_contexts, begins = self._lengths[rows], self._begins[rows]
            masks, labels = _masks_and_labels((1 + self._noise) * num_contexts, num_contexts)
            places = onp.arange(masks.shape[1])
            ids = _taken(self._negatives, (self._noise * begins - num_contexts)[:, None] + places)
            longest = int(num_contexts.max())
            contexts = _taken(self._contexts, begins[:, None] + places[:longest])
            onp.copyto(ids[:, :longest], contexts, where=labels[:, :longest])
            yield _batch(self._arrays[0][rows], ids * masks, masks, labels)


def load_data_ptb(batch_size, max_window_size, num_noise_words):
    """Penn Treebank for word2vec, in batches.  Returns (data_iter, vocab).

    A batch is (centers, contexts_negatives, masks, labels), as ``batchify`` gives it, without
    worker processes; the last one may be smaller, and ``len(data_iter)`` is the number of
    batches.  ``vocab`` has the words that occur at least ten times.

    What stays of the text, the windows and the noise words are drawn here, once: with the same
    ``random.seed`` they are what ``subsampling``, ``get_centers_and_contexts`` and
    ``get_negatives``, called in this order, give.  The order of the examples is new in each pass
    and follows ``npx.random.seed`` (see ``ArrayLoader``).

    Raises ``TypeError`` or ``ValueError`` for arguments that are not positive integers
    (``num_noise_words`` may be 0), what ``read_ptb`` raises, and ``ValueError`` for a text so
    short that no sentence keeps two words or the contexts of a word cover all others.  Book
    section 14.3.
    """
    batch_size = positive_int('load_data_ptb: batch_size', batch_size)
    max_window_size = positive_int('load_data_ptb: max_window_size', max_window_size)
    num_noise_words = _checked_noise('load_data_ptb: num_noise_words', num_noise_words)
    sentences = read_ptb()
    vocab = Vocab(sentences, min_freq=_MIN_FREQ)
    ids, lengths = _numbered(sentences, vocab)
    del sentences
    kept = _subsample(ids)
    ids, lengths = ids[kept], _kept_lengths(kept, lengths)
    # Words without neighbours are no centers, but count as noise words.
    centers = ids[onp.repeat(lengths >= 2, lengths)]
    if not len(centers):
        raise ValueError('load_data_ptb: after subsampling no sentence has two words left; the '
                         'text, ptb.train.txt, is too short')
    begins, ends = _windows(lengths[lengths >= 2], max_window_size)
    lengths = ends - begins - 1
    places = ranges(begins, lengths)
    places += places >= onp.repeat(onp.arange(len(centers)), lengths)
    contexts = centers[places]
    del places
    negatives = _draw_negatives(contexts, lengths, ids, num_noise_words, 'load_data_ptb')
    return SkipGramLoader(centers, contexts, lengths, negatives, num_noise_words,
                          batch_size), vocab


def _numbered(sentences, vocab):
    """The numbers of all words, int32, and the lengths of the sentences, int64."""
    lengths = onp.array([len(sentence) for sentence in sentences], dtype='int64')
    numbers = map(vocab.token_to_idx.get, chain.from_iterable(sentences), repeat(vocab.unk))
    return onp.fromiter(numbers, 'int32', int(lengths.sum())), lengths


def _subsample(ids):
    """Which of the words stay, bool."""
    if not len(ids):
        return onp.zeros(0, dtype=bool)
    counts = onp.maximum(onp.bincount(ids), 1)
    return uniform(len(ids)) < onp.sqrt(_SHARE / counts * len(ids))[ids]


def _kept_lengths(kept, lengths):
    before = onp.concatenate([[0], onp.cumsum(kept)])
    ends = onp.cumsum(lengths)
    return before[ends] - before[ends - lengths]


def _windows(lengths, max_window_size):
    """Begin and end of the window around each word, in the words of all lines together."""
    ends = onp.cumsum(lengths)
    total = int(lengths.sum())
    # A size beyond the text would overflow below.
    sizes = onp.minimum(randint(1, max_window_size, total), total)
    places = onp.arange(total)
    return (onp.maximum(places - sizes, onp.repeat(ends - lengths, lengths)),
            onp.minimum(places + sizes + 1, onp.repeat(ends, lengths)))


def _draw_negatives(contexts, lengths, corpus, K, name):
    """K noise words for each of the contexts, int32, in the order of the contexts.

    All arguments are arrays of one axis; ``corpus`` are the ids that are counted.
    """
    if not len(corpus):
        raise ValueError(f'{name}: corpus must have at least one word, got none')
    if K == 0:
        return onp.empty(0, dtype='int32')
    weights = onp.bincount(corpus) ** 0.75
    noise = WeightedDraws(weights, name)
    begins = onp.cumsum(lengths) - lengths
    _check_coverage(contexts, begins, lengths, weights, name)
    negatives = onp.empty(K * len(contexts), dtype='int32')
    # Examples with equally many contexts make a matrix.
    for length in onp.unique(lengths[lengths > 0]):
        rows = onp.flatnonzero(lengths == length)
        step = max(1, _CHUNK // int(K * length))
        for first in range(0, len(rows), step):
            begin = begins[rows[first:first + step]]
            around = contexts[onp.arange(length)[:, None] + begin]
            drawn = _drawn_outside(around, int(K * length), weights, noise)
            negatives[(K * begin)[:, None] + onp.arange(K * length)] = drawn.T
    return negatives


def _drawn_outside(around, count, weights, noise):
    """A matrix with ``count`` rows; no number is in the same column of ``around``."""
    width = around.shape[1]
    drawn = noise.draw(count * width).reshape(count, width)
    wrong = drawn == around[0]
    for other in around[1:]:
        wrong |= drawn == other
    flat, wrong = drawn.reshape(-1), onp.flatnonzero(wrong)
    for _ in range(_TRIES):
        if not len(wrong):
            return drawn
        flat[wrong] = noise.draw(len(wrong))
        wrong = wrong[(flat[wrong] == around[:, wrong % width]).any(axis=0)]
    for column in onp.unique(wrong % width):
        rest = weights.copy()
        rest[around[:, column][around[:, column] < len(rest)]] = 0
        here = wrong[wrong % width == column]
        flat[here] = WeightedDraws(rest, 'noise').draw(len(here))
    return drawn


def _check_coverage(contexts, begins, lengths, weights, name):
    words = set(onp.flatnonzero(weights).tolist())
    for row in onp.flatnonzero(lengths >= len(words)).tolist():
        around = contexts[begins[row]:begins[row] + lengths[row]]
        if words.issubset(around.tolist()):
            raise ValueError(f'{name}: the contexts of example {row} cover all {len(words)} words '
                             f'of the corpus, so no noise word is left')


def _checked_noise(name, value):
    return 0 if value == 0 and not isinstance(value, bool) else positive_int(name, value)


def _flat_ids(lines, name):
    """The ids of all lines and the lengths of the lines, both int64."""
    try:
        lines = [list(line) for line in lines]
        ids = onp.array(list(chain.from_iterable(lines)))
    except (TypeError, ValueError):  # numpy's ValueError is for ids and lists side by side
        ids = None
    if ids is None or len(ids) and (ids.ndim != 1 or ids.dtype.kind not in 'iu'):
        raise TypeError(f'{name} must be a list of lists of word ids, which are integers')
    if len(ids) and ids.min() < 0:
        raise ValueError(f'{name} must hold ids of at least 0, got {ids.min()}')
    return ids.astype('int64'), onp.array([len(line) for line in lines], dtype='int64')


def _nested(flat, lengths):
    ends = onp.cumsum(lengths)
    with _no_collection():
        return [flat[begin:end] for begin, end in zip((ends - lengths).tolist(), ends.tolist())]


@contextlib.contextmanager
def _no_collection():
    """While many lists are made, Python's garbage collector would look through all of them."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _masks_and_labels(lengths, num_contexts):
    places = onp.arange(lengths.max())
    return places < lengths[:, None], places < num_contexts[:, None]


def _taken(flat, places):
    """float32; places beyond the ends give any number."""
    if not len(flat):
        return onp.zeros(places.shape, dtype='float32')
    return flat.take(places, mode='clip').astype('float32')


def _batch(centers, rows, masks, labels):
    return (np.array(centers.reshape(-1, 1), dtype='float32'), np.array(rows, dtype='float32'),
            np.array(masks, dtype='float32'), np.array(labels, dtype='float32'))
