"""The order in which places are searched, and what is said about it."""
import hashlib
import logging
import os
import shutil

import pytest

from d2l.utils import _search, hub
from d2l.utils._fetch import FetchError

BODY = b'the right content'
SHA1 = hashlib.sha1(BODY).hexdigest()


@pytest.fixture(autouse=True)
def _only_the_cache(monkeypatch):
    """No network, no folders of this machine."""
    monkeypatch.setenv('D2L_OFFLINE', '1')
    monkeypatch.delenv('D2L_DATA', raising=False)
    monkeypatch.setattr(_search, 'SYSTEM_FOLDERS', ())


@pytest.fixture
def fetched(monkeypatch):
    """A network that has everything; the list of what was fetched."""
    targets = []

    def fetch(urls, target, sha1s):
        targets.append(target)
        with open(target, 'wb') as file:
            file.write(BODY)

    monkeypatch.setenv('D2L_OFFLINE', '0')
    monkeypatch.setattr(_search, 'fetch', fetch)
    monkeypatch.setitem(hub.DATA_HUB, 'thing', ('https://x.invalid/thing.bin', SHA1))
    return targets


def test_order_and_log_line(monkeypatch, fetched, tmp_path, caplog):
    """The same file in every place: taking one away makes the next one used."""
    caplog.set_level(logging.INFO, 'd2l')
    cache, data, system = (tmp_path / name for name in ('cache', 'data', 'system'))
    for folder in (cache, data, system / 'sub'):
        folder.mkdir(parents=True)
        (folder / 'thing.bin').write_bytes(BODY)
    monkeypatch.setenv('D2L_DATA', os.pathsep.join([str(tmp_path / 'absent'), str(data)]))
    monkeypatch.setattr(_search, 'SYSTEM_FOLDERS', (str(system),))
    for expected in (cache / 'thing.bin', data / 'thing.bin', system / 'sub' / 'thing.bin'):
        caplog.clear()
        assert hub.download('thing', str(cache)) == str(expected)
        record, = caplog.records
        assert str(expected.parent) in record.getMessage()
        assert record.levelno == logging.INFO
        expected.unlink()
    assert not fetched
    caplog.clear()
    assert hub.download('thing', str(cache)) == str(cache / 'thing.bin')
    assert len(fetched) == 1
    message = caplog.records[-1].getMessage()
    assert 'the network' in message
    for step in ('cache', 'D2L_DATA: no such folder', str(system) + ': not there'):
        assert step in message


def test_d2l_data_prefers_the_right_checksum_and_warns_about_another(monkeypatch, fetched,
                                                                     tmp_path, caplog):
    for name, content in (('a', b'other'), ('b', BODY)):
        (tmp_path / name).mkdir()
        (tmp_path / name / 'thing.bin').write_bytes(content)
    monkeypatch.setenv('D2L_DATA', str(tmp_path))
    cache = str(tmp_path / 'cache')
    assert hub.download('thing', cache) == str(tmp_path / 'b' / 'thing.bin')
    assert not caplog.records
    (tmp_path / 'b' / 'thing.bin').unlink()
    assert hub.download('thing', cache) == str(tmp_path / 'a' / 'thing.bin')
    record, = caplog.records
    assert record.levelno == logging.WARNING
    assert hashlib.sha1(b'other').hexdigest() in record.getMessage()
    assert not fetched


def test_a_name_that_other_data_have_too_needs_its_folder(monkeypatch, tmp_path):
    for folder in ('mnist', 'fashion-mnist'):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / 'images.gz').write_bytes(b'unknown')
    item = hub.Resource('images', 'images.gz', SHA1, ('https://x.invalid/',), home='fashion-mnist')
    monkeypatch.setenv('D2L_DATA', str(tmp_path))
    found, = hub.locate([item], str(tmp_path / 'cache'))
    assert found.path == str(tmp_path / 'fashion-mnist' / 'images.gz')
    (tmp_path / 'fashion-mnist' / 'images.gz').unlink()
    with pytest.raises(hub.DataNotFoundError):
        hub.locate([item], str(tmp_path / 'cache'))


def test_a_file_that_is_nowhere(monkeypatch, tmp_path):
    with pytest.raises(OSError) as error:
        hub.download('ptb', str(tmp_path))
    assert isinstance(error.value, hub.DataNotFoundError)
    message = str(error.value)
    for fragment in ('ptb.zip', hub.DATA_HUB['ptb'][0], hub.DATA_HUB['ptb'][1],
                     str(tmp_path / 'ptb.zip'), 'D2L_DATA', 'D2L_OFFLINE'):
        assert fragment in message


def test_an_untrusted_cache_is_kept_and_named_when_nothing_better_comes(tmp_path):
    (tmp_path / 'ptb.zip').write_bytes(b'an error page')
    with pytest.raises(hub.DataNotFoundError) as error:
        hub.download('ptb', str(tmp_path))
    assert hashlib.sha1(b'an error page').hexdigest() in str(error.value)
    assert (tmp_path / 'ptb.zip').read_bytes() == b'an error page'


def test_files_that_belong_together_come_from_several_places(monkeypatch, fetched, tmp_path):
    """Right files count wherever they lie; only the missing one is fetched."""
    names = ('one', 'two', 'three')
    items = [hub.Resource(name, name, SHA1, ('https://x.invalid/' + name,)) for name in names]
    cache, data = tmp_path / 'cache', tmp_path / 'data'
    for folder, name in ((cache, 'one'), (data, 'two')):
        folder.mkdir()
        (folder / name).write_bytes(BODY)
    monkeypatch.setenv('D2L_DATA', str(data))
    found = hub.locate(items, str(cache))
    assert [item.origin for item in found] == ['cache', 'D2L_DATA', 'network']
    assert fetched == [str(cache / 'three')]


def test_samples_replace_all_files_that_belong_together(monkeypatch, tmp_path, caplog):
    items = [hub.resource(name) for name in ('time_machine', 'airfoil')]
    shutil.copy(hub.download('airfoil', str(tmp_path)), str(tmp_path))
    caplog.clear()
    found = hub.locate(items, str(tmp_path), title='both')
    assert [item.origin for item in found] == ['sample', 'sample']
    assert caplog.records[0].getMessage().startswith('both: ')
    assert len(caplog.records) == 1


def test_after_a_failed_fetch_the_rest_is_not_asked_for(monkeypatch, fetched, tmp_path):
    def fetch(urls, target, sha1s):
        fetched.append(target)
        raise FetchError(['https://x.invalid/: gone'])

    monkeypatch.setattr(_search, 'fetch', fetch)
    items = [hub.Resource(name, name, SHA1, ('https://x.invalid/' + name,)) for name in 'ab']
    with pytest.raises(hub.DataNotFoundError, match='gone'):
        hub.locate(items, str(tmp_path))
    assert len(fetched) == 1


@pytest.mark.parametrize('value, offline', [
    ('', False), ('0', False), ('false', False), ('No', False), ('1', True), ('yes', True)])
def test_offline_switch(monkeypatch, value, offline):
    monkeypatch.setenv('D2L_OFFLINE', value)
    assert _search.is_offline() == offline
