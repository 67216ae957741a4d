"""Penn Treebank for word2vec: against plain loops with the same seed, real data and samples."""
import collections
import itertools
import math
import random
import re
import zipfile

import numpy as onp
import pytest
from mxnet import gluon, npx

from d2l.data import word2vec
from d2l.data.text import Vocab
from d2l.data.word2vec import (
    RandomGenerator,
    SkipGramLoader,
    batchify,
    get_centers_and_contexts,
    get_negatives,
    load_data_ptb,
    read_ptb,
    subsampling,
)


def plain_subsampling(sentences, vocab):
    sentences = [[vocab.idx_to_token[vocab[word]] for word in line] for line in sentences]
    counter = collections.Counter(itertools.chain.from_iterable(sentences))
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


def plain_batchify(data):
    longest = max(len(contexts) + len(negatives) for _, contexts, negatives in data)
    rows = [(contexts + negatives + [0] * longest)[:longest] for _, contexts, negatives in data]
    masks = [[float(place < len(contexts) + len(negatives)) for place in range(longest)]
             for _, contexts, negatives in data]
    labels = [[float(place < len(contexts)) for place in range(longest)]
              for _, contexts, _ in data]
    return [[center] for center, _, _ in data], rows, masks, labels


def lines_of(seed, count, longest, words):
    source = random.Random(seed)
    return [[min(int(source.expovariate(8 / words)), words - 1)
             for _ in range(source.randint(0, longest))] for _ in range(count)]


def seeded(function, *arguments, seed=1):
    random.seed(seed)
    return function(*arguments)


def as_lists(batch):
    return tuple(array.asnumpy().tolist() for array in batch)


@pytest.fixture
def ptb(tmp_path, monkeypatch):
    """Call it with the bytes of the training text."""
    def use(content, name='ptb.train.txt'):
        data = tmp_path / 'files'
        data.mkdir()
        with zipfile.ZipFile(str(data / 'ptb.zip'), 'w') as archive:
            archive.writestr('ptb/' + name, content)
        (tmp_path / 'work').mkdir()
        monkeypatch.chdir(tmp_path / 'work')
        monkeypatch.setenv('D2L_DATA', str(data))
        monkeypatch.setenv('D2L_OFFLINE', '1')
    return use


@pytest.fixture
def stated_encoding(monkeypatch):
    """Text files must be opened with an encoding, since that of the machine may be another."""
    seen, plain_open = [], open

    def checked_open(file, mode='r', *args, **kwargs):
        if str(file).endswith('.txt'):
            seen.append(mode)
            assert 'b' in mode or kwargs.get('encoding') == 'utf-8', file
        return plain_open(file, mode, *args, **kwargs)
    monkeypatch.setattr('builtins.open', checked_open)
    return seen


# Reading

def test_lines_and_words(ptb):
    ptb(' a b \r\n\r\n<unk> caf\xe9  N\n \nx'.encode())
    assert read_ptb() == [['a', 'b'], [], ['<unk>', 'caf\xe9', 'N'], [], ['x']]


def test_the_encoding_is_not_that_of_the_machine(ptb, stated_encoding):
    ptb('caf\xe9 \u4e2d\n'.encode())
    assert read_ptb() == [['caf\xe9', '\u4e2d'], []] and stated_encoding


def test_files_that_cannot_be_read(ptb):
    ptb(b'caf\xe9 x\n')
    with pytest.raises(ValueError, match=r'ptb\.train\.txt is not UTF-8: .*0xe9'):
        read_ptb()


def test_archive_without_training_text(ptb):
    ptb(b'a b\n', name='ptb.test.txt')
    with pytest.raises(FileNotFoundError, match=r'ptb\.train\.txt'):
        read_ptb()


def test_real_text(hub_data):
    hub_data('ptb')
    sentences = read_ptb()
    # As many as the book counts, and the words of its vocabulary.
    assert len(sentences) == 42069 and sentences[-1] == []
    assert len(Vocab(sentences, min_freq=10)) == 6719


# Subsampling

