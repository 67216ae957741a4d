"""BERT's examples: the functions of section 14.9, and the data set against its text."""
import collections
import itertools
import os
import random

import numpy as onp
import pytest
from mxnet import gluon, np, npx

from d2l.data import pretraining
from d2l.data.arrays import ArrayLoader
from d2l.data.pretraining import (
    _get_mlm_data_from_tokens,
    _get_next_sentence,
    _get_nsp_data_from_paragraph,
    _pad_bert_inputs,
    _read_wiki,
    _replace_mlm_tokens,
    _WikiTextDataset,
    get_tokens_and_segments,
    load_data_wiki,
)
from d2l.data.text import Vocab
from d2l.utils.hub import download_extract

SPECIAL = ('<unk>', '<pad>', '<mask>', '<cls>', '<sep>')
WORDS = list('abcdefgh')
VOCAB = Vocab([WORDS], reserved_tokens=list(SPECIAL[1:]))
TEXT = (' \n = Caf\xe9 = \n \n Un Caf\xe9 , NOIR . Deux caf\xe9s . \n Only one . \n no stop \n'
        ' Bits .  . of it . \n')
PARAGRAPHS = [['un caf\xe9 , noir', 'deux caf\xe9s .'], ['only one .'], ['bits', '', 'of it .']]


def wiki_folder(folder, text):
    folder.joinpath('wiki.train.tokens').write_bytes(text.encode('utf-8'))
    return str(folder)


@pytest.fixture(params=['real', 'samples'])
def paragraphs(request, hub_data):
    """Of WikiText-2's valid text, and of the time machine."""
    hub_data('wikitext-2', real=request.param == 'real')
    random.seed(1)
    return _read_wiki(download_extract('wikitext-2', 'wikitext-2'))


# One sentence, one example

def test_tokens_and_segments():
    a, b = ['x', 'y'], ['z']
    assert get_tokens_and_segments(a) == (['<cls>', 'x', 'y', '<sep>'], [0, 0, 0, 0])
    assert get_tokens_and_segments(a, b) == (
        ['<cls>', 'x', 'y', '<sep>', 'z', '<sep>'], [0, 0, 0, 0, 1, 1])
    assert get_tokens_and_segments([], []) == (['<cls>', '<sep>', '<sep>'], [0, 0, 1])
    assert (a, b) == (['x', 'y'], ['z'])


def test_paragraphs_of_a_file(tmp_path):
    found = _read_wiki(wiki_folder(tmp_path, TEXT))
    assert sorted(found) == sorted(PARAGRAPHS)


def test_the_file_is_utf8_everywhere(tmp_path, monkeypatch):
    def ascii_open(*args, encoding=None, _open=open, **kwargs):
        return _open(*args, encoding=encoding or 'ascii', **kwargs)
    monkeypatch.setattr('builtins.open', ascii_open)
    assert ['un caf\xe9 , noir', 'deux caf\xe9s .'] in _read_wiki(wiki_folder(tmp_path, TEXT))


def test_paragraphs_are_shuffled_by_the_seed(tmp_path):
    folder = wiki_folder(tmp_path, ''.join(f'{i} . x\n' for i in range(50)))
    orders = []
    for seed in (0, 0, 1):
        random.seed(seed)
        orders.append([int(paragraph[0]) for paragraph in _read_wiki(folder)])
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0]) == list(range(50)) != orders[0]


def test_files_without_text(tmp_path):
    with pytest.raises(FileNotFoundError, match='wiki.train.tokens'):
        _read_wiki(str(tmp_path))
    with pytest.raises(ValueError, match=r'_read_wiki: .*wiki.train.tokens must have a line with'):
        _read_wiki(wiki_folder(tmp_path, ' = Title = \n'))


