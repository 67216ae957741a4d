"""Pascal VOC 2012: pictures and masks for semantic segmentation.

Pictures stay bytes, masks become class numbers in bytes when they are read; floating-point
numbers are made of the crops only, batch by batch.
"""
import logging
import os
import random
from concurrent.futures import ThreadPoolExecutor

import mxnet as mx
import numpy as onp
from mxnet import gluon, image, np
from mxnet.util import is_np_array

from d2l.data.arrays import _random_order, _to_mxnet, positive_int
from d2l.utils.files import open_text
from d2l.utils.hub import download_extract
from d2l.utils.progress import progress

logger = logging.getLogger('d2l')

VOC_COLORMAP = [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0], [0, 0, 128], [128, 0, 128],
                [0, 128, 128], [128, 128, 128], [64, 0, 0], [192, 0, 0], [64, 128, 0],
                [192, 128, 0], [64, 0, 128], [192, 0, 128], [64, 128, 128], [192, 128, 128],
                [0, 64, 0], [128, 64, 0], [0, 192, 0], [128, 192, 0], [0, 64, 128]]

VOC_CLASSES = ['background', 'aeroplane', 'bicycle', 'bird', 'boat', 'bottle', 'bus', 'car',
               'cat', 'chair', 'cow', 'diningtable', 'dog', 'horse', 'motorbike', 'person',
               'potted plant', 'sheep', 'sofa', 'train', 'tv/monitor']

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_THREADS = min(8, os.cpu_count() or 1)


def read_voc_images(voc_dir, is_train=True):
    """All pictures and masks of one half of VOC 2012.  Returns (features, labels).

    Both are lists of MXNet arrays, uint8 of shape (height, width, 3), RGB.  ``voc_dir`` is the
    folder VOCdevkit/VOC2012.  The arrays take about 1.6 GB for the 1,464 training pictures;
    `VOCSegDataset` needs less.

    Raises ``FileNotFoundError`` for a missing file and ``ValueError`` for a list without names, a
    picture that cannot be read, or a mask of another size.  Book section 13.9.
    """
    pairs = _read(voc_dir, is_train, lambda feature, mask: (feature, mask))
    if is_np_array():
        pairs = [[array.as_np_ndarray() for array in pair] for pair in pairs]
    return [feature for feature, _ in pairs], [mask for _, mask in pairs]


def build_colormap2label():
    """A table from colours to class numbers, for `voc_label_indices`.

    It is a numpy array, uint8 of shape (2^24,), with the number of the class at the place
    ``(red * 256 + green) * 256 + blue``, and 0 at every other place.  Being almost all zeros, it
    takes a few pages of memory.  Book section 13.9.
    """
    colormap2label = onp.zeros(256 ** 3, dtype='uint8')
    for number, (red, green, blue) in enumerate(VOC_COLORMAP):
        colormap2label[(red * 256 + green) * 256 + blue] = number
    return colormap2label


def voc_label_indices(colormap, colormap2label):
    """The class numbers of a mask in VOC's colours.  Returns float32 (height, width).

    ``colormap`` is an MXNet or numpy array of shape (height, width, 3) of integers from 0 to 255.
    ``colormap2label`` comes from `build_colormap2label`; an MXNet array of that layout is taken,
    too.  Colours that are no class, such as the edges around the objects, give 0.  Raises
    ``ValueError`` for another shape or other values.  Book section 13.9.
    """
    if colormap.ndim != 3 or colormap.shape[2] != 3:
        raise ValueError('voc_label_indices: colormap must have shape (height, width, 3), '
                         f'got {colormap.shape}')
    if colormap2label.shape != (256 ** 3,):
        raise ValueError('voc_label_indices: colormap2label must have shape (16777216,), '
                         f'got {colormap2label.shape}')
    if isinstance(colormap, mx.nd.NDArray):
        colormap = colormap.asnumpy()
    if colormap.dtype != onp.uint8 and colormap.size \
            and not 0 <= colormap.min() <= colormap.max() <= 255:
        raise ValueError('voc_label_indices: colormap must hold values from 0 to 255, '
                         f'got {colormap.min()} to {colormap.max()}')
    places = _places(colormap)
    if isinstance(colormap2label, np.ndarray):
        places = np.array(places, dtype='int32', ctx=colormap2label.ctx)
        return np.take(colormap2label, places, axis=0).astype('float32')
    if isinstance(colormap2label, mx.nd.NDArray):
        places = mx.nd.array(places, dtype='int32', ctx=colormap2label.ctx)
        return mx.nd.take(colormap2label, places).astype('float32')
    return _to_mxnet(colormap2label[places].astype('float32'))


