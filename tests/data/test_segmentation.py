"""VOC 2012 against slow loops over pixels and MXNet's own image functions."""
import os
import random
import threading

import mxnet as mx
import numpy as onp
import pytest
from mxnet import gluon, image, np, npx
from PIL import Image

from d2l.data import segmentation
from d2l.data.segmentation import (
    VOC_CLASSES,
    VOC_COLORMAP,
    VOCSegDataset,
    build_colormap2label,
    load_data_voc,
    read_voc_images,
    voc_label_indices,
    voc_rand_crop,
)
from d2l.utils.hub import download_extract

BOTH = pytest.mark.parametrize('real', [True, False], ids=['real', 'sample'])
MEAN, STD = onp.array([0.485, 0.456, 0.406]), onp.array([0.229, 0.224, 0.225])


@pytest.fixture
def voc_dir(hub_data):
    hub_data('voc2012', real=False)
    return download_extract('voc2012', os.path.join('VOCdevkit', 'VOC2012'))


def names_of(voc_dir, part):
    with open(os.path.join(voc_dir, 'ImageSets', 'Segmentation', part + '.txt')) as file:
        return file.read().split()


def classes_of(voc_dir, name):
    """The class numbers as they stand in the palette file."""
    with Image.open(os.path.join(voc_dir, 'SegmentationClass', name + '.png')) as picture:
        return onp.asarray(picture)


def float32_table():
    """The table as the book's cell builds it: MXNet, float32."""
    table = onp.zeros(256 ** 3)
    for i, (red, green, blue) in enumerate(VOC_COLORMAP):
        table[(red * 256 + green) * 256 + blue] = i
    return table


# Colours

def test_the_colours_are_vocs():
    """The rule of the VOC development kit: the bits of the number, spread over the channels."""
    for number, colour in enumerate(VOC_COLORMAP):
        expected = [0, 0, 0]
        for bit in range(8):
            for channel in range(3):
                expected[channel] |= (number >> (3 * bit + channel) & 1) << (7 - bit)
        assert colour == expected and isinstance(colour, list)
    assert len(VOC_COLORMAP) == len(VOC_CLASSES) == len(set(VOC_CLASSES)) == 21
    assert VOC_CLASSES[0] == 'background' and VOC_CLASSES[1] == 'aeroplane'
    assert VOC_CLASSES[15] == 'person' and VOC_CLASSES[20] == 'tv/monitor'


def test_the_table_is_small():
    table = build_colormap2label()
    assert table.dtype == onp.uint8 and table.nbytes == 1 << 24
    assert (table == float32_table()).all()


@pytest.mark.parametrize('make', [
    lambda pixels: pixels, lambda pixels: np.array(pixels, dtype='uint8'),
    lambda pixels: np.array(pixels, dtype='int32'), lambda pixels: pixels.astype('int64'),
    lambda pixels: np.array(pixels, dtype='float32')], ids=[
        'numpy', 'uint8', 'int32', 'int64', 'float32'])
def test_label_indices(make):
    source = onp.random.RandomState(0)
    numbers = source.randint(0, 21, (13, 17))
    pixels = onp.array(VOC_COLORMAP, 'uint8')[numbers]
    # Colours beside those of the classes, and the edge colour of VOC.
    pixels[0, 0], pixels[1, 1], pixels[2, 2] = (224, 224, 192), (255, 255, 255), (129, 0, 0)
    by_colour = {tuple(colour): i for i, colour in enumerate(VOC_COLORMAP)}
    expected = [[by_colour.get(tuple(int(c) for c in pixel), 0) for pixel in row]
                for row in pixels]
    labels = voc_label_indices(make(pixels), build_colormap2label())
    assert isinstance(labels, np.ndarray) and labels.dtype == onp.float32
    assert labels.asnumpy().tolist() == expected


