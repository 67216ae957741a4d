"""Kaggle's pictures in folders: the split, a second run, and the other archives of pictures."""
import collections
import math
import os
import shutil

import pytest
from mxnet import gluon

from d2l.data import kaggle
from d2l.data.kaggle import copyfile, read_csv_labels, reorg_test, reorg_train_valid
from d2l.utils.hub import download_extract

BOTH = pytest.mark.parametrize('real', [True, False], ids=['real', 'sample'])
PARTS = ('train', 'valid', 'train_valid')


def tree(folder):
    """relative name -> content of all files, hidden ones and empty folders too."""
    found = {}
    for home, folders, files in os.walk(folder):
        for name in files + [name for name in folders if not os.listdir(os.path.join(home, name))]:
            path = os.path.join(home, name)
            content = b'' if os.path.isdir(path) else open(path, 'rb').read()
            found[os.path.relpath(path, folder)] = content
    return found


def split(data_dir):
    """part -> {file: label}; an empty folder counts as nothing."""
    home = os.path.join(data_dir, 'train_valid_test')
    return {part: {file: label for label in sorted(os.listdir(os.path.join(home, part)))
                   for file in os.listdir(os.path.join(home, part, label))}
            for part in sorted(os.listdir(home))}


@pytest.fixture
def data_dir(tmp_path):
    """Seven cats, five dogs and a bird, with names whose order is not that of their making."""
    labels = ['cat'] * 7 + ['dog'] * 5 + ['bird']
    for part in ('train', 'test'):
        (tmp_path / part).mkdir()
    for number in (5, 12, 1, 3, 9, 2, 13, 7, 11, 4, 8, 10, 6):
        (tmp_path / 'train' / f'{number}.png').write_text(f'picture {number}')
    for number in (3, 1, 2):
        (tmp_path / 'test' / f'{number}.png').write_text(f'test {number}')
    (tmp_path / 'trainLabels.csv').write_text(
        'id,label\n' + ''.join(f'{i + 1},{label}\n' for i, label in enumerate(labels)))
    return str(tmp_path)


@pytest.fixture
def labels(data_dir):
    return read_csv_labels(os.path.join(data_dir, 'trainLabels.csv'))


# The real archives

@BOTH
@pytest.mark.parametrize('name, csv', [('cifar10_tiny', 'trainLabels.csv'),
                                       ('dog_tiny', 'labels.csv')])
def test_the_books_data(hub_data, real, name, csv):
    hub_data(name, real=real)
    data_dir = download_extract(name)
    labels = read_csv_labels(os.path.join(data_dir, csv))
    files = os.listdir(os.path.join(data_dir, 'train'))
    assert {file.split('.')[0] for file in files} == set(labels)
    ratio = 0.2
    held_out = reorg_train_valid(data_dir, labels, ratio)
    reorg_test(data_dir)
    sizes = collections.Counter(labels.values())
    assert held_out == max(1, math.floor(min(sizes.values()) * ratio))
    parts = split(data_dir)
    assert sorted(parts) == ['test', 'train', 'train_valid', 'valid']
    assert parts['train_valid'] == {file: labels[file.split('.')[0]] for file in files}
    assert {**parts['train'], **parts['valid']} == parts['train_valid']
    assert not set(parts['train']) & set(parts['valid'])
    assert collections.Counter(parts['valid'].values()) == {label: held_out for label in sizes}
    assert parts['test'] == dict.fromkeys(os.listdir(os.path.join(data_dir, 'test')), 'unknown')
    # As the book reads them on; a label has one number in all folders.
    home = os.path.join(data_dir, 'train_valid_test')
    sets = {part: gluon.data.vision.ImageFolderDataset(os.path.join(home, part), flag=1)
            for part in parts}
    assert all(sets[part].synsets == sorted(sizes) for part in PARTS)
    picture, _ = sets['train'][0]
    assert picture.shape == (32, 32, 3)


@BOTH
def test_hotdogs_and_pokemon(hub_data, real):
    """Archives that gluon's data sets read without a loader of ours."""
    hub_data('hotdog', 'pokemon', real=real)
    data_dir = download_extract('hotdog')
    for part in ('train', 'test'):
        data = gluon.data.vision.ImageFolderDataset(os.path.join(data_dir, part))
        assert data.synsets == ['hotdog', 'not-hotdog']
        assert {label for _, label in data.items} == {0, 1}
        assert data[0][0].shape == (32, 32, 3)
    pokemon = gluon.data.vision.ImageFolderDataset(download_extract('pokemon'))
    assert len(pokemon) >= 150 and pokemon[0][0].shape == (64, 64, 3)


