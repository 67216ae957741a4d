"""Pictures for chapters 13 and 17: real ones, and pictures of Fashion-MNIST in the same formats."""
import csv
import hashlib
import io
import os
import struct
import tarfile
import zipfile

import numpy as onp
from mxnet import recordio
from PIL import Image

import d2l
from d2l.data.segmentation import VOC_COLORMAP
from d2l.data.vision import read_idx

CLASSES = ('airplane', 'automobile', 'bird', 'cat', 'deer', 'dog', 'frog', 'horse', 'ship', 'truck')


def _tar_files(path, wanted=lambda name: True):
    """name -> content of the files in an archive of the shared folder."""
    with tarfile.open(path) as archive:
        return {info.name: archive.extractfile(info).read() for info in archive
                if info.isfile() and wanted(info.name)}


def _write_zip(path, files):
    """``files`` maps names to bytes or str.  Stored: pictures are compressed already."""
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_STORED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)


def _encoded(pixels, kind='PNG', palette=None):
    image = Image.fromarray(pixels)
    if palette is not None:
        image.putpalette(palette)
    out = io.BytesIO()
    image.save(out, kind)
    return out.getvalue()


def _fashion(count):
    """The first pictures of the sample, uint8 (count, 28, 28), and their labels."""
    folder = os.path.join(os.path.dirname(d2l.__file__), 'samples', 'fashion-mnist')
    return (read_idx(os.path.join(folder, 'train-images-idx3-ubyte.gz'))[:count],
            read_idx(os.path.join(folder, 'train-labels-idx1-ubyte.gz'))[:count])


def _colour(grey):
    """(32, 32, 3) of a picture of Fashion-MNIST."""
    return onp.repeat(onp.pad(grey, 2)[..., onp.newaxis], 3, axis=2)


# bananas: record files, one object in each picture

def write_bananas(folder, parts):
    """``parts`` maps 'train' and 'val' to lists of (jpeg, (x1, y1, x2, y2) within 0 to 1)."""
    files = {}
    for part, examples in parts.items():
        rec, idx = (os.path.join(folder, f'{part}.{ending}') for ending in ('rec', 'idx'))
        writer = recordio.MXIndexedRecordIO(idx, rec, 'w')
        for number, (jpeg, box) in enumerate(examples):
            # Two numbers in the header, five for an object, then the objects.
            label = onp.array((2, 5, 0) + tuple(box), 'float32')
            # recordio.pack calls what NumPy 2.3 no longer has; this is its format.
            head = struct.pack('<IfQQ', label.size, 0, number, 0)
            writer.write_idx(number, head + label.tobytes() + jpeg)
        writer.close()
        for path in (rec, idx) if part == 'train' else (rec,):
            with open(path, 'rb') as file:
                files['bananas/' + os.path.basename(path)] = file.read()
        os.unlink(rec)
        os.unlink(idx)
    _write_zip(os.path.join(folder, 'bananas.zip'), files)


def bananas(shared, folder):
    """The fruit pictures (256 x 256) that show one fruit; all are class 0."""
    found = _tar_files(os.path.join(shared, 'fruit-detection', 'fruit_detection_256.tar.xz'))
    parts = {}
    for part in ('train', 'val'):
        home = f'fruit_detection/{part}/'
        rows = list(csv.DictReader(io.StringIO(found[home + 'label.csv'].decode('utf-8'))))
        names = [row['img_name'] for row in rows]
        parts[part] = []
        for row in rows:
            if names.count(row['img_name']) == 1:
                jpeg = found[f'{home}images/{row["img_name"]}']
                width, height = Image.open(io.BytesIO(jpeg)).size
                box = [float(row[key]) / edge for key, edge in zip(
                    ('xmin', 'ymin', 'xmax', 'ymax'), (width, height, width, height))]
                parts[part].append((jpeg, box))
    write_bananas(folder, parts)


