"""Semantic segmentation: pictures into batches and masks into classes, against plain loops.

The plain version is what the formulas say, pixel by pixel in Python.  The pictures are photographs
of streets in VOC's format, of the shared data folder; where that is absent, some made of the
samples.  In the case of files both decode them with ``mxnet.image``.  At least ten times as fast
is the bar.
"""
import os
import random
import tarfile
import tempfile

import mxnet as mx
import numpy as onp
from mxnet import image

from benchmarks.run import Case
from d2l.data.segmentation import (
    VOC_COLORMAP,
    VOCSegDataset,
    build_colormap2label,
    voc_label_indices,
)
from tests import hub_files

PICTURES = BATCH = 4
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

# Folders last as long as the program.
kept = []


def unpacked():
    """The folder VOC2012, with the training list cut to so many pictures."""
    target = tempfile.TemporaryDirectory(prefix='d2l-benchmark-')
    kept.append(target)
    hub_files.build('voc2012', target.name, real=os.path.isdir(hub_files.SHARED))
    archive, = [name for name in os.listdir(target.name) if name.endswith('.tar')]
    with tarfile.open(os.path.join(target.name, archive)) as file:
        file.extractall(target.name)
    folder = os.path.join(target.name, 'VOCdevkit', 'VOC2012')
    path = os.path.join(folder, 'ImageSets', 'Segmentation', 'train.txt')
    with open(path, encoding='utf-8') as file:
        names = file.read().split()[:PICTURES]
    with open(path, 'w', encoding='utf-8') as file:
        file.write('\n'.join(names))
    return folder, names


def plain_data(folder, names, crop, number_of):
    """The items of all pictures."""
    items = []
    for name in names:
        picture, mask = (image.imread(os.path.join(folder, part, name + kind)).asnumpy().tolist()
                         for part, kind in (('JPEGImages', '.jpg'), ('SegmentationClass', '.png')))
        items.append(plain_item(picture, plain_labels(mask, number_of), crop))
    return items


def plain_item(picture, numbers, crop):
    """One item by loops over the pixels: lists of (3, height, width) and (height, width)."""
    height, width = crop
    left = random.randint(0, len(picture[0]) - width)
    top = random.randint(0, len(picture) - height)
    rows = range(top, top + height)
    columns = range(left, left + width)
    return ([[[(picture[y][x][c] / 255 - MEAN[c]) / STD[c] for x in columns] for y in rows]
             for c in range(3)], [[numbers[y][x] for x in columns] for y in rows])


def plain_labels(mask, number_of):
    return [[number_of.get((red, green, blue), 0) for red, green, blue in row] for row in mask]


def items_of(data):
    """Pictures and labels in turn."""
    return [array for i in range(len(data)) for array in data[i]]


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
    folder, names = unpacked()
    rows, columns = image.imread(os.path.join(folder, 'JPEGImages', names[0] + '.jpg')).shape[:2]
    crop = rows * 8 // 9, columns * 8 // 9
    number_of = {tuple(colour): i for i, colour in enumerate(VOC_COLORMAP)}
    data = VOCSegDataset(True, crop, folder)
    # Lists: a plain loop over a numpy array would be slower still.
    lists = [(picture.tolist(), numbers.tolist())
             for picture, numbers in zip(data.features, data.labels)]
    size = '{}x{}'.format(*crop)
    yield Case(f'segmentation item {size}', {
        'd2l': seeded(lambda: data[0]), 'plain': seeded(lambda: plain_item(*lists[0], crop))},
        check)
    yield Case(f'segmentation batch {BATCH} {size}', {
        'd2l': seeded(lambda: data.batch(range(BATCH))),
        'plain': seeded(lambda: list(zip(*[plain_item(*pair, crop) for pair in lists])))}, check)
    yield Case(f'VOCSegDataset and all items, {len(data)} pictures {rows}x{columns}', {
        'd2l': seeded(lambda: items_of(VOCSegDataset(True, crop, folder))),
        'plain': seeded(lambda: sum(plain_data(folder, names, crop, number_of), ()))}, check)
    mask = image.imread(os.path.join(folder, 'SegmentationClass', names[0] + '.png')).asnumpy()
    mask_list, table = mask.tolist(), build_colormap2label()
    yield Case(f'voc_label_indices {rows}x{columns}', {
        'd2l': seeded(lambda: [voc_label_indices(mask, table)]),
        'plain': seeded(lambda: [plain_labels(mask_list, number_of)])}, check)