# Labels

def test_labels_are_text(labels):
    assert len(labels) == 13 and labels['1'] == 'cat' and labels['13'] == 'bird'


@pytest.mark.parametrize('content, expected', [
    ('id,breed\r\nab,pug\r\ncd,boxer\r\n', {'ab': 'pug', 'cd': 'boxer'}),
    ('id,label\n1,cat', {'1': 'cat'}), ('id,label\n\n1,cat\n\n', {'1': 'cat'}), ('id,label\n', {}),
    ('', {}), ('\ufeffid,label\n1,k\xf6ter\n1,k\xf6ter\n', {'1': 'k\xf6ter'}),
    ('id,label\n"a,b","c"\n', {'a,b': 'c'})])
def test_csv_files(tmp_path, content, expected):
    path = tmp_path / 'labels.csv'
    path.write_bytes(content.encode('utf-8'))
    assert read_csv_labels(str(path)) == expected


def test_labels_are_utf8_everywhere(tmp_path, monkeypatch):
    path = tmp_path / 'labels.csv'
    path.write_bytes('id,label\n1,k\xf6ter\n'.encode())

    def ascii_open(*args, encoding=None, _open=open, **kwargs):
        return _open(*args, encoding=encoding or 'ascii', **kwargs)
    monkeypatch.setattr('builtins.open', ascii_open)
    assert read_csv_labels(str(path)) == {'1': 'k\xf6ter'}


@pytest.mark.parametrize('content, fragment', [
    ('id,label\n1,cat\n2\n', "line 3: must have an id and a label, got '2'"),
    ('id,label\n1,cat\n1,dog\n', "line 3: '1' has the labels 'cat' and 'dog'")])
def test_wrong_csv_files(tmp_path, content, fragment):
    path = tmp_path / 'labels.csv'
    path.write_text(content)
    with pytest.raises(ValueError, match=f'read_csv_labels: .*{fragment}'):
        read_csv_labels(str(path))
    with pytest.raises(FileNotFoundError):
        read_csv_labels(str(tmp_path / 'none.csv'))


# Copies

def test_copyfile(tmp_path):
    (tmp_path / 'a.png').write_text('one')
    for text in ('one', 'two'):
        (tmp_path / 'a.png').write_text(text)
        assert copyfile(str(tmp_path / 'a.png'), str(tmp_path / 'x' / 'y')) is None
        assert tree(tmp_path / 'x') == {os.path.join('y', 'a.png'): text.encode()}


def test_a_copy_that_breaks_leaves_nothing(tmp_path, monkeypatch):
    (tmp_path / 'a.png').write_text('new')
    copyfile(str(tmp_path / 'a.png'), str(tmp_path / 'x'))

    def half(source, target):
        with open(target, 'w') as file:
            file.write('n')
        raise OSError('disk full')

    monkeypatch.setattr(shutil, 'copy', half)
    for target in ('x', 'z'):
        with pytest.raises(OSError, match='disk full'):
            copyfile(str(tmp_path / 'a.png'), str(tmp_path / target))
    assert tree(tmp_path / 'x') == {'a.png': b'new'} and not os.listdir(tmp_path / 'z')


# The split

def test_the_first_by_name_are_held_out(data_dir, labels):
    assert reorg_train_valid(data_dir, dict(labels, **{'13': 'dog'}), 0.4) == 2
    parts = split(data_dir)
    # In the order of text: 1, 10, 11, 12, 13, 2, ...
    assert parts['valid'] == {'1.png': 'cat', '2.png': 'cat', '10.png': 'dog', '11.png': 'dog'}
    assert len(parts['train']) == 9 and len(parts['train_valid']) == 13


def test_the_order_of_listdir_does_not_matter(data_dir, labels, monkeypatch):
    reorg_train_valid(data_dir, labels, 0.1)
    expected = tree(os.path.join(data_dir, 'train_valid_test'))
    listdir = os.listdir
    monkeypatch.setattr(os, 'listdir', lambda path='.': sorted(listdir(path), reverse=True))
    reorg_train_valid(data_dir, labels, 0.1)
    monkeypatch.undo()
    assert tree(os.path.join(data_dir, 'train_valid_test')) == expected


