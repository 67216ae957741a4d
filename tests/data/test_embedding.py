"""TokenEmbedding: against a plain reading of the files, real GloVe and files in both formats."""
import zipfile

import mxnet as mx
import numpy as onp
import pytest
from mxnet import np

from d2l.data import embedding
from d2l.data.embedding import TokenEmbedding
from d2l.utils.hub import UnknownDataError, download, download_extract

FILES = {'glove.6b.50d': ('glove.6B.50d', 50), 'glove.6b.100d': ('glove.6B.100d', 100),
         'wiki.en': ('wiki.en', 300)}


def plain_load(name):
    """token -> list of float: the last line of a token counts."""
    found = {}
    with zipfile.ZipFile(download(name)) as archive:
        for line in archive.read(FILES[name][0] + '/vec.txt').decode('utf-8').split('\n'):
            token, *values = line.rstrip(' ').split(' ')
            if len(values) > 1:
                found[token] = [float(value) for value in values]
    return found


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Call it with the bytes of vec.txt."""
    def run(content, member='glove.6B.50d/vec.txt'):
        with zipfile.ZipFile(str(tmp_path / 'glove.6B.50d.zip'), 'w') as archive:
            archive.writestr(member, content)
        (tmp_path / 'work').mkdir()
        monkeypatch.chdir(tmp_path / 'work')
        monkeypatch.setenv('D2L_DATA', str(tmp_path))
        monkeypatch.setenv('D2L_OFFLINE', '1')
        return TokenEmbedding('glove.6b.50d')
    return run


@pytest.fixture
def small(load):
    return load('hello 0.1 0.2\nworld -0.5 1e-5\ncaf\xe9 3 4\nh 7 8\n'.encode())


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


@pytest.mark.slow
@pytest.mark.parametrize('name, real', [(name, real) for real in (False, True) for name in FILES])
def test_all_vectors_against_a_plain_reading(hub_data, name, real):
    hub_data(name, real=real)
    loaded, expected = TokenEmbedding(name), plain_load(name)
    size = FILES[name][1]
    assert len(expected) > 500
    assert loaded.idx_to_token == ['<unk>', *expected]
    assert isinstance(loaded.idx_to_vec, np.ndarray)
    vectors = loaded.idx_to_vec.asnumpy()
    assert vectors.shape == (len(loaded), size) and vectors.dtype == 'float32'
    assert (vectors[1:] == onp.array(list(expected.values()), dtype='float32')).all()
    assert not vectors[0].any()


def test_real_glove(hub_data):
    """What section 14.7 shows: 'chip' is near 'intel', and man is to woman as son to daughter."""
    hub_data('glove.6b.50d')
    glove = TokenEmbedding('glove.6b.50d')
    assert len(glove) == 20001
    assert glove.idx_to_token[1] == 'the' and glove.token_to_idx['beautiful'] == 3367
    W = glove.idx_to_vec.asnumpy()
    W = W / onp.sqrt((W * W).sum(axis=1, keepdims=True) + 1e-9)

    def nearest(vector, count):
        return [glove.idx_to_token[i] for i in onp.argsort(-(W @ vector))[:count]]

    assert 'intel' in nearest(glove[['chip']].asnumpy()[0], 4)
    man, woman, son = glove[['man', 'woman', 'son']].asnumpy()
    assert nearest(woman - man + son, 1) == ['daughter']


def test_look_up(small):
    found = small[['world', 'caf\xe9', 'world', 'unheard']]
    assert isinstance(found, np.ndarray) and found.dtype == 'float32'
    expected = onp.array([[-0.5, 1e-5], [3, 4], [-0.5, 1e-5], [0, 0]], dtype='float32')
    assert (found.asnumpy() == expected).all()
    assert (small['world', 'h'].asnumpy() == small[['world', 'h']].asnumpy()).all()
    assert small[[]].shape == (0, 2)
    assert (small[['unheard']].asnumpy() == 0).all()


def test_a_str_is_one_token_and_not_its_letters(small):
    assert small['hello'].shape == (2,)
    assert (small['hello'].asnumpy() == onp.array([0.1, 0.2], dtype='float32')).all()
    assert (small['h'].asnumpy() == [7, 8]).all()
    assert (small['hh'].asnumpy() == [0, 0]).all() and small[''].shape == (2,)


def test_vectors_are_copies(small):
    for key in ('hello', ['hello']):
        small[key][:] = 5
        small['unheard'][:] = 5
    assert small['hello'].asnumpy().max() < 1 and not small['unheard'].asnumpy().any()


def test_attributes(small):
    assert small.idx_to_token == ['<unk>', 'hello', 'world', 'caf\xe9', 'h'] and len(small) == 5
    assert small.token_to_idx == {t: i for i, t in enumerate(small.idx_to_token)}
    assert small.unknown_idx == 0 and small.idx_to_vec.ctx == mx.cpu()
    tokens, vectors = small._load_embedding('glove.6b.50d')
    assert tokens == small.idx_to_token
    assert (vectors.asnumpy() == small.idx_to_vec.asnumpy()).all()


def test_another_number_for_unknown_tokens(small):
    small.unknown_idx = 1
    assert (small['unheard'].asnumpy() == small['hello'].asnumpy()).all()


def test_the_last_of_equal_tokens_counts(load):
    loaded = load(b'a 1 2\nb 3 4\na 5 6\n')
    assert len(loaded) == 4 and loaded['a'].asnumpy().tolist() == [5, 6]


def test_the_encoding_is_not_that_of_the_machine(load, stated_encoding):
    assert load('\u4e2d\u6587 1 2\n'.encode())['\u4e2d\u6587'].asnumpy().tolist() == [1, 2]
    assert stated_encoding


def test_first_line_and_spaces_of_fasttext(load):
    loaded = load(b'2 3\na 0.1 0.2 0.3 \nb 0.4 0.5 0.6 \n')
    assert loaded.idx_to_token == ['<unk>', 'a', 'b'] and loaded.idx_to_vec.shape == (3, 3)


def test_the_vectors_are_held_once(load, monkeypatch):
    """What has been read becomes MXNet's array without a copy."""
    read = []
    parse = embedding.read_vectors
    monkeypatch.setattr(embedding, 'read_vectors',
                        lambda *args: read.append(parse(*args)) or read[-1])
    loaded = load(b'a 1 2\nb 3 4\n')
    loaded.idx_to_vec[1, 0] = 7
    loaded.idx_to_vec.wait_to_read()
    assert read[0][1].tolist() == [[0, 0], [7, 2], [3, 4]]