def bananas_of_samples(folder):
    """A piece of clothing somewhere on a dark picture of 96 x 96."""
    source = onp.random.RandomState(1)
    examples = []
    for grey in _fashion(80)[0]:
        edge = source.randint(36, 64)
        x, y = source.randint(0, 96 - edge, 2)
        picture = source.randint(0, 40, (96, 96, 3)).astype('uint8')
        item = onp.asarray(Image.fromarray(grey).resize((edge, edge)))[..., onp.newaxis]
        patch = picture[y:y + edge, x:x + edge]
        patch[:] = onp.where(item > 60, item, patch)
        examples.append((_encoded(picture, 'JPEG'),
                         onp.array((x, y, x + edge, y + edge)) / 96.0))
    write_bananas(folder, {'train': examples[:60], 'val': examples[60:]})


# voc2012: pictures and masks, the masks with a palette as in the original

def write_voc(folder, parts):
    """``parts`` maps 'train' and 'val' to lists of (name, jpeg, class numbers (h, w) uint8)."""
    palette = [channel for colour in VOC_COLORMAP for channel in colour]
    path = os.path.join(folder, 'VOCtrainval_11-May-2012.tar')
    with tarfile.open(path, 'w') as archive:
        def add(name, content):
            info = tarfile.TarInfo('VOCdevkit/VOC2012/' + name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))

        for part, examples in parts.items():
            for name, jpeg, numbers in examples:
                add(f'JPEGImages/{name}.jpg', jpeg)
                add(f'SegmentationClass/{name}.png', _encoded(numbers, palette=palette))
            names = ''.join(f'{name}\n' for name, _, _ in examples)
            add(f'ImageSets/Segmentation/{part}.txt', names.encode())


def voc2012(shared, folder):
    """60 + 20 street scenes of CamVid, 480 x 360, whose 12 classes are called by VOC's colours."""
    found = _tar_files(os.path.join(shared, 'camvid', 'camvid_100_40.tar.xz'))
    parts = {}
    for part, count in (('train', 60), ('val', 20)):
        names = found[f'camvid/ImageSets/Segmentation/{part}.txt'].decode().split()
        parts[part] = []
        for name in names[:count]:
            mask = Image.open(io.BytesIO(found[f'camvid/SegmentationLabel/{name}.png']))
            parts[part].append((name, found[f'camvid/JPEGImages/{name}.jpg'], onp.asarray(mask)))
    write_voc(folder, parts)


def voc_of_samples(folder):
    """Two pieces of clothing on each picture; their classes are the labels plus 1."""
    greys, labels = _fashion(60)
    source = onp.random.RandomState(2)
    examples = []
    for i in range(0, 60, 2):
        picture = source.randint(0, 30, (64, 88, 3)).astype('uint8')
        numbers = onp.zeros((64, 88), 'uint8')
        for j, left in ((i, 0), (i + 1, 44)):
            item = onp.asarray(Image.fromarray(greys[j]).resize((44, 44)))
            on = item > 40
            picture[10:54, left:left + 44][on] = item[on][:, onp.newaxis]
            numbers[10:54, left:left + 44][on] = labels[j] + 1
        examples.append((f'2007_{i:06d}', _encoded(picture, 'JPEG'), numbers))
    write_voc(folder, {'train': examples[:22], 'val': examples[22:]})


# Pictures in folders

def _cifar(shared, per_class, classes=CLASSES):
    """class -> list of JPEGs, 32 x 32."""
    path = os.path.join(shared, 'cifar10-jpeg', 'cifar10_jpeg_test.tar.xz')
    first = {f'{number:04d}.jpg' for number in range(per_class)}
    found = _tar_files(path, lambda name: name.split('/')[-1] in first
                       and name.split('/')[-2] in classes)
    return {label: [found[name] for name in sorted(found) if name.split('/')[-2] == label]
            for label in classes}


def _fashion_by_class(count):
    """number of the class -> list of JPEGs, 32 x 32."""
    greys, labels = _fashion(count)
    return {label: [_encoded(_colour(grey), 'JPEG') for grey in greys[labels == label]]
            for label in range(10)}


def cifar10_tiny(shared, folder):
    home, files = 'kaggle_cifar10_tiny', {}
    for part in ('train', 'test'):
        path = os.path.join(shared, 'd2l-data', f'kaggle_cifar10_{part}_tiny.zip')
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                if name.endswith('.png'):
                    files[f'{home}/{part}/{os.path.basename(name)}'] = archive.read(name)
    path = os.path.join(shared, 'd2l-data', 'kaggle_cifar10_trainLabels.csv.zip')
    with zipfile.ZipFile(path) as archive:
        head, *rows = archive.read('trainLabels.csv').decode('utf-8').split()
    rows = [row for row in rows if f'{home}/train/{row.split(",")[0]}.png' in files]
    files[f'{home}/trainLabels.csv'] = '\n'.join([head] + rows) + '\n'
    _write_zip(os.path.join(folder, home + '.zip'), files)


