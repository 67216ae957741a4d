"""Fashion-MNIST: found without a network where possible, and batched as whole arrays.

Importing this module makes gluon's own ``gluon.data.vision.FashionMNIST`` find its files by the
search order of ``d2l.utils.hub``, too.
"""
import gzip
import os
import struct
import zlib

import mxnet as mx
import numpy as onp
from mxnet import np, npx
from mxnet.gluon.data.vision import datasets as gluon_datasets
from mxnet.gluon.utils import _get_repo_file_url
from mxnet.util import is_np_array

from d2l.data.arrays import ArrayLoader, positive_int
from d2l.utils import hub

FASHION_MNIST_LABELS = ('t-shirt', 'trouser', 'pullover', 'dress', 'coat', 'sandal', 'shirt',
                        'sneaker', 'bag', 'ankle boot')

_HOME = 'fashion-mnist'
_MIRRORS = (
    'https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/',
    'http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/',
)
# The same data as compressed anew by Debian's package dataset-fashion-mnist.
_DEBIAN_SHA1 = {
    'train-images-idx3-ubyte.gz': 'f3b839f14745c4e79b8fd3c612c99de71320e861',
    'train-labels-idx1-ubyte.gz': 'f4909103fbdc4fa0d25c24c0ef242affd5e6311d',
    't10k-images-idx3-ubyte.gz': '5273a894aa97b4c0880e0d709e6afbdc770d05e3',
    't10k-labels-idx1-ubyte.gz': '9317cfa0b855692f9538dd9e8821f97222088aa9',
}
_TRAIN = (('train-images-idx3-ubyte.gz', '0cf37b0d40ed5169c6b3aba31069a9770ac9043d'),
          ('train-labels-idx1-ubyte.gz', '236021d52f1e40852b06a4c3008d8de8aef1e40b'))
_TEST = (('t10k-images-idx3-ubyte.gz', '626ed6a7c06dd17c0eec72fa3be1740f146a2863'),
         ('t10k-labels-idx1-ubyte.gz', '17f9ab60e7257a1620f4ad76bbbaf857c3920701'))


def get_fashion_mnist_labels(labels):
    """The class names of Fashion-MNIST for numbers 0 to 9.  Returns a list of str.

    ``labels`` is a one-dimensional MXNet or numpy array, or a list.  Raises ``ValueError`` for
    another number.  Book section 3.5.
    """
    if isinstance(labels, mx.nd.NDArray):
        labels = labels.asnumpy()
    numbers = [int(label) for label in labels]
    wrong = [number for number in numbers if not 0 <= number < len(FASHION_MNIST_LABELS)]
    if wrong:
        raise ValueError(f'get_fashion_mnist_labels: labels must be 0 to 9, got {wrong[0]}')
    return [FASHION_MNIST_LABELS[number] for number in numbers]


def load_data_fashion_mnist(batch_size, resize=None, root=None):
    """Fashion-MNIST in batches.  Returns (train_iter, test_iter).

    A batch is a list of the pictures, float32 of shape (b, 1, 28, 28) in [0, 1], and the labels,
    int32 of shape (b,): the same numbers as gluon's ``DataLoader`` gives with the transforms
    ``Resize`` and ``ToTensor``.  The training pictures are shuffled anew in each pass (see
    ``ArrayLoader`` about seeds), the last batch may be smaller, and ``len()`` is the number of
    batches.  The pictures are kept as bytes; each batch is resized when its turn comes.

    ``resize`` is the new edge in pixels, or (width, height).  ``root`` is the cache folder, by
    default that of gluon's ``FashionMNIST``.

    The full set has 60,000 and 10,000 pictures; the sample that ships with the package, 10,000
    and 2,000, is used with a warning if the full set is not found.  Raises ``TypeError`` or
    ``ValueError`` for a wrong ``batch_size`` or ``resize``.  Book section 3.5.
    """
    if resize is not None:
        resize = _checked_size(resize)
    root = os.path.join(mx.base.data_dir(), 'datasets', _HOME) if root is None else root
    return tuple(image_loader(*read_fashion_mnist(root, is_train), batch_size,
                              shuffle=is_train, resize=resize) for is_train in (True, False))