def test_next_sentence():
    random.seed(0)
    others = [[['p']], [['q'], ['r'], ['s']]]
    drawn = [_get_next_sentence(['a'], ['b'], others) for _ in range(8000)]
    assert all(a == ['a'] and (b == ['b']) == is_next for a, b, is_next in drawn)
    shares = collections.Counter(b[0] for _, b, _ in drawn)
    # Half the next one, the rest from each paragraph alike; five standard deviations are 0.028.
    for sentence, share in dict(b=1 / 2, p=1 / 4, q=1 / 12, r=1 / 12, s=1 / 12).items():
        assert abs(shares[sentence] / 8000 - share) < 0.028
    assert all(isinstance(is_next, bool) for _, _, is_next in drawn[:10])


def test_pairs_of_a_paragraph():
    """Those that fit exactly stay; the same draws as one call of _get_next_sentence for each."""
    paragraph = [['a'] * 3, ['b'] * 2, ['c'] * 3, ['d'] * 2, ['e']]
    others = [[['f'] * 4], [['g'] * 9]]
    random.seed(7)
    pairs = [_get_next_sentence(a, b, others) for a, b in zip(paragraph, paragraph[1:])]
    expected = [get_tokens_and_segments(a, b) + (is_next,) for a, b, is_next in pairs
                if len(a) + len(b) <= 5]
    assert len(expected) == 3 and {is_next for _, _, is_next in pairs} == {True, False}
    random.seed(7)
    assert _get_nsp_data_from_paragraph(paragraph, others, VOCAB, 8) == expected
    assert _get_nsp_data_from_paragraph(paragraph[:1], others, VOCAB, 8) == []


# Masks

def test_replacing_leaves_its_arguments_alone():
    random.seed(0)
    tokens, candidates = ['<cls>', *WORDS, '<sep>'], list(range(1, 9))
    _replace_mlm_tokens(tokens, candidates, 8, VOCAB)
    assert tokens == ['<cls>', *WORDS, '<sep>'] and candidates == list(range(1, 9))
    _replace_mlm_tokens(tuple(tokens), range(1, 9), 8, VOCAB)


def test_replacing():
    random.seed(0)
    tokens = ['<cls>', *WORDS, '<sep>']
    shown, positions = collections.Counter(), collections.Counter()
    for _ in range(4000):
        result, hidden = _replace_mlm_tokens(tokens, [1, 2, 3, 5], 2, VOCAB)
        assert len(hidden) == 2 and len(dict(hidden)) == 2
        for i, token in enumerate(result):
            if i in dict(hidden):
                assert dict(hidden)[i] == tokens[i]
                positions[i] += 1
                shown['same' if token == tokens[i] else token] += 1
            else:
                assert token == tokens[i]
    assert set(positions) == {1, 2, 3, 5}
    # Five standard deviations are 0.028 and less.
    assert all(abs(count / 8000 - 1 / 4) < 0.028 for count in positions.values())
    assert abs(shown['<mask>'] / 8000 - 0.8) < 0.023
    # A random word may be the one that was there: one time in eight.
    assert abs(shown['same'] / 8000 - (0.1 + 0.1 / 8)) < 0.02


def test_a_random_word_is_any_word_and_no_special_token():
    random.seed(0)
    words = collections.Counter()
    for _ in range(1000):
        result, _ = _replace_mlm_tokens(['z'] * 20, list(range(20)), 20, VOCAB)
        words.update(token for token in result if token not in ('z', '<mask>'))
    assert set(words) == set(WORDS)
    # 2,000 draws of 8: five standard deviations are 74.
    assert all(abs(count - 250) < 80 for count in words.values())


def test_a_vocabulary_without_words():
    random.seed(0)
    empty = Vocab([], reserved_tokens=list(SPECIAL[1:]))
    result, _ = _replace_mlm_tokens(['z'] * 200, list(range(200)), 200, empty)
    assert set(result) == {'z', '<mask>', '<unk>'}


@pytest.mark.parametrize('number, expected', [(0, 0), (3, 3), (9, 8)])
def test_fewer_candidates_than_asked_for(number, expected):
    _, hidden = _replace_mlm_tokens(['<cls>', *WORDS], list(range(1, 9)), number, VOCAB)
    assert len(hidden) == expected