def _places(colormap):
    """Where the colours stand in the table: int32 (height, width)."""
    places = colormap[..., 0].astype('int32')
    for channel in (1, 2):
        places *= 256
        places += colormap[..., channel].astype('int32')
    return places


def voc_rand_crop(feature, label, height, width):
    """The same random piece of a picture and its mask.  Returns (feature, label).

    Both are MXNet or numpy arrays with the axes (height, width, ...); the pieces are
    ``height`` x ``width``.  The place comes from Python's random numbers, so ``random.seed``
    makes it reproducible.  Raises ``ValueError`` for a picture that is smaller than the piece or
    of another size than its mask.  Book section 13.9.
    """
    if tuple(feature.shape[:2]) != tuple(label.shape[:2]):
        raise ValueError(f'voc_rand_crop: label must have the size of feature, got '
                         f'{label.shape[:2]} for {feature.shape[:2]}')
    height = positive_int('voc_rand_crop: height', height)
    width = positive_int('voc_rand_crop: width', width)
    rows, columns = feature.shape[:2]
    if rows < height or columns < width:
        raise ValueError(f'voc_rand_crop: feature must be at least {height} x {width}, '
                         f'got {rows} x {columns}')
    # The order of the two draws is that of mxnet.image.random_crop.
    left = random.randint(0, columns - width)
    top = random.randint(0, rows - height)
    return tuple(array[top:top + height, left:left + width] for array in (feature, label))


class VOCSegDataset(gluon.data.Dataset):
    """Crops of VOC 2012 with their class numbers, for gluon's ``DataLoader``.

    ``crop_size`` is (height, width); pictures that are smaller are left out.  ``voc_dir`` is the
    folder VOCdevkit/VOC2012.  An item is (feature, label), MXNet arrays, float32 of shapes
    (3, height, width), normalised, and (height, width).  As in the book the crop is drawn anew
    each time an item is taken, in the test set, too (`voc_rand_crop` names the seed).

    ``features`` is a list of numpy arrays, uint8 (h, w, 3), and ``labels`` one of their class
    numbers, uint8 (h, w).  Raises what `read_voc_images` raises, and ``ValueError`` if no picture
    is large enough.  Book section 13.9.
    """

    def __init__(self, is_train, crop_size, voc_dir):
        self.crop_size = _checked_size(crop_size)
        self.rgb_mean, self.rgb_std = onp.float32(_MEAN), onp.float32(_STD)
        self.colormap2label = build_colormap2label()
        pairs = _read(voc_dir, is_train, self._keep)
        kept = [pair for pair in pairs if pair is not None]
        if not kept:
            raise ValueError('VOCSegDataset: crop_size must fit into a picture, got {} x {}, and '
                             'all {} pictures are smaller'.format(*self.crop_size, len(pairs)))
        self.features, self.labels = (list(column) for column in zip(*kept))
        logger.info('VOC 2012: read %d examples', len(kept))

    def _keep(self, feature, mask):
        """What stays in memory of a picture and its mask; None if they are too small."""
        if not self.filter([feature]):
            return None
        return feature.asnumpy(), self.colormap2label[_places(mask.asnumpy())]

    def normalize_image(self, img):
        """A picture scaled to [0, 1], then by ImageNet's mean and standard deviation.

        ``img`` is an MXNet or numpy array with the channels last, values 0 to 255.  Returns a
        float32 array of the same kind and shape.
        """
        if not isinstance(img, mx.nd.NDArray):
            return (onp.asarray(img, 'float32') / 255 - self.rgb_mean) / self.rgb_std
        make = np.array if isinstance(img, np.ndarray) else mx.nd.array
        mean, std = (make(value, dtype='float32', ctx=img.ctx)
                     for value in (self.rgb_mean, self.rgb_std))
        return (img.astype('float32') / 255 - mean) / std

    def filter(self, imgs):
        """The pictures of a list that are at least as large as the crop."""
        return [img for img in imgs
                if img.shape[0] >= self.crop_size[0] and img.shape[1] >= self.crop_size[1]]

    def batch(self, indices):
        """Several items at once: float32 (b, 3, height, width) and (b, height, width)."""
        features = onp.empty((len(indices), 3) + self.crop_size, 'float32')
        labels = onp.empty((len(indices),) + self.crop_size, 'float32')
        for target, label, i in zip(features, labels, indices):
            self._fill(target, label, i)
        return [_to_mxnet(features), _to_mxnet(labels)]

    def _fill(self, target, target_label, i):
        feature, target_label[...] = voc_rand_crop(self.features[i], self.labels[i],
                                                   *self.crop_size)
        # In place, channels first; the operations and so the digits of normalize_image.
        onp.divide(feature.transpose(2, 0, 1), onp.float32(255), out=target, dtype='float32')
        target -= self.rgb_mean[:, onp.newaxis, onp.newaxis]
        target /= self.rgb_std[:, onp.newaxis, onp.newaxis]

    def __getitem__(self, idx):
        feature = onp.empty((3,) + self.crop_size, 'float32')
        label = onp.empty(self.crop_size, 'float32')
        self._fill(feature, label, idx)
        return _to_mxnet(feature), _to_mxnet(label)

    def __len__(self):
        return len(self.features)