def test_large_files_show_how_far_they_are(load, monkeypatch):
    steps, names = [], []

    class Bar:
        def __init__(self, name, total):
            names.append((name, total))

        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

        update = staticmethod(steps.append)

    monkeypatch.setattr(embedding, 'bytes_bar', Bar)
    content = b'a 1 2\n' * 1000
    load(content)
    assert names == []
    monkeypatch.setattr(embedding, '_PROGRESS_BYTES', 100)
    TokenEmbedding('glove.6b.50d')
    assert names == [('glove.6b.50d', len(content))] and sum(steps) == len(content)


def test_errors(load):
    with pytest.raises(ValueError, match=r'glove\.6B\.50d.vec\.txt, line 3: .*got 1 numbers'):
        load(b'a 1 2\nb 3 4\nc 5\n')
    with pytest.raises(UnknownDataError, match='did you mean'):
        TokenEmbedding('glove.6b.51d')


def test_archive_without_vectors(load):
    with pytest.raises(FileNotFoundError, match=r"TokenEmbedding: 'glove\.6b\.50d' should hold "
                                                r'vec\.txt'):
        load(b'a 1 2\n', member='glove.6B.50d/other.txt')


def test_files_of_the_hub_have_their_forms(hub_data):
    """fastText's has its first line and spaces at the ends, GloVe's neither."""
    hub_data(*FILES, real=False)
    for name, (_, size) in FILES.items():
        with open(download_extract(name) + '/vec.txt', encoding='utf-8') as file:
            lines = file.read().split('\n')
        count = len(TokenEmbedding(name)) - 1
        assert (lines[0] == f'{count} {size}') == (name == 'wiki.en')
        assert lines[1].endswith(' ') == (name == 'wiki.en')