@pytest.mark.parametrize('num_words, expected', [(1, 1), (4, 1), (7, 2), (17, 3), (27, 4), (37, 6)])
def test_mlm_data(num_words, expected):
    """round(0.15 n), halves to the even number, at least one."""
    random.seed(num_words)
    words = list(itertools.islice(itertools.cycle(WORDS), num_words))
    tokens, _ = get_tokens_and_segments(words[:2], words[2:])
    ids, positions, labels = _get_mlm_data_from_tokens(tokens, VOCAB)
    assert all(isinstance(result, list) for result in (ids, positions, labels))
    assert len(ids) == len(tokens) and len(positions) == len(labels) == expected
    assert positions == sorted(positions)
    assert labels == [VOCAB[tokens[i]] for i in positions]
    restored = list(ids)
    for position, label in zip(positions, labels):
        restored[position] = label
    assert restored == VOCAB[tokens]
    assert not {tokens[i] for i in positions} & {'<cls>', '<sep>'}


def test_mlm_data_without_words():
    assert _get_mlm_data_from_tokens(['<cls>', '<sep>', '<sep>'], VOCAB) == (
        VOCAB[['<cls>', '<sep>', '<sep>']], [], [])


def test_padding():
    pad = VOCAB['<pad>']
    examples = [([3, 5, 4, 6, 4], [1], [7], [0, 0, 0, 1, 1], True),
                ([3, 5, 6, 7, 8, 9, 4], [2, 4], [6, 9], [0] * 7, False)]
    fields = _pad_bert_inputs(examples, 10, VOCAB)
    expected = [([[3, 5, 4, 6, 4] + [pad] * 5, [3, 5, 6, 7, 8, 9, 4] + [pad] * 3], 'int32'),
                ([[0, 0, 0, 1, 1] + [0] * 5, [0] * 10], 'int32'), ([5, 7], 'float32'),
                ([[1, 0], [2, 4]], 'int32'), ([[1, 0], [1, 1]], 'float32'),
                ([[7, 0], [6, 9]], 'int32'), ([1, 0], 'float32')]
    assert pad == 1 and len(fields) == 7
    for field, (rows, dtype) in zip(fields, expected):
        assert isinstance(field, list) and len(field) == 2
        for array, row in zip(field, rows):
            assert array.dtype == dtype
            onp.testing.assert_array_equal(array.asnumpy(), row)
    assert _pad_bert_inputs([], 10, VOCAB) == ([],) * 7


def test_padding_makes_one_array_for_each_field(monkeypatch):
    made, array = [], pretraining.np.array
    monkeypatch.setattr(pretraining.np, 'array', lambda *args, **kwargs: made.append(args) or
                        array(*args, **kwargs))
    example = ([3, 5, 4], [1], [7], [0, 0, 0], True)
    assert len(_pad_bert_inputs([example] * 20, 10, VOCAB)[0]) == 20
    assert len(made) == 7


def test_padding_of_long_examples():
    example = ([3, 5, 4], [1], [7], [0, 0, 0], True)
    _pad_bert_inputs([example], 3, VOCAB)
    with pytest.raises(ValueError, match='_pad_bert_inputs: examples must have at most 2 tokens, '
                                         'got 3'):
        _pad_bert_inputs([example], 2, VOCAB)
    with pytest.raises(ValueError, match='at most 1 positions, got 2'):
        _pad_bert_inputs([([3, 5, 4], [0, 1], [7, 7], [0, 0, 0], True)], 3, VOCAB)


# The data set

def restored_examples(data):
    """(tokens, segments, positions, what stands there now, is_next), as words, one by one."""
    vocab = data.vocab
    for i in range(len(data)):
        n, k = int(data.valid_lens[i]), int(data.all_mlm_weights[i].sum())
        ids, positions = data.all_token_ids[i].tolist(), data.all_pred_positions[i].tolist()
        labels = data.all_mlm_labels[i].tolist()
        shown = [vocab.idx_to_token[ids[position]] for position in positions[:k]]
        for position, label in zip(positions[:k], labels):
            ids[position] = label
        assert set(ids[n:]) <= {vocab['<pad>']} and not any(positions[k:] + labels[k:])
        assert data.all_mlm_weights[i].tolist() == [1] * k + [0] * (len(labels) - k)
        assert not data.all_segments[i, n:].any()
        yield (vocab.to_tokens(ids[:n]), data.all_segments[i, :n].tolist(), positions[:k], shown,
               bool(data.nsp_labels[i]))