@pytest.mark.parametrize('first, second', [(0.9, 0.9), (0.9, 0.2), (0.2, 0.9)])
def test_a_second_run_starts_clean(data_dir, labels, first, second):
    labels = dict(labels, **{'13': 'dog'})
    reorg_train_valid(data_dir, labels, second)
    expected = split(data_dir)
    shutil.rmtree(os.path.join(data_dir, 'train_valid_test'))
    reorg_train_valid(data_dir, labels, first)
    reorg_test(data_dir)
    assert reorg_train_valid(data_dir, labels, second) == int(6 * second)
    parts = split(data_dir)
    assert len(parts.pop('test')) == 3
    assert parts == expected
    assert not set(parts['train']) & set(parts['valid'])


def test_a_label_with_one_picture_keeps_its_number(data_dir, labels):
    """The bird goes to valid; an empty folder in train keeps the classes in line."""
    assert reorg_train_valid(data_dir, labels, 0.1) == 1
    home = os.path.join(data_dir, 'train_valid_test')
    for part in PARTS:
        assert sorted(os.listdir(os.path.join(home, part))) == ['bird', 'cat', 'dog']
    assert os.listdir(os.path.join(home, 'train', 'bird')) == []


def test_labels_of_pictures_that_are_not_there(data_dir, labels):
    """The smallest label counts the pictures, not the lines of the csv file."""
    more = dict({str(i): 'cat' for i in range(100, 200)}, **labels, **{'200': 'fish'})
    more['13'] = 'dog'
    assert reorg_train_valid(data_dir, more, 0.5) == 3
    assert set(split(data_dir)['train_valid'].values()) == {'cat', 'dog'}


def test_test_pictures(data_dir):
    for _ in range(2):
        assert reorg_test(data_dir) is None
    assert split(data_dir) == {'test': dict.fromkeys(['1.png', '2.png', '3.png'], 'unknown')}
    os.unlink(os.path.join(data_dir, 'test', '2.png'))
    reorg_test(data_dir)
    assert sorted(split(data_dir)['test']) == ['1.png', '3.png']


def test_hidden_files_and_folders_are_no_pictures(data_dir, labels):
    for part in ('train', 'test'):
        os.mkdir(os.path.join(data_dir, part, 'folder'))
        with open(os.path.join(data_dir, part, '.DS_Store'), 'w') as file:
            file.write('x')
    reorg_train_valid(data_dir, labels, 0.1)
    reorg_test(data_dir)
    parts = split(data_dir)
    assert len(parts['train_valid']) == 13 and len(parts['test']) == 3


def test_a_run_that_fails_changes_nothing(data_dir, labels, monkeypatch):
    reorg_train_valid(data_dir, labels, 0.1)
    reorg_test(data_dir)
    before = tree(data_dir)
    del labels['7']
    with pytest.raises(ValueError, match=r'reorg_train_valid: labels must .*7\.png'):
        reorg_train_valid(data_dir, labels, 0.1)
    assert tree(data_dir) == before
    labels['7'], count = 'cat', []

    def fails_late(source, target, real=kaggle.copyfile):
        count.append(source)
        if len(count) == 9:
            raise OSError('disk full')
        real(source, target)

    monkeypatch.setattr(kaggle, 'copyfile', fails_late)
    with pytest.raises(OSError, match='disk full'):
        reorg_train_valid(data_dir, labels, 0.9)
    assert tree(data_dir) == before


def test_what_an_ended_process_left_is_removed(data_dir, labels):
    left = os.path.join(data_dir, 'train_valid_test', '.unfinished', 'new', 'train', 'ghost')
    os.makedirs(left)
    reorg_train_valid(data_dir, labels, 0.1)
    assert sorted(os.listdir(os.path.join(data_dir, 'train_valid_test'))) == sorted(PARTS)
    assert 'ghost' not in os.listdir(os.path.join(data_dir, 'train_valid_test', 'train'))


@pytest.mark.parametrize('ratio', [-0.1, 1.5, float('nan'), '0.1', None, True])
def test_wrong_ratios(data_dir, labels, ratio):
    with pytest.raises(ValueError, match='reorg_train_valid: valid_ratio must'):
        reorg_train_valid(data_dir, labels, ratio)
    assert 'train_valid_test' not in os.listdir(data_dir)


def test_missing_and_empty_folders(tmp_path):
    for part, function in (('train', lambda: reorg_train_valid(str(tmp_path), {}, 0.1)),
                           ('test', lambda: reorg_test(str(tmp_path)))):
        with pytest.raises(FileNotFoundError, match=f"must hold a folder '{part}'"):
            function()
        (tmp_path / part).mkdir()
        with pytest.raises(ValueError, match='must hold pictures, got none'):
            function()
    assert sorted(os.listdir(tmp_path)) == ['test', 'train']