def image_loader(images, labels, batch_size, shuffle=False, resize=None):
    """Batches of pictures kept as bytes: float32 (b, channels, height, width) in [0, 1].

    ``images`` is a numpy array, uint8 of shape (n, height, width, channels), ``labels`` has
    length n.  ``resize`` is the new edge in pixels, or (width, height).  Returns an
    ``ArrayLoader``.
    """
    height, width, channels = images.shape[1:]
    if resize is not None:
        width, height = resize = _checked_size(resize)

    def transform(rows):
        pictures, labels = rows
        if resize is not None:
            pictures = _resized(pictures, resize)
        return [_to_tensor(pictures), labels]

    return ArrayLoader((images, labels), batch_size, shuffle, transform,
                       row_bytes=4 * height * width * channels)


def read_fashion_mnist(root, is_train):
    """All pictures and labels of one half of Fashion-MNIST, as numpy arrays.

    ``root`` is the cache folder.  Returns uint8 (n, 28, 28, 1) and int32 (n,).  Raises
    ``ValueError`` for a damaged file.
    """
    resources = [hub.Resource(f'{_HOME}/{name}', name, sha1,
                              (_get_repo_file_url(f'gluon/dataset/{_HOME}', name),)
                              + tuple(mirror + name for mirror in _MIRRORS),
                              also=(_DEBIAN_SHA1[name],), home=_HOME)
                 for name, sha1 in (_TRAIN if is_train else _TEST)]
    half = 'training' if is_train else 'test'
    found = hub.locate(resources, root, title=f'Fashion-MNIST, {half} pictures and labels')
    images, labels = (read_idx(entry.path) for entry in found)
    if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels):
        raise ValueError(f'{found[0].path} and {found[1].path} do not belong together: their '
                         f'shapes are {images.shape} and {labels.shape}')
    return images[..., onp.newaxis], labels.astype('int32')


def read_idx(path):
    """The array of bytes in a gzip-compressed IDX file, the format of MNIST.

    Raises ``ValueError`` for a damaged file or one of another type.
    """
    try:
        with gzip.open(path, 'rb') as file:
            content = file.read()
    except (OSError, EOFError, zlib.error) as error:
        if getattr(error, 'errno', None) is not None:
            raise
        raise ValueError(f'{path} is damaged: {error}') from error
    # Two zero bytes, the type (8 is uint8), the number of axes, then the length of each axis.
    if len(content) < 4 or content[:3] != b'\0\0\x08' or len(content) < 4 + 4 * content[3]:
        raise ValueError(f'{path} is not an IDX file of bytes')
    begin = 4 + 4 * content[3]
    shape = struct.unpack(f'>{content[3]}I', content[4:begin])
    expected = int(onp.prod(shape, dtype='int64'))
    if len(content) - begin != expected:
        raise ValueError(f'{path} should hold {expected} bytes for the shape {shape}, '
                         f'but has {len(content) - begin}')
    return onp.frombuffer(content, onp.uint8, offset=begin).reshape(shape)


def _checked_size(resize):
    """(width, height) from an edge or a pair."""
    pair = resize if isinstance(resize, (tuple, list)) else (resize, resize)
    if len(pair) != 2:
        raise ValueError(f'resize must be an integer or (width, height), got {resize!r}')
    return tuple(positive_int('resize', edge) for edge in pair)


def _resized(pictures, size):
    """gluon's ``Resize`` (bilinear) on a batch of bytes: the same operator, called once."""
    if is_np_array():
        pictures = npx.image.resize(np.array(pictures, dtype='uint8'), size, False, 1)
    else:
        pictures = mx.nd.image.resize(mx.nd.array(pictures, dtype='uint8'), size, False, 1)
    return pictures.asnumpy()


def _to_tensor(pictures):
    """gluon's ``ToTensor`` on a batch: the same numbers, by numpy's vectorised division."""
    pictures = onp.ascontiguousarray(pictures.transpose(0, 3, 1, 2))
    return onp.true_divide(pictures, onp.float32(255), dtype='float32')


_gluon_get_data = gluon_datasets.FashionMNIST._get_data


def _get_data(self):
    """Fill gluon's FashionMNIST from the files that ``d2l.utils.hub`` finds."""
    files = ((self._train_data, self._train_label) if self._train
             else (self._test_data, self._test_label))
    if files != (_TRAIN if self._train else _TEST):
        # A subclass with other files under gluon's roof.
        _gluon_get_data(self)
        return
    images, labels = read_fashion_mnist(self._root, self._train)
    if is_np_array():
        self._data = np.array(images, dtype='uint8')
        self._label = np.array(labels, dtype='int32')
    else:
        self._data = mx.nd.array(images, dtype='uint8')
        self._label = labels


# The constructor calls this method; a subclass that has its own keeps it.
gluon_datasets.FashionMNIST._get_data = _get_data
