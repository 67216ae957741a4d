"""IMDb reviews and SNLI sentence pairs: read, numbered and padded as whole arrays."""
import os
import re
from itertools import chain

import numpy as onp
from mxnet import gluon, np

from d2l.data.arrays import ArrayLoader, load_array, positive_int
from d2l.data.text import Vocab, tokenize
from d2l.utils import hub
from d2l.utils.files import open_text
from d2l.utils.progress import bytes_bar, progress

SNLI_LABELS = ('entailment', 'contradiction', 'neutral')

_MIN_FREQ = 5
# A shorter file is read before a progress bar could be.
_PROGRESS_BYTES = 20 << 20


def read_imdb(data_dir, is_train):
    """The reviews of one half of IMDb and their sentiments.

    ``data_dir`` is the unpacked folder, with ``train`` and ``test``, each with ``pos`` and
    ``neg``, one review in a .txt file.  Returns a list of str and a list of int, 1 for positive,
    0 for negative: the positive reviews come first, and within a folder they are in the order
    of their file names.  Line ends are taken out.

    Raises ``FileNotFoundError`` where a folder or its reviews are missing and ``ValueError`` for
    a review that is not UTF-8.  Book section 15.1.
    """
    data, labels = [], []
    for label, name in ((1, 'pos'), (0, 'neg')):
        folder = os.path.join(data_dir, 'train' if is_train else 'test', name)
        files = _review_files(folder, data_dir)
        data.extend(_read_review(os.path.join(folder, file))
                    for file in progress(files, f'IMDb, {os.path.relpath(folder, data_dir)}'))
        labels.extend([label] * len(files))
    return data, labels


def load_data_imdb(batch_size, num_steps=500):
    """IMDb reviews in batches.  Returns (train_iter, test_iter, vocab).

    A batch is a list of the reviews' word numbers, int32 of shape (b, num_steps), and the
    sentiments, int32 of shape (b,), 1 for positive.  ``train_iter`` has a new order in each pass
    (see ``ArrayLoader`` about seeds).  The vocabulary has the words that occur at least five
    times in the training reviews.

    Longer reviews are cut.  Shorter ones are filled up with number 0, which is '<unk>': this
    vocabulary of the book has no '<pad>', so a net cannot tell filling from unknown words.

    Raises ``TypeError`` or ``ValueError`` for a ``batch_size`` or ``num_steps`` that is not a
    positive integer, and what ``download_extract`` and ``read_imdb`` raise.  Book section 15.1.
    """
    batch_size = positive_int('load_data_imdb: batch_size', batch_size)
    num_steps = positive_int('load_data_imdb: num_steps', num_steps)
    data_dir = hub.download_extract('aclImdb', 'aclImdb')
    loaders, vocab = [], None
    # One half after the other: the words of both at once would take twice the memory.
    for is_train in (True, False):
        reviews, labels = read_imdb(data_dir, is_train)
        lines = tokenize(reviews, token='word')
        if is_train:
            vocab = Vocab(lines, min_freq=_MIN_FREQ)
        features = _numbered(lines, vocab, num_steps, '<unk>')
        loaders.append(load_array((features, onp.array(labels, dtype='int32')), batch_size,
                                  is_train))
    return loaders[0], loaders[1], vocab


def read_snli(data_dir, is_train):
    """The sentence pairs of the training or the test set of SNLI and their labels.

    ``data_dir`` is the unpacked folder with ``snli_1.0_train.txt`` and ``snli_1.0_test.txt``: a
    line of headings, then in each row, separated by tabs, the gold label, the parsed premise and
    the parsed hypothesis; further columns do not matter.  Returns two lists of str, the sentences
    without the parentheses of the parse, and a list of int: entailment is 0, contradiction 1,
    neutral 2.  Rows without a gold label ('-') are left out.

    Raises ``FileNotFoundError`` for a missing file, ``ValueError`` for one of another format or
    without labelled rows.  Book section 15.4.
    """
    path = os.path.join(data_dir, f'snli_1.0_{"train" if is_train else "test"}.txt')
    if not os.path.isfile(path):
        raise FileNotFoundError(f'read_snli: data_dir must hold {os.path.basename(path)}, '
                                f'got {str(data_dir)!r}')
    numbers = {label: number for number, label in enumerate(SNLI_LABELS)}
    premises, hypotheses, labels = [], [], []
    with open_text(path) as file:
        if next(file, '').split('\t')[0].strip() != 'gold_label':
            raise ValueError(f'{path} is not a file of SNLI: its first line should have headings, '
                             f"from 'gold_label' on")
        for count, line in enumerate(_under_a_bar(file, path), start=2):
            # The columns that nobody needs stay in one piece.
            row = line.split('\t', 3)
            label = numbers.get(row[0])
            if label is None:
                continue
            if len(row) < 3:
                raise ValueError(f'{path}, line {count}: a row should have at least 3 columns '
                                 f'separated by tabs, got {len(row)}')
            premises.append(_without_parse(row[1]))
            hypotheses.append(_without_parse(row[2]))
            labels.append(label)
    if not labels:
        raise ValueError(f'{path} should have rows with a gold label, but has none')
    return premises, hypotheses, labels