def cifar10_tiny_of_samples(folder):
    home, files, rows = 'kaggle_cifar10_tiny', {}, ['id,label']
    for number, (grey, label) in enumerate(zip(*_fashion(110))):
        part, name = ('train', number + 1) if number < 100 else ('test', number - 99)
        files[f'{home}/{part}/{name}.png'] = _encoded(_colour(grey))
        if part == 'train':
            rows.append(f'{name},{CLASSES[label]}')
    files[f'{home}/trainLabels.csv'] = '\n'.join(rows) + '\n'
    _write_zip(os.path.join(folder, home + '.zip'), files)


def _write_dogs(folder, by_class):
    """The last two pictures of each class are the test's."""
    home, files, rows = 'kaggle_dog_tiny', {}, ['id,breed']
    for breed, jpegs in by_class.items():
        for number, jpeg in enumerate(jpegs):
            # Names as in the original: hexadecimal, in an order of their own.
            name = hashlib.sha1(f'{breed} {number}'.encode()).hexdigest()[:32]
            part = 'test' if number >= len(jpegs) - 2 else 'train'
            files[f'{home}/{part}/{name}.jpg'] = jpeg
            if part == 'train':
                rows.append(f'{name},{breed}')
    files[f'{home}/labels.csv'] = '\n'.join(rows) + '\n'
    _write_zip(os.path.join(folder, home + '.zip'), files)


def dog_tiny(shared, folder):
    _write_dogs(folder, _cifar(shared, 22))


def dog_tiny_of_samples(folder):
    _write_dogs(folder, {CLASSES[label]: jpegs
                         for label, jpegs in _fashion_by_class(120).items()})


def _write_hotdogs(folder, hotdogs, others):
    """Two thirds of each are for training."""
    files = {}
    for label, jpegs in (('hotdog', hotdogs), ('not-hotdog', others)):
        for number, jpeg in enumerate(jpegs):
            part = 'train' if number < len(jpegs) * 2 // 3 else 'test'
            files[f'hotdog/{part}/{label}/{number}.jpg'] = jpeg
    _write_zip(os.path.join(folder, 'hotdog.zip'), files)


def hotdog(shared, folder):
    """Cars are hotdogs, frogs are not."""
    found = _cifar(shared, 300, ('automobile', 'frog'))
    _write_hotdogs(folder, found['automobile'], found['frog'])


def hotdog_of_samples(folder):
    """Boots are hotdogs, trousers are not."""
    found = _fashion_by_class(500)
    _write_hotdogs(folder, found[9], found[1])


def pokemon(shared, folder):
    """One folder for each monster with its front and its back, 64 x 64."""
    found = _tar_files(os.path.join(shared, 'tuxemon-sprites', 'tuxemon_64.tar.xz'),
                       lambda name: name.endswith('.png'))
    files = {}
    for name, png in found.items():
        monster, side = os.path.basename(name).rsplit('-', 1)
        files[f'pokemon/{monster}/{side}'] = png
    _write_zip(os.path.join(folder, 'pokemon.zip'), files)


def pokemon_of_samples(folder):
    files = {f'pokemon/{CLASSES[label]}/{number}.png':
             _encoded(onp.kron(_colour(grey), onp.ones((2, 2, 1), 'uint8')))
             for number, (grey, label) in enumerate(zip(*_fashion(150)))}
    _write_zip(os.path.join(folder, 'pokemon.zip'), files)


REAL = {'bananas': bananas, 'voc2012': voc2012, 'cifar10_tiny': cifar10_tiny,
        'dog_tiny': dog_tiny, 'hotdog': hotdog, 'pokemon': pokemon}
SAMPLES = {'bananas': bananas_of_samples, 'voc2012': voc_of_samples,
           'cifar10_tiny': cifar10_tiny_of_samples, 'dog_tiny': dog_tiny_of_samples,
           'hotdog': hotdog_of_samples, 'pokemon': pokemon_of_samples}
