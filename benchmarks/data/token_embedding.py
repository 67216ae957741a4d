"""TokenEmbedding: whole arrays against one line at a time.

The file is the real one of the shared data folder, 20,000 vectors of GloVe; where that is absent,
vectors counted in the time machine.  The plain version takes each line apart, makes a float of
each number and keeps lists of them until the end; it looks words up with an advanced index.  The
archive is unpacked before the clock starts.
"""
import os
import random
import tempfile

from mxnet import np

from benchmarks.run import Case
from d2l.data.embedding import TokenEmbedding
from d2l.utils import hub
from tests import hub_files

NAME = 'glove.6b.50d'

# The folder lasts as long as the program.
kept = []


def unpacked(target):
    """The folder of the unpacked vectors, in the folder target."""
    hub_files.build(NAME, target, real=os.path.isdir(hub_files.SHARED))
    before = {key: os.environ.get(key) for key in ('D2L_DATA', 'D2L_OFFLINE')}
    os.environ.update(D2L_DATA=target, D2L_OFFLINE='1')
    try:
        return hub.download_extract(NAME, cache_dir=os.path.join(target, 'data'))
    finally:
        for key, value in before.items():
            os.environ.pop(key)
            if value is not None:
                os.environ[key] = value


class PlainEmbedding:
    """Tokens and vectors of a file."""

    def __init__(self, folder):
        self.idx_to_token, vectors = ['<unk>'], []
        with open(os.path.join(folder, 'vec.txt'), encoding='utf-8') as file:
            for line in file:
                token, *numbers = line.rstrip().split(' ')
                numbers = [float(number) for number in numbers]
                if len(numbers) > 1:
                    self.idx_to_token.append(token)
                    vectors.append(numbers)
        self.idx_to_vec = np.array([[0.0] * len(vectors[0])] + vectors)
        self.token_to_idx = {token: index for index, token in enumerate(self.idx_to_token)}

    def __getitem__(self, tokens):
        return self.idx_to_vec[np.array([self.token_to_idx.get(token, 0) for token in tokens])]


def our_load(folder):
    before, hub.download_extract = hub.download_extract, lambda *args: folder
    try:
        return TokenEmbedding(NAME)
    finally:
        hub.download_extract = before


def check_loaded(results):
    """All have the same tokens and bits; else AssertionError."""
    expected = results['plain']
    for name, found in results.items():
        assert found.idx_to_token == expected.idx_to_token, name
        assert found.token_to_idx == expected.token_to_idx, name
        assert (found.idx_to_vec.asnumpy().tobytes() == expected.idx_to_vec.asnumpy().tobytes())


def check_found(results):
    for name, (found,) in results.items():
        assert (found.asnumpy() == results['plain'][0].asnumpy()).all(), name


def look_up(embedding, tokens):
    def run():
        found = embedding[tokens]
        found.wait_to_read()
        return [found]
    return run


def cases():
    target = tempfile.TemporaryDirectory(prefix='d2l-benchmark-')
    kept.append(target)
    folder = unpacked(target.name)
    ours, plain = our_load(folder), PlainEmbedding(folder)
    source = random.Random(0)
    for length in (1, 100, 10000):
        tokens = [source.choice(ours.idx_to_token) if source.random() < 0.9 else 'no such word'
                  for _ in range(length)]
        yield Case(f'look-up of {length} tokens',
                   {'d2l': look_up(ours, tokens), 'plain': look_up(plain, tokens)}, check_found)
    count, size = ours.idx_to_vec.shape
    yield Case(f'TokenEmbedding {count - 1} x {size}',
               {'d2l': lambda: our_load(folder), 'plain': lambda: PlainEmbedding(folder)},
               check_loaded)
