"""The hub: entries, samples, and unpacked archives."""
import hashlib
import logging
import os
import pathlib
import tarfile
import zipfile

import pytest

import d2l
from d2l.utils import _search, hub

BODY = b'a file of the reader'
SHA1 = hashlib.sha1(BODY).hexdigest()


@pytest.fixture(autouse=True)
def _only_the_cache(monkeypatch):
    """No network, no folders of this machine."""
    monkeypatch.setenv('D2L_OFFLINE', '1')
    monkeypatch.delenv('D2L_DATA', raising=False)
    monkeypatch.setattr(_search, 'SYSTEM_FOLDERS', ())


def make_zip(path, members):
    with zipfile.ZipFile(path, 'w') as file:
        for name, text in members.items():
            file.writestr(name, text)
    return hashlib.sha1(path.read_bytes()).hexdigest()


# Entries

def test_all_entries_of_the_book_are_there():
    names = ['kaggle_house_train', 'kaggle_house_test', 'time_machine', 'fra-eng', 'airfoil',
             'hotdog', 'bananas', 'voc2012', 'cifar10_tiny', 'dog_tiny', 'ptb', 'glove.6b.50d',
             'glove.6b.100d', 'glove.42b.300d', 'wiki.en', 'wikitext-2', 'aclImdb', 'SNLI',
             'ml-100k', 'ctr', 'pokemon']
    assert set(names) <= set(hub.DATA_HUB)
    for name in names:
        item = hub.resource(name)
        assert item.urls[0].startswith('https://')
        assert all(url.rsplit('/', 1)[1] == item.filename for url in item.urls)


def test_a_reader_adds_an_entry(monkeypatch, tmp_path):
    monkeypatch.setitem(hub.DATA_HUB, 'mine', (hub.DATA_URL + 'mine%20too.bin?x=1', SHA1.upper()))
    (tmp_path / 'mine too.bin').write_bytes(BODY)
    assert hub.download('mine', str(tmp_path)) == str(tmp_path / 'mine too.bin')


@pytest.mark.parametrize('name, fragment', [
    ('timemachine', "did you mean 'time_machine'"), ('snli', "'SNLI'"), ('qqqqqq', 'voc2012')])
def test_an_unknown_name_gets_near_matches(name, fragment):
    with pytest.raises(KeyError) as error:
        hub.download(name)
    assert fragment in str(error.value)
    assert name in str(error.value)


@pytest.mark.parametrize('entry, fragment', [
    ('http://x/y', 'must be'), (('http://x/y', 'abc'), '40'), (('http://x/', SHA1), 'file name'),
    (('http://x/..', SHA1), 'file name'), (('http://x/a%2Fb', SHA1), 'file name')])
def test_a_malformed_entry_is_refused(monkeypatch, entry, fragment):
    monkeypatch.setitem(hub.DATA_HUB, 'mine', entry)
    with pytest.raises(ValueError, match=fragment):
        hub.download('mine')


def test_download_all_goes_on_and_reports(monkeypatch, tmp_path):
    entries = {name: hub.DATA_HUB[name] for name in ('ptb', 'airfoil', 'ctr')}
    monkeypatch.setattr(hub, 'DATA_HUB', entries)
    with pytest.raises(hub.DataNotFoundError) as error:
        hub.download_all(str(tmp_path))
    assert 'ptb.zip' in str(error.value) and 'ctr.zip' in str(error.value)
    assert 'airfoil' not in str(error.value)


# Samples

@pytest.mark.parametrize('name', ['time_machine', 'airfoil', 'fra-eng'])
def test_the_use_of_a_sample_is_logged(name, tmp_path, caplog):
    path = hub.download(name, str(tmp_path))
    assert os.path.getsize(path) > 10_000
    record, = caplog.records
    assert record.levelno == logging.WARNING
    message = record.getMessage()
    assert 'the sample that ships' in message and os.path.basename(path) in message
    whole = _search.sha1_of(path) == hub.DATA_HUB[name][1]
    assert whole == ('complete' in message)
    assert whole or '12,000 of 167,130' in message


