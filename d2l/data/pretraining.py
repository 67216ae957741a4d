"""WikiText-2 as pairs of sentences with masked tokens, for pretraining BERT (chapter 14).

The functions work on one sentence or example at a time, as the book explains them.  The data set
does the same to all examples at once, in whole arrays.
"""
import itertools
import os
import random

import numpy as onp
from mxnet import gluon, np

from d2l.data.arrays import ArrayLoader, positive_int, ranges
from d2l.data.text import Vocab, tokenize
from d2l.utils.files import open_text
from d2l.utils.hub import download_extract

_RESERVED = ('<pad>', '<mask>', '<cls>', '<sep>')
# What stands in the vocabulary and is no word.
_NO_WORDS = frozenset(_RESERVED + ('<unk>',))

_SHARE_PREDICTED = 0.15
_SHARE_MASKED = 0.8
_MIN_FREQ = 5


def get_tokens_and_segments(tokens_a, tokens_b=None):
    """BERT's input for one or two lists of tokens.  Returns (tokens, segments).

    The tokens are <cls> a <sep>, or <cls> a <sep> b <sep>; the segments are 0 up to and with the
    first <sep> and 1 from there on.  Both are new lists of the same length.  Book section 14.8.
    """
    tokens = ['<cls>', *tokens_a, '<sep>']
    segments = [0] * len(tokens)
    if tokens_b is not None:
        tokens += [*tokens_b, '<sep>']
        segments += [1] * (len(tokens) - len(segments))
    return tokens, segments


def load_data_wiki(batch_size, max_len):
    """The training text of WikiText-2 in batches for pretraining BERT.

    Returns (train_iter, vocab).  A batch is a list of seven arrays:

    * tokens, int32 of shape (b, max_len), padded with <pad>,
    * segments, int32 (b, max_len), 0 or 1,
    * valid lengths, float32 (b,), the number of tokens that are no padding,
    * the positions to predict, int32 (b, n) for n = round(0.15 max_len), padded with 0,
    * their weights, float32 (b, n), 1, and 0 for padding,
    * the tokens that belong there, int32 (b, n),
    * whether the second sentence follows the first, float32 (b,), 0 or 1.

    ``random.seed`` decides about the pairs and masks, MXNet's seed about the order of the
    examples, which is new in each pass (see ``ArrayLoader``).  Pairs of sentences of more than
    max_len - 3 tokens are left out.

    Raises ``TypeError`` or ``ValueError`` for arguments that are not positive integers, and
    ``ValueError`` if no pair is short enough.  Book section 14.9.
    """
    batch_size = positive_int('load_data_wiki: batch_size', batch_size)
    max_len = positive_int('load_data_wiki: max_len', max_len)
    data_dir = download_extract('wikitext-2', 'wikitext-2')
    train_set = _WikiTextDataset(_read_wiki(data_dir), max_len)
    return ArrayLoader(train_set._arrays, batch_size, shuffle=True), train_set.vocab


def _read_wiki(data_dir):
    """The paragraphs of data_dir/wiki.train.tokens, as lists of sentences in lower case.

    A paragraph is a line with ' . ' in it, which is where its sentences are split; the last one
    keeps its full stop.  A line may have one sentence: it gives no pair, but is drawn from and
    counts in the vocabulary, as in the book.  The paragraphs are shuffled by Python's ``random``.

    Raises ``OSError`` where the file is missing and ``ValueError`` where it has no paragraph.
    Book section 14.9.
    """
    path = os.path.join(data_dir, 'wiki.train.tokens')
    with open_text(path) as file:
        paragraphs = [line.strip().lower().split(' . ') for line in file if ' . ' in line]
    if not paragraphs:
        raise ValueError(f"_read_wiki: {path} must have a line with ' . ' between two sentences, "
                         'got none')
    random.shuffle(paragraphs)
    return paragraphs