@pytest.mark.parametrize('min_freq', [0, 3])
def test_subsampling_against_a_loop(min_freq):
    sentences = [[f'w{i}' for i in line] for line in lines_of(0, 300, 30, 3000)] + [[], ['new']]
    vocab = Vocab(sentences[:-1], min_freq=min_freq)
    expected, after = seeded(plain_subsampling, sentences, vocab), random.random()
    assert seeded(subsampling, sentences, vocab) == expected and random.random() == after
    assert seeded(subsampling, iter(sentences), vocab) == expected
    assert len(expected) == len(sentences)
    assert 0 < len(sum(expected, [])) < len(sum(sentences, []))
    assert '<unk>' in sum(expected, [])


def test_rare_words_stay_and_frequent_ones_come_at_their_rate():
    sentences = [['the'] * 40, ['of'] * 10] * 4000 + [[f'rare{i}'] for i in range(100)]
    total = 200100
    kept = collections.Counter(sum(seeded(subsampling, sentences, Vocab(sentences)), []))
    for word, count in (('the', 160000), ('of', 40000)):
        share = math.sqrt(1e-4 * total / count)
        assert abs(kept[word] - share * count) < 4 * math.sqrt(count * share), word
    assert all(kept[f'rare{i}'] == 1 for i in range(100))


def test_subsampling_uses_the_unknown_word_of_the_vocabulary():
    vocab = Vocab(['a', 'b'])
    vocab.unk = vocab['b']
    assert seeded(subsampling, [['a', 'x', 'y']], vocab, seed=0) == [
        ['b' if word != 'a' else word for word in line]
        for line in seeded(plain_subsampling, [['a', 'b', 'b']], vocab, seed=0)]


def test_subsampling_of_little_or_of_str():
    vocab = Vocab(['a'])
    assert subsampling([], vocab) == [] and subsampling([[], []], vocab) == [[], []]
    with pytest.raises(TypeError, match='subsampling: sentences must be a list of lists of words'):
        subsampling(['a b', 'c'], vocab)


# Windows

@pytest.mark.parametrize('size', [1, 2, 5, 100, 2 ** 40, 2 ** 63 - 1])
def test_contexts_against_a_loop(size):
    corpus = [[], [7], [1, 2], [1, 1, 1], *lines_of(1, 200, 12, 50)]
    expected, after = seeded(plain_contexts, corpus, size), random.random()
    found = seeded(get_centers_and_contexts, corpus, size)
    assert found == expected and random.random() == after
    assert all(type(word) is int for word in found[0][:20] + found[1][0])


def test_the_widest_window(monkeypatch):
    monkeypatch.setattr(word2vec, 'randint', lambda low, high, count: onp.full(count, high))
    assert get_centers_and_contexts([[1, 2, 3], [4, 5]], 2 ** 63 - 1)[1] == [
        [2, 3], [1, 3], [1, 2], [5], [4]]


def test_contexts_of_words_and_of_nothing():
    assert get_centers_and_contexts([['a', 'b'], ['c']], 1) == (['a', 'b'], [['b'], ['a']])
    for corpus in ([], [[]], [[1], []]):
        assert get_centers_and_contexts(corpus, 3) == ([], [])


@pytest.mark.parametrize('size, error', [(0, ValueError), (-1, ValueError), (1.5, TypeError),
                                         (True, TypeError), ('2', TypeError), (None, TypeError)])
def test_window_sizes_that_are_none(size, error):
    with pytest.raises(error, match='get_centers_and_contexts: max_window_size must be'):
        get_centers_and_contexts([[1, 2]], size)


# Random numbers

def test_generator_draws_from_0_to_n_minus_1():
    weights = [2, 3, 4, 1]
    random.seed(4)
    expected = random.choices(range(4), weights, k=10000) + random.choices(range(4), weights,
                                                                           k=10000)
    random.seed(4)
    generator = RandomGenerator(weights)
    drawn = [generator.draw() for _ in range(20000)]
    assert drawn == expected and set(drawn) == {0, 1, 2, 3} and type(drawn[0]) is int
    shares = onp.bincount(drawn) / 20000
    assert abs(shares - onp.array(weights) / 10).max() < 0.015
    assert generator.sampling_weights == weights
    assert isinstance(RandomGenerator(iter(weights)).draw(), int)


@pytest.mark.parametrize('weights', [[], [0, 0], [1, -1], [1, float('nan')], [float('inf')]])
def test_generator_without_weights(weights):
    with pytest.raises(ValueError, match='RandomGenerator: sampling_weights must be finite'):
        RandomGenerator(weights)


# Noise words