def test_the_books_own_table_is_taken():
    pixels = np.array([VOC_COLORMAP], dtype='uint8')
    for dtype in ('float32', 'uint8'):
        labels = voc_label_indices(pixels, np.array(float32_table(), dtype=dtype))
        assert isinstance(labels, np.ndarray) and labels.dtype == onp.float32
        assert labels.asnumpy().tolist() == [list(range(21))]


def test_label_indices_in_legacy_mode():
    npx.reset_np()
    try:
        pixels = mx.nd.array([VOC_COLORMAP], dtype='uint8')
        for table in (build_colormap2label(), mx.nd.array(float32_table())):
            labels = voc_label_indices(pixels, table)
            assert type(labels) is mx.nd.NDArray and labels.dtype == onp.float32
            assert labels.asnumpy().tolist() == [list(range(21))]
    finally:
        npx.set_np()


@pytest.mark.parametrize('shape, size, fragment', [
    ((4, 4), 256 ** 3, 'colormap must have shape'), ((4, 4, 4), 256 ** 3, 'colormap must'),
    ((1, 4, 4, 3), 256 ** 3, 'colormap must'), ((4, 4, 3), 21, 'colormap2label must')])
def test_wrong_masks(shape, size, fragment):
    with pytest.raises(ValueError, match='voc_label_indices: ' + fragment):
        voc_label_indices(onp.zeros(shape, 'uint8'), onp.zeros(size))


@pytest.mark.parametrize('value', [-1, 256, float('nan')])
def test_values_that_are_no_colours(value):
    colormap = onp.zeros((2, 2, 3))
    colormap[1, 1, 1] = value
    with pytest.raises(ValueError, match='colormap must hold values from 0 to 255'):
        voc_label_indices(np.array(colormap), build_colormap2label())


# Crops

def test_crops_are_those_of_mxnet():
    """The same seed gives the piece that mxnet.image.random_crop cuts out."""
    feature = np.array(onp.random.RandomState(0).randint(0, 256, (40, 60, 3)), dtype='uint8')
    label = np.arange(2400).reshape(40, 60, 1)
    for seed in range(10):
        random.seed(seed)
        expected, rect = image.random_crop(feature, (20, 30))
        random.seed(seed)
        piece, numbers = voc_rand_crop(feature, label, 30, 20)
        assert (piece.asnumpy() == expected.asnumpy()).all()
        assert (numbers.asnumpy() == image.fixed_crop(label, *rect).asnumpy()).all()
    assert isinstance(piece, np.ndarray) and piece.shape == (30, 20, 3)


def test_crops_of_every_place():
    label = onp.arange(12).reshape(3, 4)
    random.seed(1)
    pieces = [voc_rand_crop(label, label, 2, 3) for _ in range(100)]
    assert all((a == b).all() for a, b in pieces)
    assert {int(a[0, 0]) for a, _ in pieces} == {0, 1, 4, 5}
    whole, _ = voc_rand_crop(label, label, 3, 4)
    assert (whole == label).all()


@pytest.mark.parametrize('size, label_shape, fragment', [
    ((4, 4), (3, 4), 'feature must be at least 4 x 4, got 3 x 4'), ((3, 5), (3, 4), 'feature'),
    ((2, 2), (4, 3), r'label must have the size of feature, got \(4, 3\)'),
    ((0, 2), (3, 4), 'height must'), ((2, -1), (3, 4), 'width must')])
def test_wrong_crops(size, label_shape, fragment):
    with pytest.raises(ValueError, match='voc_rand_crop: ' + fragment):
        voc_rand_crop(onp.zeros((3, 4, 3)), onp.zeros(label_shape), *size)


# Reading

