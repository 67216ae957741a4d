"""Semantic segmentation: pictures into batches and masks into classes, against plain loops.

The plain version is what the formulas say, pixel by pixel in Python.  The pictures are noise in
VOC's colours and sizes: the time does not depend on what they show.  At least ten times as fast
is the bar.
"""
import random

import mxnet as mx
import numpy as onp

from benchmarks.run import Case
from d2l.data.segmentation import (
    VOC_COLORMAP,
    VOCSegDataset,
    build_colormap2label,
    voc_label_indices,
)

SIZE, CROP, BATCH = (375, 500), (320, 480), 4
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def make_pictures(count):
    """uint8 (count, height, width, 3), and the class numbers, uint8 (count, height, width)."""
    source = onp.random.RandomState(0)
    return (source.randint(0, 256, (count,) + SIZE + (3,)).astype('uint8'),
            source.randint(0, len(VOC_COLORMAP), (count,) + SIZE).astype('uint8'))


def make_dataset(features, labels):
    """A `VOCSegDataset` of pictures that are in memory already."""
    data = VOCSegDataset.__new__(VOCSegDataset)
    data.crop_size = CROP
    data.rgb_mean, data.rgb_std = onp.float32(MEAN), onp.float32(STD)
    data.features, data.labels = list(features), list(labels)
    return data


def plain_item(picture, numbers):
    """One item by loops over the pixels: lists of (3, height, width) and (height, width)."""
    height, width = CROP
    left = random.randint(0, SIZE[1] - width)
    top = random.randint(0, SIZE[0] - height)
    rows = range(top, top + height)
    columns = range(left, left + width)
    return ([[[(picture[y][x][c] / 255 - MEAN[c]) / STD[c] for x in columns] for y in rows]
             for c in range(3)], [[numbers[y][x] for x in columns] for y in rows])


def plain_labels(mask, number_of):
    return [[number_of.get((red, green, blue), 0) for red, green, blue in row] for row in mask]


def seeded(function):
    """The function, with the same random crops in each run, and all work finished."""
    def run():
        random.seed(0)
        results = function()
        return [array.asnumpy() if isinstance(array, mx.nd.NDArray) else onp.float32(array)
                for array in results]
    return run


def check(results):
    """The plain version's numbers, which are float64 before they are rounded."""
    for name, arrays in results.items():
        for mine, expected in zip(arrays, results['plain']):
            assert mine.dtype == onp.float32, name
            onp.testing.assert_allclose(mine, expected, atol=2e-6, err_msg=name)


def cases():
    features, labels = make_pictures(BATCH)
    data = make_dataset(features, labels)
    # Lists: a plain loop over a numpy array would be slower still.
    lists = [(picture.tolist(), numbers.tolist()) for picture, numbers in zip(features, labels)]
    size = '{}x{}'.format(*CROP)
    yield Case(f'segmentation item {size}', {
        'd2l': seeded(lambda: data[0]), 'plain': seeded(lambda: plain_item(*lists[0]))}, check)
    yield Case(f'segmentation batch {BATCH} {size}', {
        'd2l': seeded(lambda: data.batch(range(BATCH))),
        'plain': seeded(lambda: list(zip(*[plain_item(*pair) for pair in lists])))}, check)
    mask = onp.array(VOC_COLORMAP, 'uint8')[labels[0]]
    mask_list, table = mask.tolist(), build_colormap2label()
    number_of = {tuple(colour): i for i, colour in enumerate(VOC_COLORMAP)}
    yield Case('voc_label_indices {}x{}'.format(*SIZE), {
        'd2l': seeded(lambda: [voc_label_indices(mask, table)]),
        'plain': seeded(lambda: [plain_labels(mask_list, number_of)])}, check)