def test_noise_words_come_with_frequency_to_the_three_quarters():
    """Ids 1, 4 and 6 do not occur: they are not drawn, and the ids above them are."""
    counts = {0: 800, 2: 100, 3: 50, 5: 400, 7: 200, 9: 10}
    corpus = [[word] * count for word, count in counts.items()]
    contexts = [[0, 2], [5], [1, 1, 1], [9, 7, 30]] * 2000
    negatives = seeded(get_negatives, contexts, corpus, 3)
    assert [len(row) for row in negatives] == [3 * len(row) for row in contexts]
    assert type(negatives[0]) is list and type(negatives[0][0]) is int
    for kind in range(4):
        drawn = collections.Counter(itertools.chain.from_iterable(negatives[kind::4]))
        weights = {word: count ** 0.75 for word, count in counts.items()
                   if word not in contexts[kind]}
        assert set(drawn) == set(weights)
        for word, weight in weights.items():
            expected = weight / sum(weights.values()) * sum(drawn.values())
            assert abs(drawn[word] - expected) < 4.5 * math.sqrt(expected), (kind, word)


def test_noise_words_follow_the_seed():
    corpus = lines_of(2, 100, 20, 200)
    contexts = get_centers_and_contexts(corpus, 4)[1]
    first = seeded(get_negatives, contexts, corpus, 5)
    assert seeded(get_negatives, contexts, corpus, 5) == first
    assert seeded(get_negatives, contexts, corpus, 5, seed=2) != first
    assert all(set(row).isdisjoint(around) for row, around in zip(first, contexts))


def test_noise_words_of_many_pieces(monkeypatch):
    monkeypatch.setattr(word2vec, '_CHUNK', 64)
    contexts = [[i % 9] * (i % 4) for i in range(300)]
    negatives = seeded(get_negatives, contexts, [list(range(10))], 2)
    assert [len(row) for row in negatives] == [2 * len(row) for row in contexts]
    assert all(set(row).isdisjoint(around) for row, around in zip(negatives, contexts))
    assert {word for row in negatives for word in row} == set(range(10))


def test_noise_words_that_are_seldom_hit():
    """The contexts have nearly all that is drawn; what is left keeps its proportions."""
    corpus = [[0] * 10 ** 6, [1] * 16, [2]]
    drawn = list(itertools.chain.from_iterable(seeded(get_negatives, [[0]] * 2000, corpus, 1)))
    counts = collections.Counter(drawn)
    assert set(counts) == {1, 2}
    # 16 ** 0.75 = 8, so 1 comes eight times as often as 2.
    assert abs(counts[2] - 2000 / 9) < 4.5 * math.sqrt(2000 / 9)


def test_contexts_that_cover_all_words_raise():
    """In the book's loop these never end."""
    for contexts, corpus in (([[3], [1, 2, 1]], [[1, 2], [2]]), ([[3], [0]], [[0, 0]]),
                             ([[3], [9, 1, 2]], [1, 2])):
        with pytest.raises(ValueError, match=r'get_negatives: the contexts of example 1 cover all '
                                             r'\d words of the corpus'):
            get_negatives(contexts, corpus, 1)
    assert get_negatives([[1, 2]], [[1, 2]], 0) == [[]]  # nothing to draw
    assert get_negatives([[1, 1, 1], [9, 8, 7]], [[1, 2]], 1)[0] == [2, 2, 2]


def test_noise_words_of_other_containers():
    assert get_negatives([], [[1]], 2) == [] and get_negatives([[], []], [[1]], 2) == [[], []]
    expected = seeded(get_negatives, [[1, 2], [3]], [[1, 2], [3, 4]], 2)
    assert seeded(get_negatives, iter([(1, 2), onp.array([3])]), [1, 2, 3, 4], 2) == expected
    assert seeded(get_negatives, [[1, 2], [3]], onp.array([[1, 2], [3, 4]]), 2) == expected