def _get_next_sentence(sentence, next_sentence, paragraphs):
    """A sentence and, with probability 1/2, the next or any one.  Returns (a, b, is_next).

    The other one is drawn from a paragraph drawn from ``paragraphs``, by Python's ``random``.
    Book section 14.9.
    """
    if random.random() < 0.5:
        return sentence, next_sentence, True
    return sentence, random.choice(random.choice(paragraphs)), False


def _get_nsp_data_from_paragraph(paragraph, paragraphs, vocab, max_len):
    """The pairs of sentences of a paragraph, as a list of (tokens, segments, is_next).

    ``paragraph`` is a list of sentences, each a list of tokens, and ``paragraphs`` a list of such
    lists.  Pairs that take more than max_len tokens with <cls> and <sep> are left out.  ``vocab``
    is not used.  Book section 14.9.
    """
    examples = []
    for sentence, next_sentence in zip(paragraph, paragraph[1:]):
        tokens_a, tokens_b, is_next = _get_next_sentence(sentence, next_sentence, paragraphs)
        if len(tokens_a) + len(tokens_b) + 3 <= max_len:
            examples.append((*get_tokens_and_segments(tokens_a, tokens_b), is_next))
    return examples


def _replace_mlm_tokens(tokens, candidate_pred_positions, num_mlm_preds, vocab):
    """Hide some tokens.  Returns (tokens, [(position, token that was there), ...]).

    num_mlm_preds of the candidate positions are drawn, or all if there are fewer.  80 % of their
    tokens become <mask>, 10 % stay, and 10 % become a random word of ``vocab``: any token but
    <unk>, <pad>, <mask>, <cls> and <sep>, each of them as likely as the others.  The arguments are
    left as they are.  Randomness is that of Python's ``random``.  Book section 14.9.
    """
    tokens = list(tokens)
    positions = list(candidate_pred_positions)
    random.shuffle(positions)
    hidden = []
    for position in positions[:max(0, num_mlm_preds)]:
        hidden.append((position, tokens[position]))
        if random.random() < _SHARE_MASKED:
            tokens[position] = '<mask>'
        elif random.random() >= 0.5:
            tokens[position] = _random_word(vocab)
    return tokens, hidden


def _random_word(vocab):
    word = random.choice(vocab.idx_to_token)
    if word not in _NO_WORDS:
        return word
    # So seldom that going through the whole vocabulary costs nothing.
    return random.choice(_words(vocab))


def _words(vocab):
    """The tokens of a vocabulary that may stand for a random word."""
    return [token for token in vocab.idx_to_token if token not in _NO_WORDS] or ['<unk>']


def _get_mlm_data_from_tokens(tokens, vocab):
    """Hide 15 % of the tokens, at least one.  Returns (token ids, positions, ids of the hidden).

    All three are lists, the positions ascending; <cls> and <sep> are never hidden.  See
    `_replace_mlm_tokens` for the rest.  Book section 14.9.
    """
    candidates = [i for i, token in enumerate(tokens) if token not in ('<cls>', '<sep>')]
    tokens, hidden = _replace_mlm_tokens(tokens, candidates, _num_predicted(len(tokens)), vocab)
    hidden.sort()
    return (vocab[tokens], [position for position, _ in hidden],
            vocab[[token for _, token in hidden]])


def _num_predicted(num_tokens):
    """How many of so many tokens are predicted; a number or an array of them."""
    return onp.maximum(1, onp.rint(num_tokens * _SHARE_PREDICTED)).astype('int64')


def _pad_bert_inputs(examples, max_len, vocab):
    """Examples of one length.  Returns seven lists with an array for each example.

    ``examples`` are (token ids, positions, ids of the hidden, segments, is_next).  The lists hold
    what the batches of `load_data_wiki` hold, in the same order and with the same types.  The
    arrays of a list share the memory of one array.  Raises ``ValueError`` for an example that is
    too long.  Book section 14.9.
    """
    num_preds = int(_num_predicted(positive_int('_pad_bert_inputs: max_len', max_len)))
    columns = list(zip(*examples)) or [()] * 5
    token_ids, positions, labels, segments, is_next = columns
    fields = (_padded(token_ids, max_len, vocab['<pad>'], 'tokens', 'int32'),
              _padded(segments, max_len, 0, 'segments', 'int32'),
              onp.array([len(ids) for ids in token_ids], dtype='float32'),
              _padded(positions, num_preds, 0, 'positions', 'int32'),
              _padded([[1] * len(row) for row in positions], num_preds, 0, 'positions', 'float32'),
              _padded(labels, num_preds, 0, 'labels', 'int32'),
              onp.array(is_next, dtype='float32'))
    return tuple(list(np.array(field, dtype=field.dtype)) if len(field) else []
                 for field in fields)