def test_samples_are_small_and_licensed():
    folder = pathlib.Path(d2l.__file__).parent / 'samples'
    files = [path for path in folder.rglob('*') if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 6_000_000
    for entry in _search.sample_index().values():
        path = folder / entry['file']
        assert hashlib.sha1(path.read_bytes()).hexdigest() == entry['sha1']
        assert (path.parent / 'LICENSE').is_file()


# Unpacking

@pytest.fixture
def boxed(monkeypatch, tmp_path):
    """An archive ``box.zip`` in the cache, known as ``box``."""
    sha1 = make_zip(tmp_path / 'box.zip', {'box/a.txt': 'a', 'box/sub/b.txt': 'b', 'top.txt': 't'})
    monkeypatch.setitem(hub.DATA_HUB, 'box', ('https://x.invalid/box.zip', sha1))
    return tmp_path


def test_unpacked_once(boxed, caplog):
    folder = hub.download_extract('box', cache_dir=str(boxed))
    assert folder == str(boxed / 'box')
    assert (boxed / 'box' / 'sub' / 'b.txt').read_text() == 'b'
    (boxed / 'box' / 'a.txt').write_text('edited by the reader')
    (boxed / 'box.zip').unlink()
    assert hub.download_extract('box', cache_dir=str(boxed)) == folder
    assert (boxed / 'box' / 'a.txt').read_text() == 'edited by the reader'
    assert hub.download_extract('box', 'box/sub', str(boxed)) == str(boxed / 'box' / 'sub')
    assert not caplog.records


def test_an_archive_with_two_endings_is_named_after_its_folder(monkeypatch, tmp_path):
    (tmp_path / 'a.txt').write_text('a')
    with tarfile.open(tmp_path / 'tub.tar.gz', 'w:gz') as file:
        file.add(str(tmp_path / 'a.txt'), 'tub/a.txt')
    sha1 = hashlib.sha1((tmp_path / 'tub.tar.gz').read_bytes()).hexdigest()
    monkeypatch.setitem(hub.DATA_HUB, 'tub', ('https://x.invalid/tub.tar.gz', sha1))
    assert hub.download_extract('tub', cache_dir=str(tmp_path)) == str(tmp_path / 'tub')


def test_missing_files_are_unpacked_anew(boxed):
    hub.download_extract('box', cache_dir=str(boxed))
    (boxed / 'box' / 'a.txt').unlink()
    (boxed / 'box' / 'mine.txt').write_text('mine')
    hub.download_extract('box', cache_dir=str(boxed))
    assert (boxed / 'box' / 'a.txt').read_text() == 'a'
    assert (boxed / 'box' / 'mine.txt').read_text() == 'mine'


def test_a_folder_that_the_archive_does_not_hold(boxed):
    with pytest.raises(ValueError, match='holds box, top.txt'):
        hub.download_extract('box', 'bax', str(boxed))


def test_only_archives_are_unpacked(tmp_path):
    with pytest.raises(ValueError, match='timemachine.txt'):
        hub.download_extract('time_machine', cache_dir=str(tmp_path))


def test_a_folder_brought_by_hand_is_better_than_a_sample(tmp_path, caplog):
    (tmp_path / 'fra-eng').mkdir()
    (tmp_path / 'fra-eng' / 'fra.txt').write_text('mine', encoding='utf-8')
    assert hub.download_extract('fra-eng', cache_dir=str(tmp_path)) == str(tmp_path / 'fra-eng')
    assert (tmp_path / 'fra-eng' / 'fra.txt').read_text(encoding='utf-8') == 'mine'
    assert caplog.records[-1].levelno == logging.WARNING


def test_a_folder_brought_by_hand_where_there_is_no_sample(tmp_path):
    (tmp_path / 'pokemon').mkdir()
    assert hub.download_extract('pokemon', cache_dir=str(tmp_path)) == str(tmp_path / 'pokemon')


def test_a_sample_is_unpacked_and_gives_way_to_the_whole(monkeypatch, tmp_path, caplog):
    cache = tmp_path / 'cache'
    for _ in range(2):
        caplog.clear()
        folder = hub.download_extract('fra-eng', cache_dir=str(cache))
        assert 'the sample that ships' in caplog.text
    lines = pathlib.Path(folder, 'fra.txt').read_text(encoding='utf-8').split('\n')
    assert len(lines) == 12_001 and lines[0] == 'Go.\tVa !'
    sha1 = make_zip(tmp_path / 'fra-eng.zip', {'fra-eng/fra.txt': 'the whole'})
    monkeypatch.setitem(hub.DATA_HUB, 'fra-eng', (hub.DATA_HUB['fra-eng'][0], sha1))
    monkeypatch.setenv('D2L_DATA', str(tmp_path))
    hub.download_extract('fra-eng', cache_dir=str(cache))
    assert pathlib.Path(folder, 'fra.txt').read_text(encoding='utf-8') == 'the whole'
    assert not pathlib.Path(folder, '_about.txt').exists()


def test_a_sample_that_lost_a_file_is_unpacked_anew(tmp_path):
    folder = pathlib.Path(hub.download_extract('fra-eng', cache_dir=str(tmp_path)))
    (folder / 'fra.txt').unlink()
    hub.download_extract('fra-eng', cache_dir=str(tmp_path))
    assert (folder / 'fra.txt').is_file()


def test_real_files_with_another_checksum_come_through_d2l_data(monkeypatch, shared_data, tmp_path,
                                                                caplog):
    monkeypatch.setenv('D2L_DATA', str(shared_data))
    folder = hub.download_extract('fra-eng', cache_dir=str(tmp_path))
    assert os.path.getsize(os.path.join(folder, 'fra.txt')) > 10_000_000
    assert 'cf93c950315f08e1c44afae008404cfd13585b70' in caplog.text
    hub.download('kaggle_house_train', str(tmp_path))
    assert caplog.text.count('\n') == 1