@pytest.mark.parametrize('contexts, corpus, K, error, message', [
    (['ab'], [[1]], 1, TypeError, 'all_contexts must be a list of lists of word ids'),
    ([[0.5]], [[1]], 1, TypeError, 'all_contexts must be a list of lists of word ids'),
    ([[True]], [[1]], 1, TypeError, 'all_contexts must be a list of lists of word ids'),
    ([1, 2], [[1]], 1, TypeError, 'all_contexts must be a list of lists of word ids'),
    ([[1, [2]]], [[1]], 1, TypeError, 'all_contexts must be a list of lists of word ids'),
    ([[[1], [2]]], [[1]], 1, TypeError, 'all_contexts must be a list of lists of word ids'),
    ([[1]], [['a', 'b']], 1, TypeError, 'corpus must be a list of lists of word ids'),
    ([[1]], ['a', 'b'], 1, TypeError, 'corpus must be a list of lists of word ids'),
    ([[-1]], [[1]], 1, ValueError, 'all_contexts must hold ids of at least 0, got -1'),
    ([[1]], [[1, -2]], 1, ValueError, 'corpus must hold ids of at least 0, got -2'),
    ([[1]], [], 1, ValueError, 'corpus must have at least one word'),
    ([[1]], [[], []], 1, ValueError, 'corpus must have at least one word'),
    ([[1]], [[1, 2]], -1, ValueError, 'K must be at least 1, got -1'),
    ([[1]], [[1, 2]], 1.5, TypeError, 'K must be an integer'),
    ([[1]], [[1, 2]], False, TypeError, 'K must be an integer')])
def test_noise_words_of_what_is_none(contexts, corpus, K, error, message):
    with pytest.raises(error, match='get_negatives: ' + message):
        get_negatives(contexts, corpus, K)


# Batches

def test_batchify_as_in_the_book():
    centers, rows, masks, labels = batchify([(1, [2, 2], [3, 3, 3, 3]), (1, [2, 2, 2], [3, 3])])
    assert as_lists((centers, rows)) == ([[1], [1]], [[2, 2, 3, 3, 3, 3], [2, 2, 2, 3, 3, 0]])
    assert as_lists((masks, labels)) == ([[1] * 6, [1] * 5 + [0]],
                                         [[1, 1, 0, 0, 0, 0], [1, 1, 1, 0, 0, 0]])
    assert all(array.dtype == 'float32' for array in (centers, rows, masks, labels))


def test_batchify_against_a_loop():
    source = random.Random(3)
    data = [(source.randrange(10 ** 4), *([source.randrange(2 ** 24) for _ in range(source.choice(
        [0, 1, 9]))] for _ in range(2))) for _ in range(50)]
    assert as_lists(batchify(data)) == plain_batchify(data)
    assert as_lists(batchify(iter(data[:1]))) == plain_batchify(data[:1])
    assert batchify([(4, [], [])])[1].shape == (1, 0)


@pytest.mark.parametrize('data', [[], [(1, [2])], [(1, [2], [3]), (1, [2], [3], [4])]])
def test_batchify_of_what_is_no_example(data):
    with pytest.raises(ValueError, match='batchify: data must hold at least one example'):
        batchify(data)


