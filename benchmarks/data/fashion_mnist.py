"""One pass over 12,000 pictures of Fashion-MNIST: whole arrays against gluon's DataLoader.

The pictures are those that ship with the package (10,000 training and 2,000 test pictures), in
order.  gluon runs in this process: with workers it was no faster on pictures this small.
"""
import os

import mxnet as mx
import numpy as onp
from mxnet import gluon, np
from mxnet.gluon.data.vision import transforms

from benchmarks.run import Case
from d2l.data.vision import image_loader, read_idx

SAMPLES = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))),
                       'd2l', 'samples', 'fashion-mnist')


def read_pictures():
    """uint8 (12000, 28, 28, 1) and int32 (12000,)."""
    halves = [[read_idx(os.path.join(SAMPLES, f'{half}-{kind}-ubyte.gz'))
               for half in ('train', 't10k')] for kind in ('images-idx3', 'labels-idx1')]
    images, labels = (onp.concatenate(parts) for parts in halves)
    return images[..., onp.newaxis], labels.astype('int32')


def gluon_loader(images, labels, batch_size, resize):
    steps = ([] if resize is None else [transforms.Resize(resize)]) + [transforms.ToTensor()]
    data = gluon.data.ArrayDataset(np.array(images, dtype='uint8'), np.array(labels, dtype='int32'))
    return gluon.data.DataLoader(data.transform_first(transforms.Compose(steps)), batch_size)


def one_pass(loader):
    """Gives the number of pictures and the sum of the labels, and the last batch."""
    def run():
        count, total = 0, 0
        for batch in loader:
            count += len(batch[1])
            total += int(batch[1].asnumpy().sum())
        mx.nd.waitall()
        return [onp.array([count, total])] + [array.asnumpy() for array in batch]
    return run


def check(results):
    """Every provider gives what gluon gives, element for element; else AssertionError."""
    for name, arrays in results.items():
        for mine, expected in zip(arrays, results['gluon']):
            onp.testing.assert_array_equal(mine, expected, err_msg=name)


def cases():
    images, labels = read_pictures()
    for batch_size, resize in ((256, None), (32, None), (128, 64)):
        name = f'fashion_mnist batch {batch_size}' + (f' resize {resize}' if resize else '')
        providers = {'d2l': one_pass(image_loader(images, labels, batch_size, resize=resize)),
                     'gluon': one_pass(gluon_loader(images, labels, batch_size, resize))}
        yield Case(name, providers, check)
