"""Fashion-MNIST against gluon's own pipeline, and where its files come from."""
import gzip
import hashlib
import logging
import struct

import mxnet as mx
import numpy as onp
import pytest
from mxnet import gluon, np, npx
from mxnet.gluon.data.vision import transforms

from d2l.data import vision
from d2l.utils import _search

FILES = ('train-images-idx3-ubyte.gz', 'train-labels-idx1-ubyte.gz', 't10k-images-idx3-ubyte.gz',
         't10k-labels-idx1-ubyte.gz')


@pytest.fixture(autouse=True)
def _samples_only(monkeypatch):
    monkeypatch.setenv('D2L_OFFLINE', '1')
    monkeypatch.delenv('D2L_DATA', raising=False)
    monkeypatch.setattr(_search, 'SYSTEM_FOLDERS', ())


def idx(array):
    head = struct.pack(f'>HBB{array.ndim}I', 0, 8, array.ndim, *array.shape)
    return gzip.compress(head + array.astype('uint8').tobytes(), mtime=0)


def small_set(folder, train=50, test=20):
    """A tiny Fashion-MNIST of noise in ``folder``, a folder of that name."""
    folder.mkdir(parents=True)
    source = onp.random.RandomState(5)
    for name, count in zip(FILES, (train, train, test, test)):
        shape = (count, 28, 28) if 'images' in name else (count,)
        high = 256 if 'images' in name else 10
        (folder / name).write_bytes(idx(source.randint(0, high, shape)))


@pytest.fixture
def small(monkeypatch, tmp_path):
    small_set(tmp_path / 'fashion-mnist')
    monkeypatch.setenv('D2L_DATA', str(tmp_path))
    return tmp_path / 'fashion-mnist'


def gluon_loader(root, batch_size, resize=None, train=False):
    steps = ([] if resize is None else [transforms.Resize(resize)]) + [transforms.ToTensor()]
    data = gluon.data.vision.FashionMNIST(root=str(root), train=train)
    return gluon.data.DataLoader(data.transform_first(transforms.Compose(steps)), batch_size)


# The numbers

@pytest.mark.parametrize('resize', [None, 20, 28, 31, 64, (40, 17)])
def test_same_as_gluon(small, tmp_path, resize):
    _, test_iter = vision.load_data_fashion_mnist(8, resize, root=str(tmp_path / 'root'))
    expected = gluon_loader(tmp_path / 'root', 8, resize)
    assert len(test_iter) == len(expected) == 3
    for mine, theirs in zip(test_iter, expected):
        assert type(mine) is type(theirs) is list
        for a, b in zip(mine, theirs):
            assert type(a) is type(b)
            assert a.dtype == b.dtype and a.shape == b.shape
            assert (a.asnumpy() == b.asnumpy()).all()
    assert mine[0].dtype == onp.float32 and mine[1].dtype == onp.int32
    width, height = resize if isinstance(resize, tuple) else (resize or 28,) * 2
    assert mine[0].shape == (4, 1, height, width)


def test_same_as_gluon_on_real_pictures(tmp_path):
    _, test_iter = vision.load_data_fashion_mnist(500, root=str(tmp_path))
    for mine, theirs in zip(test_iter, gluon_loader(tmp_path, 500)):
        for a, b in zip(mine, theirs):
            assert (a.asnumpy() == b.asnumpy()).all()


def test_same_as_gluon_in_legacy_mode(small, tmp_path):
    npx.reset_np()
    try:
        _, test_iter = vision.load_data_fashion_mnist(8, 40, root=str(tmp_path / 'root'))
        for mine, theirs in zip(test_iter, gluon_loader(tmp_path / 'root', 8, 40)):
            for a, b in zip(mine, theirs):
                assert type(a) is type(b) is mx.nd.NDArray
                assert a.dtype == b.dtype and (a.asnumpy() == b.asnumpy()).all()
    finally:
        npx.set_np()