@BOTH
def test_pictures_and_masks(hub_data, real):
    hub_data('voc2012', real=real)
    voc_dir = download_extract('voc2012', os.path.join('VOCdevkit', 'VOC2012'))
    for is_train, part in ((True, 'train'), (False, 'val')):
        names = names_of(voc_dir, part)
        features, labels = read_voc_images(voc_dir, is_train)
        assert isinstance(features, list) and len(features) == len(labels) == len(names)
        table = build_colormap2label()
        for name, feature, label in list(zip(names, features, labels))[:12]:
            expected = image.imread(os.path.join(voc_dir, 'JPEGImages', name + '.jpg'))
            assert isinstance(feature, np.ndarray) and isinstance(label, np.ndarray)
            assert feature.dtype == label.dtype == onp.uint8
            assert (feature.asnumpy() == expected.asnumpy()).all()
            numbers = classes_of(voc_dir, name)
            assert (label.asnumpy() == onp.array(VOC_COLORMAP)[numbers]).all()
            assert (voc_label_indices(label, table).asnumpy() == numbers).all()
            assert numbers.max() > 0
    # Lists, so that the book's cells may add them.
    assert len(features[0:5] + labels[0:5]) == 10


def test_reading_in_legacy_mode(voc_dir):
    expected, _ = read_voc_images(voc_dir)
    npx.reset_np()
    try:
        features, labels = read_voc_images(voc_dir)
        assert all(type(array) is mx.nd.NDArray for array in features + labels)
        assert (features[3].asnumpy() == expected[3].asnumpy()).all()
    finally:
        npx.set_np()


def path_of(voc_dir, kind):
    name = names_of(voc_dir, 'train')[3]
    return {'picture': os.path.join(voc_dir, 'JPEGImages', name + '.jpg'),
            'mask': os.path.join(voc_dir, 'SegmentationClass', name + '.png'),
            'list': os.path.join(voc_dir, 'ImageSets', 'Segmentation', 'train.txt')}[kind]


@pytest.mark.parametrize('kind, content, error, fragment', [
    ('picture', None, FileNotFoundError, ''), ('mask', None, FileNotFoundError, ''),
    ('list', None, FileNotFoundError, ''), ('picture', b'', ValueError, 'is not a picture'),
    ('mask', b'no picture', ValueError, 'is not a picture'), ('list', b'\n', ValueError, 'empty')])
def test_missing_and_damaged_files(voc_dir, kind, content, error, fragment):
    path = path_of(voc_dir, kind)
    os.unlink(path)
    if content is not None:
        with open(path, 'wb') as file:
            file.write(content)
    for call in (lambda: read_voc_images(voc_dir), lambda: VOCSegDataset(True, (32, 32), voc_dir)):
        with pytest.raises(error, match=os.path.basename(path) + '.*' + fragment):
            call()


def test_a_mask_of_another_size(voc_dir):
    Image.new('P', (10, 20)).save(path_of(voc_dir, 'mask'))
    with pytest.raises(ValueError, match=r'the mask must have .* got \(20, 10\) for \(64, 88\)'):
        read_voc_images(voc_dir)


@pytest.mark.parametrize('shown', ['0', '1'])
def test_progress_is_shown_on_wish(voc_dir, monkeypatch, capsys, shown):
    monkeypatch.setenv('D2L_PROGRESS', shown)
    read_voc_images(voc_dir)
    out, err = capsys.readouterr()
    assert out == '' and ('22/22' in err) == (shown == '1')


# The data set

@BOTH
def test_items(hub_data, real):
    hub_data('voc2012', real=real)
    voc_dir = download_extract('voc2012', os.path.join('VOCdevkit', 'VOC2012'))
    height, width = (200, 300) if real else (40, 60)
    data = VOCSegDataset(False, (height, width), voc_dir)
    names = names_of(voc_dir, 'val')
    assert len(data) == len(names) and isinstance(data, gluon.data.Dataset)
    for i in (0, len(data) - 1):
        whole = image.imread(os.path.join(voc_dir, 'JPEGImages', names[i] + '.jpg'))
        numbers = classes_of(voc_dir, names[i])
        random.seed(i)
        piece, (x, y, w, h) = image.random_crop(whole, (width, height))
        random.seed(i)
        feature, label = data[i]
        assert isinstance(feature, np.ndarray) and isinstance(label, np.ndarray)
        assert feature.dtype == label.dtype == onp.float32
        assert feature.shape == (3, height, width)
        truth = (piece.asnumpy() / 255.0 - MEAN) / STD
        onp.testing.assert_allclose(feature.asnumpy(), truth.transpose(2, 0, 1), atol=2e-6)
        assert (label.asnumpy() == numbers[y:y + h, x:x + w]).all()
    with pytest.raises(IndexError):
        data[len(data)]


