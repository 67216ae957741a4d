"""Make the small real samples that ship with the package, d2l/samples.

    python tools/make_samples.py --fashion /usr/share/datasets/fashion-mnist --texts FOLDER

``--fashion`` holds the four files of Fashion-MNIST (Debian's package dataset-fashion-mnist has
them).  ``--texts`` holds timemachine.txt, airfoil_self_noise.dat and fra-eng.zip.  Every source is
checked against its SHA-1 before it is used, and the result does not depend on the time or the
machine.  index.json tells ``d2l.utils.hub`` what there is and how it differs from the full set.
"""
import argparse
import gzip
import hashlib
import io
import json
import os
import struct
import zipfile

import numpy as np

REPOSITORY = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SAMPLES = os.path.join(REPOSITORY, 'd2l', 'samples')
LARGEST_TOTAL = 6_000_000
FRA_ENG_PAIRS = 12_000

# SHA-1 of the uncompressed content: it is the same however the file was compressed.
FASHION = {
    'train-images-idx3-ubyte': 'b9bd999c0106c9b8b4b0cefce58c9a6060f27095',
    'train-labels-idx1-ubyte': '4bccf37222e01638381eaa326bf730337a597267',
    't10k-images-idx3-ubyte': '880056926db704f9f713097915f99da346f5b1d1',
    't10k-labels-idx1-ubyte': '958122e8b4b97fd4e71eca2d08ef754ed77c3ad9',
}
WHOLE = {
    'time_machine': ('timemachine.txt', '090b5e7e70c295757f55df93cb0a180b9691891a'),
    'airfoil': ('airfoil_self_noise.dat', '76e5be1548fd8222e5074cf0faae75edff8cf93f'),
}
FRA_ENG = ('fra-eng.zip', 'cf93c950315f08e1c44afae008404cfd13585b70')


def sha1(data):
    return hashlib.sha1(data).hexdigest()


def read_checked(path, expected, uncompress=False):
    with (gzip.open if uncompress else open)(path, 'rb') as file:
        data = file.read()
    if sha1(data) != expected:
        raise SystemExit(f'{path}: SHA-1 must be {expected}, got {sha1(data)}')
    return data


def compressed(data):
    """gzip without a name or a time, so that the same data give the same file."""
    buffer = io.BytesIO()
    with gzip.GzipFile(filename='', mode='wb', compresslevel=9, fileobj=buffer, mtime=0) as file:
        file.write(data)
    return buffer.getvalue()


def write(out, index, name, filename, data, differs):
    folder = os.path.join(out, name.split('/')[0])
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, filename), 'wb') as file:
        file.write(data)
    index[name] = {'file': f'{os.path.basename(folder)}/{filename}', 'sha1': sha1(data),
                   'differs': differs}


def fashion_mnist(source, out, index):
    """The first pictures of each class, in the order of the full set."""
    for split, per_class, total in (('train', 1000, 60_000), ('t10k', 200, 10_000)):
        images_name, labels_name = f'{split}-images-idx3-ubyte', f'{split}-labels-idx1-ubyte'
        images, labels = (
            read_checked(os.path.join(source, name + '.gz'), FASHION[name], uncompress=True)
            for name in (images_name, labels_name))
        images = np.frombuffer(images, np.uint8, offset=16).reshape(total, 28, 28)
        labels = np.frombuffer(labels, np.uint8, offset=8)
        chosen = np.sort(np.concatenate(
            [np.flatnonzero(labels == label)[:per_class] for label in range(10)]))
        count = len(chosen)
        assert count == 10 * per_class
        differs = f'the first {per_class:,} of each class, {count:,} of {total:,}'
        for name, head, data in (
                (images_name, struct.pack('>IIII', 0x803, count, 28, 28), images[chosen]),
                (labels_name, struct.pack('>II', 0x801, count), labels[chosen])):
            write(out, index, f'fashion-mnist/{name}.gz', f'{name}.gz',
                  compressed(head + data.tobytes()), differs)


def fra_eng(source, out, index):
    """The first, that is the shortest, sentence pairs, in a zip of the same layout."""
    filename, expected = FRA_ENG
    archive = zipfile.ZipFile(io.BytesIO(read_checked(os.path.join(source, filename), expected)))
    lines = archive.read('fra-eng/fra.txt').decode('utf-8').split('\n')[:-1]
    members = {'fra-eng/fra.txt': ('\n'.join(lines[:FRA_ENG_PAIRS]) + '\n').encode('utf-8'),
               'fra-eng/_about.txt': archive.read('fra-eng/_about.txt')}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, 'w', zipfile.ZIP_DEFLATED, compresslevel=9) as file:
        for name, data in members.items():
            info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            info.external_attr = 0o644 << 16
            file.writestr(info, data, zipfile.ZIP_DEFLATED, 9)
    write(out, index, 'fra-eng', filename, buffer.getvalue(),
          f'the first {FRA_ENG_PAIRS:,} of {len(lines):,} sentence pairs, which are the shortest')


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--fashion', default='/usr/share/datasets/fashion-mnist')
    parser.add_argument('--texts', required=True)
    parser.add_argument('--out', default=SAMPLES)
    args = parser.parse_args()

    index = {}
    fashion_mnist(args.fashion, args.out, index)
    fra_eng(args.texts, args.out, index)
    for name, (filename, expected) in WHOLE.items():
        data = read_checked(os.path.join(args.texts, filename), expected)
        write(args.out, index, name, filename, data, '')
    with open(os.path.join(args.out, 'index.json'), 'w', encoding='utf-8') as file:
        json.dump(index, file, indent=2)
        file.write('\n')

    sizes = {name: os.path.getsize(os.path.join(args.out, entry['file']))
             for name, entry in index.items()}
    for name, size in sizes.items():
        print(f'{size:10,}  {name}')
    print(f'{sum(sizes.values()):10,}  together')
    if sum(sizes.values()) > LARGEST_TOTAL:
        raise SystemExit(f'the samples must not exceed {LARGEST_TOTAL:,} bytes together')


if __name__ == '__main__':
    main()