def _padded(rows, width, filler, what, dtype):
    """One array of lists that may be shorter."""
    longest = max(map(len, rows), default=0)
    if longest > width:
        raise ValueError(f'_pad_bert_inputs: examples must have at most {width} {what}, '
                         f'got {longest}')
    return onp.array([[*row, *[filler] * (width - len(row))] for row in rows],
                     dtype=dtype).reshape(len(rows), width)


class _WikiTextDataset(gluon.data.Dataset):
    """Examples for pretraining BERT made of paragraphs (section 14.9).

    ``paragraphs`` is a list of lists of sentences, each a str, as of `_read_wiki`.  An example is
    a tuple of seven arrays: one row of what `load_data_wiki` describes.  ``vocab`` has the words
    that occur five times, after <unk>, <pad>, <mask>, <cls> and <sep>.

    Each field is kept as one numpy array for all examples, under the book's names:
    ``all_token_ids``, ``all_segments``, ``valid_lens``, ``all_pred_positions``,
    ``all_mlm_weights``, ``all_mlm_labels`` and ``nsp_labels``.

    Pairs, masks and random words are drawn as `_get_nsp_data_from_paragraph` and
    `_get_mlm_data_from_tokens` do, by a generator that is seeded from Python's ``random``: the
    same ``random.seed`` gives the same data, but not those that the functions give one by one.

    Raises ``ValueError`` for an empty paragraph and if no pair of sentences is short enough.
    """

    def __init__(self, paragraphs, max_len):
        max_len = positive_int('_WikiTextDataset: max_len', max_len)
        counts = onp.array([len(paragraph) for paragraph in paragraphs], dtype='int64')
        if not counts.all() or not len(counts):
            raise ValueError('_WikiTextDataset: paragraphs must be lists of at least one sentence, '
                             f'got {"none" if not len(counts) else "an empty one"}')
        sentences = tokenize(list(itertools.chain.from_iterable(paragraphs)), 'word')
        lengths = onp.fromiter(map(len, sentences), 'int64', len(sentences))
        tokens = list(itertools.chain.from_iterable(sentences))
        self.vocab = Vocab(tokens, min_freq=_MIN_FREQ, reserved_tokens=list(_RESERVED))
        ids = onp.array(self.vocab[tokens], dtype='int32')
        rng = onp.random.RandomState([random.getrandbits(32) for _ in range(4)])
        a, b, is_next = _draw_pairs(counts, lengths, max_len, rng)
        if not len(a):
            raise ValueError('_WikiTextDataset: paragraphs must have a pair of sentences of at '
                             f'most max_len - 3 = {max_len - 3} tokens together, got none')
        self.all_token_ids, self.all_segments = _lay_out(ids, lengths, a, b, max_len, self.vocab)
        self.valid_lens = (lengths[a] + lengths[b] + 3).astype('float32')
        self.all_pred_positions, self.all_mlm_weights, self.all_mlm_labels = _hide(
            self.all_token_ids, lengths[a], lengths[b], self.vocab, rng)
        self.nsp_labels = is_next.astype('float32')

    @property
    def _arrays(self):
        return (self.all_token_ids, self.all_segments, self.valid_lens, self.all_pred_positions,
                self.all_mlm_weights, self.all_mlm_labels, self.nsp_labels)

    def __getitem__(self, idx):
        return tuple(np.array(array[idx], dtype=array.dtype) for array in self._arrays)

    def __len__(self):
        return len(self.all_token_ids)


