"""Files that are damaged, empty or of another kind: the error names them, and nothing is left."""
import io
import os
import pathlib
import tarfile
import zipfile

import pytest

from d2l import mxnet as d2l
from d2l.utils import hub

# hub name -> what reads it, the archive, and a file in it that is read as text.
ARCHIVES = {
    'fra-eng': (lambda: d2l.load_data_nmt(2, 4), 'fra-eng.zip', 'fra-eng/fra.txt'),
    'bananas': (lambda: d2l.load_data_bananas(2, 8), 'bananas.zip', None),
    'voc2012': (lambda: d2l.load_data_voc(2, (8, 8)), 'VOCtrainval_11-May-2012.tar',
                'VOCdevkit/VOC2012/ImageSets/Segmentation/train.txt'),
    'ptb': (lambda: d2l.load_data_ptb(2, 2, 2), 'ptb.zip', 'ptb/ptb.train.txt'),
    'wikitext-2': (lambda: d2l.load_data_wiki(2, 32), 'wikitext-2-v1.zip',
                   'wikitext-2/wiki.train.tokens'),
    'aclImdb': (lambda: d2l.load_data_imdb(2), 'aclImdb_v1.tar.gz', 'aclImdb/train/pos/1.txt'),
    'SNLI': (lambda: d2l.load_data_snli(2), 'snli_1.0.zip', 'snli_1.0/snli_1.0_train.txt'),
    'ml-100k': (lambda: d2l.split_and_load_ml100k(), 'ml-100k.zip', 'ml-100k/u.data'),
    'glove.6b.50d': (lambda: d2l.TokenEmbedding('glove.6b.50d'), 'glove.6B.50d.zip',
                     'glove.6B.50d/vec.txt')}
NOT_UTF8 = b'one \xff two\tthree\n'
# A review may hold anything that is text.
TEXTS = [(name, content) for name, entry in ARCHIVES.items() if entry[2]
         for content in (b'', NOT_UTF8, b'\0\1\2\n\n')
         if name != 'aclImdb' or content == NOT_UTF8]


@pytest.fixture
def place(hub_data, tmp_path, monkeypatch):
    """Return a function that puts a file where the hub looks for it."""
    hub_data(real=False)
    folder = tmp_path / 'brought'
    folder.mkdir()
    monkeypatch.setenv('D2L_DATA', str(folder))
    return lambda name, content: (folder / name).write_bytes(content)


def pack(name, members):
    """The bytes of an archive of the kind that the name says."""
    buffer = io.BytesIO()
    if name.endswith('.zip'):
        with zipfile.ZipFile(buffer, 'w') as archive:
            for member, content in members.items():
                archive.writestr(member, content)
    else:
        with tarfile.open(fileobj=buffer, mode='w:gz' if name.endswith('gz') else 'w') as archive:
            for member, content in members.items():
                info = tarfile.TarInfo(member)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def left_in_cache():
    return sorted(str(path) for path in pathlib.Path('../data').rglob('*') if path.is_file())


@pytest.mark.parametrize('name', ARCHIVES)
def test_a_broken_archive(name, place):
    read, archive, member = ARCHIVES[name]
    whole = pack(archive, {member or 'bananas/train.rec': os.urandom(30000)})
    for content in (b'', b'no archive', whole[:len(whole) // 2]):
        place(archive, content)
        with pytest.raises((hub.ArchiveError, OSError)) as caught:
            read()
        assert archive in str(caught.value)
        assert left_in_cache() == []


@pytest.mark.parametrize('name', ARCHIVES)
def test_an_archive_of_something_else(name, place):
    read, archive, _ = ARCHIVES[name]
    place(archive, pack(archive, {'something/else.txt': b'1'}))
    with pytest.raises((ValueError, OSError)) as caught:
        read()
    assert archive in str(caught.value) and 'something' in str(caught.value)


@pytest.mark.parametrize('name', ARCHIVES)
def test_a_folder_without_its_files(name, place):
    read, archive, member = ARCHIVES[name]
    folder = (member or 'bananas/x').split('/')[0]
    folder = 'VOCdevkit/VOC2012' if name == 'voc2012' else folder
    place(archive, pack(archive, {f'{folder}/readme': b'1'}))
    with pytest.raises((ValueError, OSError)) as caught:
        read()
    assert folder.split('/')[0] in str(caught.value)


@pytest.mark.parametrize('name, content', TEXTS)
def test_a_text_of_another_kind(name, content, place):
    read, archive, member = ARCHIVES[name]
    members = {member: content}
    if name == 'aclImdb':
        members['aclImdb/train/neg/1.txt'] = b'fine'
    place(archive, pack(archive, members))
    with pytest.raises((ValueError, OSError)) as caught:
        read()
    assert os.path.basename(member) in str(caught.value), str(caught.value)


@pytest.mark.parametrize('read, name', [
    (d2l.read_time_machine, 'timemachine.txt'), (d2l.get_data_ch11, 'airfoil_self_noise.dat')],
    ids=['time machine', 'airfoil'])
def test_a_single_file_of_another_kind(read, name, place):
    for content in (NOT_UTF8, NOT_UTF8 + b'\xe9' * 10):
        place(name, content)
        with pytest.raises(ValueError) as caught:
            read()
        assert name in str(caught.value), str(caught.value)


@pytest.mark.parametrize('read', [d2l.read_csv_labels, d2l.CTRDataset],
                         ids=['read_csv_labels', 'CTRDataset'])
def test_a_table_of_another_kind(read, tmp_path):
    path = tmp_path / 'table.csv'
    path.write_bytes(NOT_UTF8 * 2)
    with pytest.raises(ValueError, match='table.csv'):
        read(str(path))


def test_copies_are_whole_or_absent(tmp_path):
    with pytest.raises(OSError):
        d2l.copyfile(str(tmp_path / 'missing'), str(tmp_path / 'copies'))
    (tmp_path / 'data' / 'train').mkdir(parents=True)
    with pytest.raises(ValueError):
        d2l.reorg_train_valid(str(tmp_path / 'data'), {}, 0.1)
    assert [path for path in tmp_path.rglob('*') if path.is_file()] == []
    assert not (tmp_path / 'data' / 'train_valid_test').exists()