def test_colour_pictures():
    pictures = onp.random.RandomState(0).randint(0, 256, (7, 12, 10, 3)).astype('uint8')
    labels = onp.arange(7, dtype='int32')
    steps = transforms.Compose([transforms.Resize((9, 5)), transforms.ToTensor()])
    expected = np.stack([steps(np.array(picture, dtype='uint8')) for picture in pictures])
    batches = [X.asnumpy() for X, _ in vision.image_loader(pictures, labels, 3, resize=(9, 5))]
    assert [len(batch) for batch in batches] == [3, 3, 1]
    assert (onp.concatenate(batches) == expected.asnumpy()).all()


def test_training_pictures_are_shuffled_with_their_labels(small, tmp_path):
    train_iter, _ = vision.load_data_fashion_mnist(16, root=str(tmp_path / 'root'))
    X_all, y_all = vision.read_fashion_mnist(str(tmp_path / 'root'), True)
    label_of = {picture.tobytes(): label for picture, label in zip(X_all, y_all)}
    mx.random.seed(0)
    orders = []
    for _ in range(2):
        order = []
        for X, y in train_iter:
            bytes_ = onp.rint(X.asnumpy() * 255).astype('uint8').transpose(0, 2, 3, 1)
            assert [label_of[picture.tobytes()] for picture in bytes_] == y.asnumpy().tolist()
            order += [picture.tobytes() for picture in bytes_]
        assert sorted(order) == sorted(label_of)
        orders.append(order)
    assert orders[0] != orders[1] and orders[0] != list(label_of)
    mx.random.seed(0)
    again = onp.concatenate([y.asnumpy() for _, y in train_iter])
    assert again.tolist() == [label_of[picture] for picture in orders[0]]


def test_what_readers_do_with_the_loaders(small, tmp_path):
    train_iter, test_iter = vision.load_data_fashion_mnist(16, root=str(tmp_path / 'root'))
    assert len(train_iter) == 4 and len(test_iter) == 2
    X, y = next(iter(train_iter))
    assert X.shape == (16, 1, 28, 28) and y.shape == (16,)
    assert [len(y) for _, y in train_iter] == [16, 16, 16, 2]
    assert float(X.min()) >= 0 and float(X.max()) <= 1


def test_memory_stays_small_with_resize(small, tmp_path):
    """Pictures are kept as bytes, and no more than a batch or a few megabytes is made ahead."""
    train_iter, _ = vision.load_data_fashion_mnist(2, 224, root=str(tmp_path / 'root'))
    assert train_iter._arrays[0].dtype == onp.uint8
    assert train_iter._arrays[0].shape == (50, 28, 28, 1)
    assert train_iter._block * 224 * 224 * 4 <= 4 << 20


@pytest.mark.parametrize('batch_size, resize, error, fragment', [
    (0, None, ValueError, 'batch_size'), (2.5, None, TypeError, 'batch_size'),
    (8, 0, ValueError, 'resize'), (8, 'big', TypeError, 'resize'),
    (8, (1, 2, 3), ValueError, 'resize'), (8, (32, -1), ValueError, 'resize')])
def test_wrong_arguments(tmp_path, batch_size, resize, error, fragment):
    with pytest.raises(error, match=fragment):
        vision.load_data_fashion_mnist(batch_size, resize, root=str(tmp_path))


def test_labels_have_names():
    names = ['t-shirt', 'trouser', 'pullover', 'dress', 'coat', 'sandal', 'shirt', 'sneaker',
             'bag', 'ankle boot']
    for labels in (range(10), onp.arange(10), np.arange(10), np.arange(10, dtype='int32')):
        assert vision.get_fashion_mnist_labels(labels) == names
    assert vision.get_fashion_mnist_labels([]) == []
    for wrong in ([10], [-1]):
        with pytest.raises(ValueError, match=f'got {wrong[0]}'):
            vision.get_fashion_mnist_labels(wrong)


# Where the files come from

def test_the_sample_is_used_last_and_said(tmp_path, caplog):
    train_iter, test_iter = vision.load_data_fashion_mnist(1000, root=str(tmp_path))
    assert len(train_iter) == 10 and len(test_iter) == 2
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 2
    assert all(record.levelno == logging.WARNING for record in caplog.records)
    assert '10,000 of 60,000' in messages[0] and '2,000 of 10,000' in messages[1]
    counts = onp.zeros(10, int)
    for _, y in train_iter:
        counts += onp.bincount(y.asnumpy(), minlength=10)
    assert counts.tolist() == [1000] * 10