def test_pictures_stay_bytes(voc_dir):
    """In memory: a byte for each channel, and one for the class of each pixel."""
    data = VOCSegDataset(True, (32, 32), voc_dir)
    assert all(isinstance(array, onp.ndarray) and array.dtype == onp.uint8
               for array in data.features + data.labels)
    used = sum(array.nbytes for array in data.features + data.labels)
    assert used == 22 * 64 * 88 * 4
    assert all(array.base is None or array.base.nbytes == array.nbytes for array in data.features)


def test_nothing_is_printed(voc_dir, capsys):
    VOCSegDataset(True, (32, 32), voc_dir)
    assert capsys.readouterr().out == ''


def test_normalize_image(voc_dir):
    data = VOCSegDataset(False, (32, 32), voc_dir)
    pixels = onp.random.RandomState(0).randint(0, 256, (5, 7, 3)).astype('uint8')
    truth = (pixels / 255.0 - MEAN) / STD
    mine = data.normalize_image(np.array(pixels, dtype='uint8'))
    assert isinstance(mine, np.ndarray) and mine.dtype == onp.float32
    onp.testing.assert_allclose(mine.asnumpy(), truth, atol=2e-6)
    assert (data.normalize_image(pixels) == mine.asnumpy()).all()
    legacy = data.normalize_image(mx.nd.array(pixels, dtype='uint8'))
    assert type(legacy) is mx.nd.NDArray and (legacy.asnumpy() == mine.asnumpy()).all()


def test_small_pictures_are_left_out(voc_dir):
    """Together with their masks, so that the others still fit each other."""
    small = names_of(voc_dir, 'train')[2]
    Image.new('RGB', (30, 64)).save(os.path.join(voc_dir, 'JPEGImages', small + '.jpg'))
    Image.new('P', (30, 64)).save(os.path.join(voc_dir, 'SegmentationClass', small + '.png'))
    data = VOCSegDataset(True, (40, 60), voc_dir)
    kept = [name for name in names_of(voc_dir, 'train') if name != small]
    assert len(data) == len(data.labels) == len(kept) == 21
    for name, label in zip(kept, data.labels):
        assert (label == classes_of(voc_dir, name)).all()
    sizes = [(40, 60), (39, 90), (90, 59), (64, 88)]
    images = [onp.zeros(size + (3,)) for size in sizes]
    assert [img.shape[:2] for img in data.filter(images)] == [(40, 60), (64, 88)]
    with pytest.raises(ValueError, match='crop_size must fit .* 65 x 20, and all 22 pictures'):
        VOCSegDataset(True, (65, 20), voc_dir)


def test_gluons_loader_takes_the_data_set(voc_dir):
    data = VOCSegDataset(True, (32, 48), voc_dir)
    X, Y = next(iter(gluon.data.DataLoader(data, 4, shuffle=True, last_batch='discard')))
    assert X.shape == (4, 3, 32, 48) and Y.shape == (4, 32, 48)
    assert X.dtype == Y.dtype == onp.float32


# The loaders