class _Loader:
    """Full batches of a `VOCSegDataset`, which is its attribute ``_dataset`` as in gluon."""

    def __init__(self, dataset, batch_size, shuffle):
        if batch_size > len(dataset):
            raise ValueError(f'load_data_voc: batch_size must be at most {len(dataset)}, the '
                             f'number of {"training" if shuffle else "test"} pictures that are '
                             f'large enough, got {batch_size}')
        self._dataset, self.batch_size, self.shuffle = dataset, batch_size, shuffle

    def __len__(self):
        return len(self._dataset) // self.batch_size

    def __iter__(self):
        # Drawn here and not at the first batch, as in ArrayLoader.
        count = len(self._dataset)
        return self._batches(_random_order(count) if self.shuffle else range(count))

    def _batches(self, order):
        for begin in range(0, len(self) * self.batch_size, self.batch_size):
            yield self._dataset.batch(order[begin:begin + self.batch_size])


def load_data_voc(batch_size, crop_size):
    """VOC 2012 in batches of crops.  Returns (train_iter, test_iter).

    A batch is a list of float32 (batch_size, 3, height, width), normalised, and the class
    numbers, float32 (batch_size, height, width); ``crop_size`` is (height, width).  The last,
    smaller batch is left out.  Training pictures are shuffled anew in each pass, in an order that
    ``mx.random.seed`` makes reproducible; the crops, also those of the test pictures, come from
    Python's random numbers, ``random.seed``.  ``len()`` is the number of batches.

    Raises what `VOCSegDataset` raises, and ``ValueError`` for a ``batch_size`` above the number
    of pictures.  Book section 13.9.
    """
    batch_size = positive_int('load_data_voc: batch_size', batch_size)
    crop_size = _checked_size(crop_size)
    voc_dir = download_extract('voc2012', os.path.join('VOCdevkit', 'VOC2012'))
    return tuple(_Loader(VOCSegDataset(is_train, crop_size, voc_dir), batch_size, is_train)
                 for is_train in (True, False))


def _checked_size(crop_size):
    if not isinstance(crop_size, (tuple, list)) or len(crop_size) != 2:
        raise ValueError(f'crop_size must be (height, width), got {crop_size!r}')
    return tuple(positive_int('crop_size', edge) for edge in crop_size)


def _read(voc_dir, is_train, keep):
    """A list of keep(feature, mask) of all pictures of one half, in the order of VOC's list.

    ``keep`` is called in threads, with arrays as mxnet.nd's, uint8 (h, w, 3).
    """
    part = 'train.txt' if is_train else 'val.txt'
    path = os.path.join(voc_dir, 'ImageSets', 'Segmentation', part)
    with open_text(path) as file:
        names = file.read().split()
    if not names:
        raise ValueError(f'{path} should list the names of pictures, but is empty')
    if any('\0' in name for name in names):
        raise ValueError(f'{path} should list the names of pictures, but has zero bytes')

    def read_pair(name):
        feature = _read_picture(os.path.join(voc_dir, 'JPEGImages', f'{name}.jpg'))
        mask = _read_picture(os.path.join(voc_dir, 'SegmentationClass', f'{name}.png'))
        if feature.shape != mask.shape:
            raise ValueError(f'{name}: the mask must have the size of the picture, got '
                             f'{mask.shape[:2]} for {feature.shape[:2]} in {voc_dir}')
        return keep(feature, mask)

    with ThreadPoolExecutor(_THREADS) as pool:
        waiting = [pool.submit(read_pair, name) for name in names]
        try:
            return [one.result() for one in progress(waiting, f'VOC 2012, {part}', few=10)]
        except BaseException:
            for one in waiting:
                one.cancel()
            raise


def _read_picture(path):
    with open(path, 'rb') as file:
        content = file.read()
    try:
        # Threads are in MXNet's legacy mode, so this is an mxnet.nd array.
        picture = image.imdecode(content)
        picture.wait_to_read()
    except mx.base.MXNetError as error:
        raise ValueError(f'{path} is not a picture, or damaged') from error
    return picture