@pytest.mark.parametrize('noise', [0, 1, 5])
@pytest.mark.parametrize('batch_size', [1, 7, 64, 1000])
def test_loader_gives_what_batchify_gives(noise, batch_size):
    source = random.Random(5)
    contexts = [[source.randrange(1, 99) for _ in range(source.randint(1, 8))] for _ in range(65)]
    negatives = [[source.randrange(100, 199) for _ in range(noise * len(row))]
                 for row in contexts]
    flat = [onp.array(list(itertools.chain.from_iterable(rows)), dtype='int32')
            for rows in (contexts, negatives)]
    loader = SkipGramLoader(onp.arange(65), flat[0], onp.array([len(row) for row in contexts]),
                            flat[1], noise, batch_size)
    assert len(loader) == -(-65 // batch_size)
    orders = []
    for _ in range(2):
        batches = [tuple(batch) for batch in loader]
        assert len(batches) == len(loader)
        assert all(array.dtype == 'float32' for batch in batches for array in batch)
        order = onp.concatenate([batch[0].asnumpy() for batch in batches])[:, 0].astype(int)
        assert sorted(order.tolist()) == list(range(65))
        for number, batch in enumerate(batches):
            chosen = order[number * batch_size:(number + 1) * batch_size].tolist()
            assert as_lists(batch) == as_lists(batchify([(i, contexts[i], negatives[i])
                                                         for i in chosen]))
        orders.append(order.tolist())
    assert orders[0] != orders[1]


# Penn Treebank, end to end

def examples_of(data_iter, noise):
    """(center, contexts, negatives) of all batches, sorted."""
    found = []
    for batch in data_iter:
        for (center,), row, mask, label in zip(*as_lists(batch)):
            count = int(sum(label))
            assert label == [1] * count + [0] * (len(row) - count)
            used = (1 + noise) * count
            assert mask == [1] * used + [0] * (len(row) - used) and not any(row[used:])
            found.append((center, row[:count], row[count:used]))
    return sorted(found)


@pytest.mark.parametrize('noise', [5, 0])
def test_load_is_the_steps_of_the_book(hub_data, noise):
    hub_data('ptb', real=False)
    random.seed(6)
    data_iter, vocab = load_data_ptb(300, 5, noise)
    after = random.random()
    sentences = read_ptb()
    expected = Vocab(sentences, min_freq=10)
    assert vocab.idx_to_token == expected.idx_to_token
    random.seed(6)
    corpus = [vocab[line] for line in plain_subsampling(sentences, vocab)]
    centers, contexts = plain_contexts(corpus, 5)
    negatives = get_negatives(contexts, corpus, noise)
    assert random.random() == after
    assert len(centers) > 1000 and len(centers) % 300
    assert len(data_iter) == math.ceil(len(centers) / 300)
    sizes = [len(batch[0]) for batch in data_iter]
    assert sizes == [300] * (len(data_iter) - 1) + [len(centers) % 300]
    assert examples_of(data_iter, noise) == sorted(zip(centers, contexts, negatives))


@pytest.mark.slow
def test_load_of_the_real_text_against_plain_loops(hub_data):
    hub_data('ptb')
    random.seed(7)
    data_iter, vocab = load_data_ptb(512, 5, 5)
    random.seed(7)
    corpus = [vocab[line] for line in plain_subsampling(read_ptb(), vocab)]
    centers, contexts = plain_contexts(corpus, 5)
    found = examples_of(data_iter, 5)
    assert [example[:2] for example in found] == sorted(zip(centers, contexts))
    known = {word for line in corpus for word in line}
    assert all(known.issuperset(negatives) and set(negatives).isdisjoint(around)
               for _, around, negatives in found)


def test_order_follows_mxnets_seed(hub_data):
    hub_data('ptb', real=False)
    data_iter, _ = seeded(load_data_ptb, 100, 3, 2)

    def centers():
        return [batch[0].asnumpy().tolist() for batch in data_iter]

    npx.random.seed(1)
    first = centers()
    assert centers() != first
    npx.random.seed(1)
    assert centers() == first


def test_no_worker_processes(hub_data, monkeypatch):
    hub_data('ptb', real=False)

    def forbidden(*args, **kwargs):
        raise AssertionError('a loader of gluon or a process was started')
    monkeypatch.setattr(gluon.data.DataLoader, '__init__', forbidden)
    monkeypatch.setattr('multiprocessing.process.BaseProcess.start', forbidden)
    monkeypatch.setattr('os.fork', forbidden)
    assert len(next(iter(load_data_ptb(64, 2, 2)[0]))) == 4


@pytest.mark.parametrize('text', [b'', b'\n\n', b'a\nb\nc\n'])
def test_texts_without_neighbours(ptb, text):
    ptb(text)
    with pytest.raises(ValueError, match='load_data_ptb: .*no sentence has two words left'):
        load_data_ptb(2, 2, 2)


def test_text_of_one_word(ptb):
    ptb(b'a a a a a a a a a a a a\n' * 1000)
    with pytest.raises(ValueError, match='load_data_ptb: the contexts of example 0 cover all 1 '):
        seeded(load_data_ptb, 2, 2, 2)


@pytest.mark.parametrize('arguments, error, name', [
    ((0, 5, 5), ValueError, 'batch_size'), ((2.0, 5, 5), TypeError, 'batch_size'),
    ((2, 0, 5), ValueError, 'max_window_size'), ((2, '5', 5), TypeError, 'max_window_size'),
    ((2, 5, -1), ValueError, 'num_noise_words'), ((2, 5, True), TypeError, 'num_noise_words'),
    ((2, 5, False), TypeError, 'num_noise_words')])
def test_arguments_that_are_no_positive_integers(arguments, error, name):
    with pytest.raises(error, match=re.escape(f'load_data_ptb: {name} must be')):
        load_data_ptb(*arguments)