class SNLIDataset(gluon.data.Dataset):
    """Sentence pairs as numbers, all of one length.

    ``dataset`` has what ``read_snli`` returns.  ``vocab`` defaults to a new vocabulary, with
    '<pad>', of the words that occur at least five times in all premises and hypotheses; the test
    set needs the one of the training set.  Sentences are cut or filled up with '<pad>' to
    ``num_steps`` words.

    ``self[i]`` is ((premise, hypothesis), label), of shapes (num_steps,), (num_steps,) and ().
    ``premises``, ``hypotheses`` and ``labels`` are the whole arrays.  All are int32.  Prints how
    many examples there are.

    Raises ``ValueError`` for an empty ``dataset`` or lists of different lengths, and ``TypeError``
    or ``ValueError`` for a ``num_steps`` that is not a positive integer.  Book section 15.4.
    """

    def __init__(self, dataset, num_steps, vocab=None):
        self.num_steps = positive_int('SNLIDataset: num_steps', num_steps)
        lengths = [len(part) for part in dataset]
        if len(lengths) != 3 or len(set(lengths)) != 1 or not lengths[0]:
            raise ValueError('SNLIDataset: dataset must have premises, hypotheses and labels, '
                             f'equally many and at least one, got the lengths {lengths}')
        premises, hypotheses = (tokenize(sentences) for sentences in dataset[:2])
        if vocab is None:
            vocab = Vocab(premises + hypotheses, min_freq=_MIN_FREQ, reserved_tokens=['<pad>'])
        self.vocab = vocab
        self.premises = self._pad(premises)
        self.hypotheses = self._pad(hypotheses)
        self.labels = np.array(dataset[2], dtype='int32')
        print(f'read {len(self)} examples')

    def _pad(self, lines):
        """Lists of words as numbers, an int32 array of shape (lines, num_steps)."""
        return np.array(_numbered(lines, self.vocab, self.num_steps, '<pad>'), dtype='int32')

    def __getitem__(self, idx):
        return (self.premises[idx], self.hypotheses[idx]), self.labels[idx]

    def __len__(self):
        return len(self.premises)


class PairLoader(ArrayLoader):
    """Batches of an ``SNLIDataset`` as gluon's ``DataLoader`` puts them together.

    A batch is [[premises, hypotheses], labels], int32 of shapes (b, num_steps) twice and (b,).
    Order, last batch and length are those of ``ArrayLoader``.
    """

    def __init__(self, dataset, batch_size, shuffle=False):
        super().__init__((dataset.premises, dataset.hypotheses, dataset.labels), batch_size,
                         shuffle)

    def __iter__(self):
        # The pass begins here, not at its first batch: see ArrayLoader.
        batches = super().__iter__()
        return ([[premises, hypotheses], labels] for premises, hypotheses, labels in batches)


def load_data_snli(batch_size, num_steps=50):
    """SNLI's sentence pairs in batches.  Returns (train_iter, test_iter, vocab).

    A batch is [[premises, hypotheses], labels], see ``PairLoader``.  ``train_iter`` has a new
    order in each pass (see ``ArrayLoader`` about seeds).  The vocabulary is that of the training
    set, see ``SNLIDataset``.  Prints how many examples each set has.

    Raises ``TypeError`` or ``ValueError`` for a ``batch_size`` or ``num_steps`` that is not a
    positive integer, and what ``download_extract`` and ``read_snli`` raise.  Book section 15.4.
    """
    batch_size = positive_int('load_data_snli: batch_size', batch_size)
    num_steps = positive_int('load_data_snli: num_steps', num_steps)
    data_dir = hub.download_extract('SNLI')
    train_set = SNLIDataset(read_snli(data_dir, True), num_steps)
    test_set = SNLIDataset(read_snli(data_dir, False), num_steps, train_set.vocab)
    return (PairLoader(train_set, batch_size, shuffle=True), PairLoader(test_set, batch_size),
            train_set.vocab)


def _under_a_bar(file, path):
    """The lines of an open text file; a bar is shown if the file is large."""
    size = os.path.getsize(path)
    if size <= _PROGRESS_BYTES:
        yield from file
        return
    with bytes_bar(os.path.basename(path), size) as bar:
        for line in file:
            bar.update(len(line))
            yield line


def _review_files(folder, data_dir):
    """The names of the reviews in a folder, sorted, without hidden files."""
    if not os.path.isdir(folder):
        raise FileNotFoundError('read_imdb: data_dir must hold the folder '
                                f'{os.path.relpath(folder, data_dir)}, got {str(data_dir)!r}')
    files = sorted(name for name in os.listdir(folder)
                   if name.endswith('.txt') and not name.startswith('.'))
    if not files:
        raise FileNotFoundError(f'read_imdb: {folder} should hold reviews in .txt files, but has '
                                'none')
    return files


def _read_review(path):
    # Bytes, so that only line feeds go: a text file's other line ends would become such.
    with open(path, 'rb') as file:
        content = file.read()
    try:
        return content.decode('utf-8').replace('\n', '')
    except UnicodeDecodeError as error:
        raise ValueError(f'{path} is not UTF-8 text: {error}') from error


def _without_parse(text):
    """The sentence without parentheses; a run of white space becomes one space."""
    text = text.replace('(', '').replace(')', '')
    if text.isascii():
        return ' '.join(text.split())
    # A single no-break space, as within '10 km', is part of a word.
    return re.sub(r'\s{2,}', ' ', text).strip()


def _numbered(lines, vocab, num_steps, padding):
    """``truncate_pad(vocab[line], num_steps, vocab[padding])`` of all lines, without a loop.

    ``lines`` are lists of words.  Returns a numpy array, int32 of shape (lines, num_steps).
    """
    lines = [line[:num_steps] for line in lines]
    lengths = onp.fromiter(map(len, lines), 'int64', len(lines))
    result = onp.full((len(lines), num_steps), vocab[padding], dtype='int32')
    # A mask fills row by row, the order in which the words stand.
    result[onp.arange(num_steps) < lengths[:, None]] = vocab[list(chain.from_iterable(lines))]
    return result