def test_every_example_is_two_sentences_of_the_text(paragraphs):
    max_len = 48
    data = _WikiTextDataset(paragraphs, max_len)
    known = set(data.vocab.idx_to_token)
    split = [[tuple(token if token in known else '<unk>' for token in sentence.split())
              for sentence in paragraph] for paragraph in paragraphs]
    following = collections.Counter(pair for sentences in split
                                    for pair in zip(sentences, sentences[1:]))
    all_sentences = {sentence for sentences in split for sentence in sentences}
    shown_as, next_pairs = collections.Counter(), collections.Counter()
    for tokens, segments, positions, shown, is_next in restored_examples(data):
        middle = tokens.index('<sep>')
        a, b = tuple(tokens[1:middle]), tuple(tokens[middle + 1:-1])
        assert (tokens, segments) == get_tokens_and_segments(a, b)
        assert b in all_sentences
        if is_next:
            next_pairs[a, b] += 1
        assert positions == sorted(set(positions))
        assert not {0, middle, len(tokens) - 1} & set(positions)
        assert len(positions) == min(max(1, round(0.15 * len(tokens))), len(a + b))
        for position, token in zip(positions, shown):
            same = token == tokens[position]
            shown_as['same' if same else '<mask>' if token == '<mask>' else 'word'] += 1
            assert same or token == '<mask>' or token not in SPECIAL
    assert next_pairs and not next_pairs - following
    check_shares(data, split, max_len, shown_as, next_pairs, following)


def check_shares(data, split, max_len, shown_as, next_pairs, following):
    """What chance decides, to five standard deviations and a little more."""
    fits = sum(count for (a, b), count in following.items() if len(a) + len(b) + 3 <= max_len)
    chosen = sum(next_pairs.values())
    assert abs(chosen - fits / 2) < 2.5 * fits ** 0.5
    # A sentence fits beside any other with the chance that a random one is short enough.
    lengths = [[len(sentence) for sentence in sentences] for sentences in split]
    per_length = onp.zeros(max_len)
    for of_one in lengths:
        for length in of_one:
            if length < max_len:
                per_length[length] += 1 / len(of_one) / len(lengths)
    at_most = per_length.cumsum()
    chances = [at_most[max_len - 3 - length] for of_one in lengths for length in of_one[:-1]
               if length <= max_len - 3]
    assert abs(len(data) - chosen - sum(chances) / 2) < 2.5 * len(chances) ** 0.5
    total = sum(shown_as.values())
    # A random word is the hidden one in less than one case in a hundred.
    for kind, share in (('<mask>', 0.8), ('same', 0.1), ('word', 0.1)):
        assert abs(shown_as[kind] / total - share) < 2.5 / total ** 0.5 + 0.001


def test_vocabulary(paragraphs):
    counts = collections.Counter(token for paragraph in paragraphs for sentence in paragraph
                                 for token in sentence.split())
    vocab = _WikiTextDataset(paragraphs, 64).vocab
    assert tuple(vocab.idx_to_token[:5]) == SPECIAL
    assert sorted(vocab.idx_to_token[5:]) == sorted(
        token for token, count in counts.items() if count >= 5 and token not in SPECIAL)
    assert isinstance(vocab, Vocab)


