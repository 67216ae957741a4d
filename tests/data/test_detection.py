"""The banana iterators: what is in a batch, how passes begin and end, and damaged files."""
import os
import random
import zipfile

import mxnet as mx
import numpy as onp
import pytest
from mxnet import image, np, recordio

from d2l.data.detection import DetectionIter, load_data_bananas

HOME = os.path.join('..', 'data', 'bananas')
BOTH = pytest.mark.parametrize('real', [True, False], ids=['real', 'sample'])


def records(name):
    """[(picture (h, w, 3), label (7,)), ...] straight from the record file, in its order."""
    reader = recordio.MXRecordIO(os.path.join(HOME, name), 'r')
    found = []
    for content in iter(reader.read, None):
        header, jpeg = recordio.unpack(content)
        found.append((image.imdecode(jpeg).asnumpy(), header.label))
    return found


def arrays(batch):
    return batch.data[0].asnumpy(), batch.label[0].asnumpy()


@BOTH
def test_batches(hub_data, real):
    hub_data('bananas', real=real)
    for part, data_iter in zip(('train', 'val'), load_data_bananas(8, edge_size=48)):
        count = len(records(part + '.rec'))
        batches = list(data_iter)
        assert len(batches) == -(-count // 8) and batches[-1].pad == -count % 8
        for batch in batches:
            assert isinstance(batch, mx.io.DataBatch) and isinstance(batch.data[0], np.ndarray)
            X, Y = arrays(batch)
            assert X.shape == (8, 3, 48, 48) and X.dtype == onp.float32
            assert Y.shape == (8, 1, 5) and Y.dtype == onp.float32
            assert X.min() >= 0 and 1 < X.max() <= 255
            assert (Y[..., 0] == 0).all() and Y.min() >= 0 and Y.max() <= 1
            assert (Y[..., 3:] > Y[..., 1:3]).all()


@BOTH
def test_validation_pictures_are_the_files_own(hub_data, real):
    hub_data('bananas', real=real)
    edge = 256 if real else 96
    _, val_iter = load_data_bananas(10, edge)
    expected = records('val.rec')
    for _ in range(2):
        X, Y = (onp.concatenate(parts) for parts in zip(*map(arrays, val_iter)))
        for i, (picture, label) in enumerate(expected):
            assert (X[i] == picture.transpose(2, 0, 1)).all()
            assert (Y[i, 0] == label[2:]).all()
        # The last batch is filled up from the beginning.
        for i in range(len(expected), len(X)):
            assert (Y[i] == Y[i - len(expected)]).all()


def test_training_pictures_are_cropped_around_the_object(hub_data):
    hub_data('bananas', real=False)
    train_iter, _ = load_data_bananas(60, 96)
    whole = {tuple(label[3:]) for _, label in records('train.rec')}
    _, Y = arrays(train_iter.next())
    boxes = {tuple(box) for box in Y[:, 0, 1:]}
    assert len(boxes - whole) > 50
    # A crop shows the object larger, never much of it cut off.
    sizes = [sum((b[2] - b[0]) * (b[3] - b[1]) for b in some) / len(some)
             for some in (whole, boxes)]
    assert sizes[1] > 1.2 * sizes[0]


def test_the_seed_is_pythons(hub_data):
    hub_data('bananas', real=False)

    def labels(seed):
        random.seed(seed)
        train_iter, _ = load_data_bananas(16, 32)
        return [arrays(batch)[1].tolist() for _ in range(2) for batch in train_iter]

    first = labels(3)
    assert first == labels(3) != labels(4)
    assert first[:len(first) // 2] != first[len(first) // 2:]


def test_training_pictures_come_in_a_new_order(hub_data, monkeypatch):
    hub_data('bananas', real=False)
    train_iter, val_iter = load_data_bananas(20, 24)
    given, next_sample = [], DetectionIter.next_sample

    def recorded(self):
        label, jpeg = next_sample(self)
        given.append(tuple(label))
        return label, jpeg

    monkeypatch.setattr(DetectionIter, 'next_sample', recorded)
    orders = []
    for data_iter in (train_iter, train_iter, val_iter, val_iter):
        given.clear()
        list(data_iter)
        orders.append(list(given))
    in_order = [[tuple(label) for _, label in records(name)] for name in ('train.rec', 'val.rec')]
    assert orders[0] != orders[1] != in_order[0] != orders[0]
    assert sorted(orders[0]) == sorted(orders[1]) == sorted(in_order[0])
    assert orders[2] == orders[3] == in_order[1]


@pytest.mark.parametrize('batch_size', [20, 16])
def test_a_loop_that_forgets_reset(hub_data, batch_size):
    """Batches that fit the 20 pictures exactly and ones that do not: every pass is whole."""
    hub_data('bananas', real=False)
    train_iter, val_iter = load_data_bananas(batch_size, 24)
    for data_iter in (train_iter, val_iter):
        lengths = [len(list(data_iter)) for _ in range(3)]
        assert lengths[0] > 0 and len(set(lengths)) == 1


def test_reset_and_next_as_in_the_book(hub_data):
    hub_data('bananas', real=False)
    train_iter, val_iter = load_data_bananas(20, 24)
    for _ in range(2):
        train_iter.reset()
        assert sum(1 for _ in train_iter) == 3
    # A batch taken before the loop is not given again; a reset in the middle starts anew.
    train_iter.reset()
    train_iter.next()
    assert len(list(train_iter)) == 2
    next(iter(train_iter))
    train_iter.reset()
    assert len(list(train_iter)) == 3
    val_iter.next()
    for _ in range(2):
        with pytest.raises(StopIteration):
            val_iter.next()
    val_iter.hard_reset()
    assert len(list(val_iter)) == 1


def test_reset_draws_one_order_for_a_pass(hub_data, monkeypatch):
    """An explicit reset before the loop is not followed by one of the loop."""
    hub_data('bananas', real=False)
    train_iter, _ = load_data_bananas(30, 24)
    calls = []
    monkeypatch.setattr(DetectionIter, 'reset', lambda self: (
        calls.append(1), setattr(self, '_ended', False), image.ImageIter.reset(self)))
    for _ in range(3):
        train_iter.reset()
        list(train_iter)
    assert len(calls) == 3


@pytest.mark.parametrize('arguments, error, fragment', [
    ((0,), ValueError, 'batch_size must be at least 1'),
    ((2.5,), TypeError, 'batch_size must be an integer'),
    ((8, 0), ValueError, 'edge_size must be at least 1'),
    ((8, '256'), TypeError, 'edge_size must be an integer')])
def test_wrong_arguments(hub_data, arguments, error, fragment):
    hub_data('bananas', real=False)
    with pytest.raises(error, match='load_data_bananas: ' + fragment):
        load_data_bananas(*arguments)


@pytest.mark.parametrize('name, content', [
    ('train.rec', b'x' * 1000), ('val.rec', b'x' * 1000), ('train.idx', b'zz\n'),
    ('train.idx', b'0\t4\n'), ('train.idx', b'0\t0\n1\t999999999\n'),
    ('train.rec', 5000), ('val.rec', 5001)])
def test_damaged_files(hub_data, name, content):
    hub_data('bananas', real=False)
    load_data_bananas(8, 24)
    path = os.path.join(HOME, name)
    with open(path, 'rb') as file:
        whole = file.read()
    with open(path, 'wb') as file:
        file.write(whole[:content] if isinstance(content, int) else content)
    with pytest.raises(ValueError, match=f'{name[:-4]}.rec or its index is damaged'):
        load_data_bananas(8, 24)


def test_a_lost_file_is_unpacked_anew(hub_data):
    hub_data('bananas', real=False)
    load_data_bananas(8, 24)
    os.unlink(os.path.join(HOME, 'val.rec'))
    load_data_bananas(8, 24)


@pytest.mark.parametrize('name', ['train.rec', 'train.idx', 'val.rec'])
def test_an_archive_without_a_file(hub_data, monkeypatch, tmp_path, name):
    hub_data('bananas', real=False)
    with zipfile.ZipFile(os.path.join(os.environ['D2L_DATA'], 'bananas.zip')) as whole, \
            zipfile.ZipFile(tmp_path / 'bananas.zip', 'w') as part:
        for member in whole.namelist():
            if not member.endswith(name):
                part.writestr(member, whole.read(member))
    monkeypatch.setenv('D2L_DATA', str(tmp_path))
    with pytest.raises(FileNotFoundError, match=f'load_data_bananas: .*{name} is missing'):
        load_data_bananas(8, 24)