def _draw_pairs(counts, lengths, max_len, rng):
    """The numbers of first and second sentences, and whether they follow one another.

    ``counts`` is the number of sentences of each paragraph, ``lengths`` that of tokens of each
    sentence.
    """
    firsts = onp.cumsum(counts) - counts
    has_next = onp.ones(len(lengths), dtype=bool)
    has_next[firsts + counts - 1] = False
    a = onp.flatnonzero(has_next)
    is_next = rng.random_sample(len(a)) < 0.5
    paragraph = rng.randint(0, len(counts), size=len(a))
    other = firsts[paragraph] + (rng.random_sample(len(a)) * counts[paragraph]).astype('int64')
    b = onp.where(is_next, a + 1, other)
    fits = lengths[a] + lengths[b] + 3 <= max_len
    return a[fits], b[fits], is_next[fits]


def _lay_out(ids, lengths, a, b, max_len, vocab):
    """Tokens and segments, int32 of shape (n, max_len), for the pairs a, b of sentences.

    ``ids`` are the tokens of all sentences one after the other.
    """
    begins = onp.cumsum(lengths) - lengths
    rows = onp.arange(len(a)) * max_len
    seps = rows + 1 + lengths[a]
    tokens = onp.full(len(a) * max_len, vocab['<pad>'], dtype='int32')
    segments = onp.zeros(len(a) * max_len, dtype='int32')
    tokens[rows] = vocab['<cls>']
    tokens[ranges(rows + 1, lengths[a])] = ids[ranges(begins[a], lengths[a])]
    tokens[seps] = vocab['<sep>']
    tokens[ranges(seps + 1, lengths[b])] = ids[ranges(begins[b], lengths[b])]
    tokens[seps + 1 + lengths[b]] = vocab['<sep>']
    segments[ranges(seps + 1, lengths[b] + 1)] = 1
    return tokens.reshape(len(a), max_len), segments.reshape(len(a), max_len)


def _hide(tokens, lengths_a, lengths_b, vocab, rng):
    """Hide tokens in place.  Returns positions, weights and hidden tokens, each (n, num_preds)."""
    num_words = lengths_a + lengths_b
    num_preds = onp.minimum(_num_predicted(num_words + 3), num_words)
    width = int(_num_predicted(tokens.shape[1]))
    words, used = _draw_subsets(num_words, num_preds, width, rng)
    # The words of the first sentence stand behind <cls>, those of the second behind <sep>, too.
    positions = words + 1 + (words >= lengths_a[:, onp.newaxis])
    rows = onp.nonzero(used)[0]
    columns = positions[used]
    hidden = tokens[rows, columns]
    draws = rng.random_sample(len(hidden))
    random_words = onp.array(vocab[_words(vocab)])
    shown = onp.where(draws < _SHARE_MASKED + (1 - _SHARE_MASKED) / 2, hidden,
                      random_words[rng.randint(0, len(random_words), size=len(hidden))])
    tokens[rows, columns] = onp.where(draws < _SHARE_MASKED, vocab['<mask>'], shown)
    labels = onp.zeros(used.shape, dtype='int32')
    labels[used] = hidden
    return onp.where(used, positions, 0).astype('int32'), used.astype('float32'), labels


def _draw_subsets(sizes, counts, width, rng):
    """In each row ``counts`` different numbers below ``sizes``, ascending, in ``width`` columns.

    Returns the numbers and which columns are used.  Every subset is equally likely: Floyd's
    algorithm (Bentley and Floyd, Programming Pearls, 1987), for all rows at once.
    """
    chosen = onp.full((len(sizes), width), onp.iinfo('int64').max)
    for step in range(width):
        rows = onp.flatnonzero(counts > step)
        last = sizes[rows] - counts[rows] + step
        drawn = (rng.random_sample(len(rows)) * (last + 1)).astype('int64')
        taken = (chosen[rows, :step] == drawn[:, onp.newaxis]).any(axis=1)
        chosen[rows, step] = onp.where(taken, last, drawn)
    chosen.sort(axis=1)
    return chosen, onp.arange(width) < counts[:, onp.newaxis]