def test_random_second_sentences_come_from_each_paragraph_alike():
    counts, lengths = onp.array([1, 3, 1000]), onp.ones(1004, dtype='int64')
    a, b, is_next = pretraining._draw_pairs(counts, lengths, 5, onp.random.RandomState(0))
    assert a.tolist() == [1, 2] + list(range(4, 1003))
    assert (b[is_next] == a[is_next] + 1).all()
    a, b, is_next = pretraining._draw_pairs(onp.array([1, 3, 16000]), onp.ones(16004, 'int64'), 5,
                                            onp.random.RandomState(0))
    assert abs(is_next.mean() - 0.5) < 0.02
    others = b[~is_next]
    shares = [(others == 0).mean(), *[(others == i).mean() for i in (1, 2, 3)],
              (others > 3).mean(), (others > 8003).mean()]
    onp.testing.assert_allclose(shares, [1 / 3, 1 / 9, 1 / 9, 1 / 9, 1 / 3, 1 / 6], atol=0.028)


@pytest.mark.parametrize('size, count', [(5, 2), (4, 3), (3, 3), (6, 1)])
def test_subsets_are_equally_likely(size, count):
    n = 20000
    chosen, used = pretraining._draw_subsets(onp.full(n, size), onp.full(n, count), 4,
                                             onp.random.RandomState(0))
    assert used.tolist() == [[column < count for column in range(4)]] * n
    found = collections.Counter(map(tuple, chosen[:, :count].tolist()))
    subsets = list(itertools.combinations(range(size), count))
    assert set(found) == set(subsets)
    share = 1 / len(subsets)
    bound = 5 * (n * share * (1 - share)) ** 0.5
    assert all(abs(number - n * share) <= bound for number in found.values())


def test_rows_of_different_sizes():
    sizes, counts = onp.array([0, 1, 9, 2]), onp.array([0, 1, 3, 2])
    chosen, used = pretraining._draw_subsets(sizes, counts, 3, onp.random.RandomState(0))
    assert used.sum(axis=1).tolist() == counts.tolist()
    assert chosen[1, 0] == 0 and chosen[3, :2].tolist() == [0, 1]
    assert len(set(chosen[2])) == 3 and chosen[2].max() < 9


def test_sentences_without_words():
    data = _WikiTextDataset([['', ''], ['', '', '']], 4)
    assert len(data) == 3 and data.all_pred_positions.shape == (3, 1)
    assert data.vocab.to_tokens(data.all_token_ids[0].tolist()) == [
        '<cls>', '<sep>', '<sep>', '<pad>']
    assert data.all_segments.tolist() == [[0, 0, 1, 0]] * 3
    assert not data.all_mlm_weights.any() and (data.valid_lens == 3).all()


def test_the_seed_of_random_decides(tmp_path):
    paragraphs = [[' '.join(random.choices(WORDS, k=6)) for _ in range(4)] for _ in range(30)]
    made = []
    for seed, other in ((0, 0), (0, 1), (1, 0)):
        random.seed(seed)
        onp.random.seed(other)
        npx.random.seed(other)
        made.append(_WikiTextDataset(paragraphs, 20)._arrays)
    before = onp.random.get_state()[1].copy()
    _WikiTextDataset(paragraphs, 20)
    onp.testing.assert_array_equal(onp.random.get_state()[1], before)
    for mine, again in zip(made[0], made[1]):
        onp.testing.assert_array_equal(mine, again)
    assert len(made[0][0]) != len(made[2][0]) or (made[0][0] != made[2][0]).any()


def test_a_data_set_of_gluon(hub_data):
    """Examples one by one, and through gluon's DataLoader, as the book's cell has it."""
    hub_data('wikitext-2', real=False)
    random.seed(0)
    data = _WikiTextDataset(_read_wiki(download_extract('wikitext-2', 'wikitext-2')), 64)
    assert isinstance(data, gluon.data.Dataset)
    names = ('all_token_ids', 'all_segments', 'valid_lens', 'all_pred_positions',
             'all_mlm_weights', 'all_mlm_labels', 'nsp_labels')
    example = data[3]
    assert isinstance(example, tuple) and len(example) == 7
    batch = next(iter(gluon.data.DataLoader(data, 8)))
    ours = next(iter(ArrayLoader(data._arrays, 8)))
    for name, one, many, array in zip(names, example, batch, ours):
        whole = getattr(data, name)
        onp.testing.assert_array_equal(one.asnumpy(), whole[3])
        onp.testing.assert_array_equal(many.asnumpy(), whole[:8])
        onp.testing.assert_array_equal(array.asnumpy(), whole[:8])
        assert one.dtype == many.dtype == array.dtype == whole.dtype
    with pytest.raises(IndexError):
        data[len(data)]