@BOTH
def test_loaders(hub_data, real):
    hub_data('voc2012', real=real)
    crop = (200, 300) if real else (32, 48)
    for data_iter, count in zip(load_data_voc(6, crop), (60, 20) if real else (22, 8)):
        assert len(data_iter) == count // 6
        batches = list(data_iter)
        assert len(batches) == count // 6
        for batch in batches:
            assert type(batch) is list
            X, Y = batch
            assert isinstance(X, np.ndarray) and isinstance(Y, np.ndarray)
            assert X.shape == (6, 3) + crop and Y.shape == (6,) + crop
            assert X.dtype == Y.dtype == onp.float32
            values = set(onp.unique(Y.asnumpy()))
            assert values <= set(range(21)) and len(values) > 2
        # Section 13.11 prepares a picture like this.
        img = image.imresize(np.ones((8, 8, 3), dtype='uint8'), 4, 4)
        assert data_iter._dataset.normalize_image(img).shape == (4, 4, 3)


def test_batches_are_the_items(hub_data):
    hub_data('voc2012', real=False)
    _, test_iter = load_data_voc(4, (32, 48))
    random.seed(7)
    X, Y = (np.concatenate(parts) for parts in zip(*test_iter))
    random.seed(7)
    for i in range(8):
        feature, label = test_iter._dataset[i]
        assert (X[i].asnumpy() == feature.asnumpy()).all()
        assert (Y[i].asnumpy() == label.asnumpy()).all()


def test_orders_and_seeds(hub_data):
    hub_data('voc2012', real=False)
    # Crops as large as the pictures: then only the order is left to chance.
    train_iter, test_iter = load_data_voc(8, (64, 88))

    def order(data_iter):
        labels = [label.tobytes() for label in data_iter._dataset.labels]
        return [labels.index(label.astype('uint8').tobytes())
                for _, Y in data_iter for label in Y.asnumpy()]

    mx.random.seed(1)
    orders = [order(train_iter) for _ in range(2)]
    mx.random.seed(1)
    assert [order(train_iter) for _ in range(2)] == orders
    assert orders[0] != orders[1] and orders[0] != list(range(16))
    assert all(len(set(numbers)) == 16 for numbers in orders)
    assert max(orders[0] + orders[1]) > 15
    assert order(test_iter) == list(range(8))


def test_loaders_in_legacy_mode(hub_data):
    hub_data('voc2012', real=False)
    npx.reset_np()
    try:
        for X, Y in load_data_voc(4, (32, 48))[0]:
            assert type(X) is type(Y) is mx.nd.NDArray and X.shape == (4, 3, 32, 48)
    finally:
        npx.set_np()


def test_files_are_read_in_the_given_order_by_threads(voc_dir, monkeypatch):
    """However long each takes; and one that fails ends the others."""
    first = threading.Event()
    read = segmentation._read_picture
    names = names_of(voc_dir, 'train')

    def slow_first(path):
        if names[0] in path:
            assert first.wait(30)
        elif names[1] in path:
            first.set()
        return read(path)

    expected = [array.asnumpy() for array in read_voc_images(voc_dir)[0]]
    monkeypatch.setattr(segmentation, '_THREADS', 2)
    monkeypatch.setattr(segmentation, '_read_picture', slow_first)
    for mine, array in zip(read_voc_images(voc_dir)[0], expected):
        assert (mine.asnumpy() == array).all()


@pytest.mark.parametrize('arguments, error, fragment', [
    ((0, (32, 32)), ValueError, 'batch_size must be at least 1'),
    ((2.0, (32, 32)), TypeError, 'batch_size must be an integer'),
    ((8, 32), ValueError, r'crop_size must be \(height, width\), got 32'),
    ((8, (32,)), ValueError, 'crop_size must be'), ((8, (32, 0)), ValueError, 'crop_size must'),
    ((8, (32, 1.5)), TypeError, 'crop_size must'), ((8, (65, 32)), ValueError, 'all 22 pictures'),
    ((23, (32, 32)), ValueError, 'at most 22, the number of training pictures'),
    ((9, (32, 32)), ValueError, 'at most 8, the number of test pictures')])
def test_wrong_arguments(hub_data, arguments, error, fragment):
    hub_data('voc2012', real=False)
    with pytest.raises(error, match=fragment):
        load_data_voc(*arguments)
