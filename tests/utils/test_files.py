"""Folders, checksums and locks."""
import hashlib
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import pytest

import d2l
from d2l.utils import files


def test_mkdir_if_not_exist(tmp_path):
    for _ in range(2):
        assert files.mkdir_if_not_exist(str(tmp_path / 'a' / 'b')) is None
    files.mkdir_if_not_exist([str(tmp_path), 'a', 'c'])
    files.mkdir_if_not_exist((str(tmp_path), 'd'))
    files.mkdir_if_not_exist(tmp_path / 'e')
    assert sorted(os.listdir(tmp_path)) == ['a', 'd', 'e']
    assert sorted(os.listdir(tmp_path / 'a')) == ['b', 'c']
    with pytest.raises(ValueError, match='at least one part'):
        files.mkdir_if_not_exist([])
    (tmp_path / 'file').write_bytes(b'')
    with pytest.raises(FileExistsError):
        files.mkdir_if_not_exist(tmp_path / 'file')


def test_mkdir_if_not_exist_while_another_process_makes_it(tmp_path, monkeypatch):
    """As if the folder came up just after somebody looked."""
    monkeypatch.setattr(os.path, 'exists', lambda path: False)
    files.mkdir_if_not_exist(str(tmp_path))


def test_sha1_notices_every_change(tmp_path):
    """Even one within a tick of the clock that leaves the size as it was."""
    path = tmp_path / 'file'
    now = time.time_ns()
    for content in (b'abc', b'abd', b'abe'):
        path.write_bytes(content)
        os.utime(path, ns=(now, now))
        assert files.sha1_of(str(path)) == hashlib.sha1(content).hexdigest()


def test_sha1_of_a_settled_file_is_remembered(monkeypatch, tmp_path):
    path = tmp_path / 'file'
    path.write_bytes(b'abc')
    os.utime(path, (1e9, 1e9))
    expected = files.sha1_of(str(path))
    monkeypatch.setattr(files, '_read_sha1', None)
    assert files.sha1_of(str(path)) == expected


def test_replace_synced(tmp_path):
    (tmp_path / 'new').write_bytes(b'new')
    (tmp_path / 'old').write_bytes(b'old')
    files.replace_synced(str(tmp_path / 'new'), str(tmp_path / 'old'))
    assert os.listdir(tmp_path) == ['old']
    assert (tmp_path / 'old').read_bytes() == b'new'


def test_one_holder_at_a_time(tmp_path):
    """Threads that lock, and remove, the same file many times: never two at once."""
    path = str(tmp_path / 'lock')
    inside, most, waited = [], [], []

    def work():
        for _ in range(100):
            with files.file_lock(path, lambda: waited.append(1)):
                inside.append(1)
                most.append(len(inside))
                time.sleep(0.0001)
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert len(most) == 400 and max(most) == 1
    assert waited
    assert os.listdir(tmp_path) == []


def test_the_lock_of_a_killed_process_is_free(tmp_path):
    program = ('import sys, time\nfrom d2l.utils.files import file_lock\n'
               'with file_lock(sys.argv[1]):\n    print("held", flush=True)\n    time.sleep(60)\n')
    environment = dict(os.environ, PYTHONPATH=str(pathlib.Path(d2l.__file__).parent.parent))
    process = subprocess.Popen([sys.executable, '-c', program, str(tmp_path / 'lock')],
                               env=environment, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b'held\n'
    waited = []
    timer = threading.Timer(0.2, process.send_signal, (signal.SIGKILL,))
    timer.start()
    with files.file_lock(str(tmp_path / 'lock'), lambda: waited.append(1)):
        assert waited
    process.communicate(timeout=30)


def test_open_text_names_a_file_that_is_not_utf8(tmp_path):
    path = tmp_path / 'text.txt'
    path.write_bytes('\ufeffid\r\n'.encode())
    with files.open_text(path, encoding='utf-8-sig', newline='') as file:
        assert file.read() == 'id\r\n'
    assert file.closed
    path.write_bytes(b'a\xff')
    with pytest.raises(ValueError, match='text.txt is not UTF-8'):
        with files.open_text(path) as file:
            file.read()
    assert file.closed