class Counted:
    """Stands in for a module; counts how often something of it is asked for."""

    def __init__(self, module):
        self.module, self.uses = module, 0

    def __getattr__(self, name):
        self.uses += 1
        return getattr(self.module, name)


def test_a_data_set_makes_no_array_of_an_example(monkeypatch):
    """Seven numpy arrays hold all examples; MXNet's are made of an example that is asked for."""
    uses = []
    for times in (1, 20):
        modules = Counted(onp), Counted(np)
        for name, module in zip(('onp', 'np'), modules):
            monkeypatch.setattr(pretraining, name, module)
        data = _WikiTextDataset([['a b c', 'd e', 'a f']] * times, 16)
        uses.append([module.uses for module in modules])
        kept = [value for value in vars(data).values() if not isinstance(value, Vocab)]
        assert [(type(value), len(value)) for value in kept] == [(onp.ndarray, 2 * times)] * 7
    # As much work for one paragraph as for twenty.
    assert uses[0] == uses[1] and uses[0][0] > 7 and uses[0][1] == 0
    assert len(data[3]) == modules[1].uses == 7


@pytest.mark.parametrize('given, message', [
    ([], 'paragraphs must be lists of at least one sentence, got none'),
    ([['a', 'b'], []], 'paragraphs must be lists of at least one sentence, got an empty one'),
    ([['a'], ['b']], 'paragraphs must have a pair .* at most max_len - 3 = 61 tokens together'),
    ([['a ' * 62, 'b ' * 62]], 'paragraphs must have a pair .* at most max_len - 3 = 61 tokens')])
def test_paragraphs_that_give_no_example(given, message):
    with pytest.raises(ValueError, match='_WikiTextDataset: ' + message):
        _WikiTextDataset(given, 64)


# The loader

@pytest.mark.parametrize('real', [True, False])
def test_load_data_wiki(hub_data, real):
    hub_data('wikitext-2', real=real)
    random.seed(0)
    train_iter, vocab = load_data_wiki(512, 64)
    batches = list(train_iter)
    assert len(batches) == len(train_iter) > 1 and isinstance(batches[0], list)
    assert [array.shape + (onp.dtype(array.dtype).name,) for array in batches[0]] == [
        (512, 64, 'int32'), (512, 64, 'int32'), (512, 'float32'), (512, 10, 'int32'),
        (512, 10, 'float32'), (512, 10, 'int32'), (512, 'float32')]
    # Valid text with min_freq 5; facts of the two texts.
    assert len(vocab) == (4271 if real else 817)
    random.seed(0)
    data = _WikiTextDataset(_read_wiki(os.path.join('..', 'data', 'wikitext-2')), 64)
    for number, array in enumerate(data._arrays):
        joined = onp.concatenate([batch[number].asnumpy() for batch in batches])
        onp.testing.assert_array_equal(onp.sort(joined, axis=0), onp.sort(array, axis=0))


def test_the_order_is_that_of_mxnets_seed(hub_data):
    hub_data('wikitext-2', real=False)
    train_iter, _ = load_data_wiki(32, 64)
    firsts = []
    for seed in (0, 0, 1):
        npx.random.seed(seed)
        firsts.append(next(iter(train_iter))[0].asnumpy().tolist())
    assert firsts[0] == firsts[1] != firsts[2]


@pytest.mark.parametrize('arguments, error, message', [
    ((0, 64), ValueError, 'load_data_wiki: batch_size must be at least 1, got 0'),
    ((8, 64.0), TypeError, 'load_data_wiki: max_len must be an integer, got 64.0'),
    ((8, 4), ValueError, 'at most max_len - 3 = 1 tokens together, got none')])
def test_bad_arguments(hub_data, arguments, error, message):
    hub_data('wikitext-2', real=False)
    with pytest.raises(error, match=message):
        load_data_wiki(*arguments)