def test_gluons_own_loader_finds_the_sample(tmp_path, caplog):
    data = gluon.data.vision.FashionMNIST(root=str(tmp_path), train=True)
    assert len(data) == 10_000
    picture, label = data[0]
    assert picture.shape == (28, 28, 1) and picture.dtype == onp.uint8
    assert label.dtype == onp.int32 and isinstance(label, np.ndarray)
    assert 'the sample that ships' in caplog.text
    assert len(gluon.data.vision.FashionMNIST(root=str(tmp_path), train=False)) == 2_000


def test_a_subclass_with_other_files_stays_gluons_own(monkeypatch, tmp_path):
    class Other(gluon.data.vision.FashionMNIST):
        def _get_data(self):
            self._train_data = (FILES[0], '0' * 40)
            super()._get_data()

    asked = []
    monkeypatch.setattr(vision, '_gluon_get_data', asked.append)
    other = Other(root=str(tmp_path))
    assert asked == [other]


def test_gluons_default_root_is_the_cache(monkeypatch, small):
    asked = []
    monkeypatch.setattr(vision, 'read_fashion_mnist', lambda root, *rest: asked.append(root) or (
        onp.zeros((4, 28, 28, 1), 'uint8'), onp.zeros(4, 'int32')))
    vision.load_data_fashion_mnist(2)
    gluon.data.vision.FashionMNIST()
    assert len(set(asked)) == 1 and asked[0].endswith('fashion-mnist')


def test_other_data_with_the_same_file_names_are_not_taken(monkeypatch, tmp_path):
    small_set(tmp_path / 'mnist')
    monkeypatch.setenv('D2L_DATA', str(tmp_path))
    _, labels = vision.read_fashion_mnist(str(tmp_path / 'root'), False)
    assert len(labels) == 2_000


def test_halves_of_different_sets_are_not_mixed(small, tmp_path):
    """With the labels gone, the pictures are not used either."""
    (small / FILES[3]).unlink()
    images, labels = vision.read_fashion_mnist(str(tmp_path / 'root'), False)
    assert len(images) == len(labels) == 2_000


def test_files_that_do_not_belong_together(small, tmp_path):
    (small / FILES[3]).write_bytes(idx(onp.zeros(19)))
    with pytest.raises(ValueError, match='do not belong together'):
        vision.read_fashion_mnist(str(tmp_path / 'root'), False)


def test_the_full_set(monkeypatch, tmp_path, caplog):
    monkeypatch.setattr(_search, 'SYSTEM_FOLDERS', ('/usr/share/datasets',))
    images, labels = vision.read_fashion_mnist(str(tmp_path), True)
    if len(labels) == 10_000:
        pytest.skip('the package dataset-fashion-mnist is not installed')
    assert images.shape == (60_000, 28, 28, 1)
    # The content is the original's, however it was compressed.
    assert hashlib.sha1(images.tobytes()).hexdigest() == '3bfc8accf88edf1a14183e4b0e5838527ded8c0b'
    assert not caplog.records


@pytest.mark.parametrize('content, fragment', [
    (b'', 'not an IDX'), (b'no gzip', 'damaged'),
    (gzip.compress(b'\0\0\x08', mtime=0), 'not an IDX'),
    (gzip.compress(b'\0\0\x0d\x01\0\0\0\x01\0', mtime=0), 'not an IDX'),
    (gzip.compress(b'\0\0\x08\x02\0\0\0\x01', mtime=0), 'not an IDX'),
    (gzip.compress(b'\0\0\x08\x01\0\0\0\x03ab', mtime=0), 'hold 3 bytes'),
    (idx(onp.zeros(100))[:-10], 'damaged')])
def test_damaged_idx_files(tmp_path, content, fragment):
    path = tmp_path / 'file.gz'
    path.write_bytes(content)
    with pytest.raises(ValueError, match=fragment):
        vision.read_idx(str(path))
