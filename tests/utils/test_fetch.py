"""Fetching from a loopback server that misbehaves, and several processes at once."""
import hashlib
import http.server
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
import types

import pytest

import d2l
from d2l.utils import _fetch, _search, hub

BODY = bytes(range(256)) * 2000  # half a megabyte: several chunks
SHA1 = hashlib.sha1(BODY).hexdigest()
REPOSITORY = str(pathlib.Path(d2l.__file__).parent.parent)


class Loopback:
    """A server whose answers are scripted: one entry of ``script`` a request, then plain ones.

    An entry is a status, or one of: ok, truncate, wrong, ignore-range, bad-range, stall, hold.
    """

    def __init__(self):
        self.script = []
        self.ranges = []
        self.release = threading.Event()
        loopback = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                loopback.answer(self)

            def log_message(self, *args):
                pass

        self._server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        self.url = f'http://127.0.0.1:{self._server.server_port}/'

    def close(self):
        self.release.set()
        self._server.shutdown()
        self._server.server_close()

    def answer(self, handler):
        asked = handler.headers.get('Range')
        self.ranges.append(asked)
        step = self.script.pop(0) if self.script else 'ok'
        if isinstance(step, int):
            handler.send_error(step)
            return
        begin = int(asked[len('bytes='):-1]) if asked and step != 'ignore-range' else 0
        if begin >= len(BODY):
            handler.send_error(416)
            return
        body = (b'x' * len(BODY) if step == 'wrong' else BODY)[begin:]
        handler.send_response(206 if begin else 200)
        if begin:
            shown = begin + 1 if step == 'bad-range' else begin
            handler.send_header('Content-Range', f'bytes {shown}-{len(BODY) - 1}/{len(BODY)}')
        handler.send_header('Content-Length', str(len(body)))
        handler.end_headers()
        half = len(body) // 2
        if step in ('truncate', 'stall', 'hold'):
            handler.wfile.write(body[:half])
            handler.wfile.flush()
        if step == 'truncate':
            return
        if step in ('stall', 'hold'):
            self.release.wait(20)
            body = body[half:]
        try:
            handler.wfile.write(body)
        except OSError:
            pass


@pytest.fixture(autouse=True)
def _only_the_network(monkeypatch):
    for variable in ('D2L_DATA', 'D2L_TIMEOUT', 'D2L_RETRIES', 'D2L_PROGRESS'):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(_search, 'SYSTEM_FOLDERS', ())
    monkeypatch.setattr(_fetch, '_unreachable', {})


@pytest.fixture
def loopback(monkeypatch):
    monkeypatch.setenv('D2L_OFFLINE', '0')
    monkeypatch.setenv('no_proxy', '127.0.0.1')
    server = Loopback()
    monkeypatch.setitem(hub.DATA_HUB, 'thing', (server.url + 'thing.bin', SHA1))
    yield server
    server.close()


@pytest.fixture
def waits(monkeypatch):
    """No waiting between attempts; the list of what each wait was asked with."""
    asked = []
    monkeypatch.setattr(_fetch.Policy, 'wait',
                        lambda self, failures, wish: asked.append((failures, wish)) or 0)
    return asked


def test_a_plain_download(loopback, tmp_path):
    cache = tmp_path / 'new' / 'cache'
    assert hub.download('thing', str(cache)) == str(cache / 'thing.bin')
    assert (cache / 'thing.bin').read_bytes() == BODY
    assert os.listdir(cache) == ['thing.bin']
    hub.download('thing', str(cache))
    assert loopback.ranges == [None]


def test_a_wrong_file_in_the_cache_is_fetched_anew(loopback, tmp_path):
    (tmp_path / 'thing.bin').write_bytes(b'broken')
    hub.download('thing', str(tmp_path))
    assert (tmp_path / 'thing.bin').read_bytes() == BODY


def test_missing_at_the_address(loopback, waits, tmp_path):
    loopback.script = [404]
    with pytest.raises(hub.DataNotFoundError, match='status 404'):
        hub.download('thing', str(tmp_path))
    assert loopback.ranges == [None]
    assert not waits
    assert os.listdir(tmp_path) == []


def test_a_mirror_is_asked_next(monkeypatch, loopback, tmp_path):
    monkeypatch.setitem(hub.MIRRORS, 'thing', (loopback.url + 'mirror/thing.bin',))
    for script in ([404], ['wrong']):
        loopback.script = script
        hub.download('thing', str(tmp_path))
        (tmp_path / 'thing.bin').unlink()
    assert len(loopback.ranges) == 4


def test_a_server_error_is_retried(loopback, waits, tmp_path):
    loopback.script = [500, 503]
    hub.download('thing', str(tmp_path))
    assert [failures for failures, _ in waits] == [1, 2]


def test_retries_end(monkeypatch, loopback, waits, tmp_path):
    monkeypatch.setenv('D2L_RETRIES', '2')
    loopback.script = [500] * 10
    with pytest.raises(hub.DataNotFoundError, match='status 500.*3 attempts'):
        hub.download('thing', str(tmp_path))
    assert len(loopback.ranges) == 3


def test_a_truncated_body_is_resumed(loopback, waits, tmp_path):
    loopback.script = ['truncate', 'truncate']
    hub.download('thing', str(tmp_path))
    assert (tmp_path / 'thing.bin').read_bytes() == BODY
    half = len(BODY) // 2
    assert loopback.ranges == [None, f'bytes={half}-', f'bytes={half + half // 2}-']
    # Progress was made each time, so the patience starts anew.
    assert [failures for failures, _ in waits] == [1, 1]


def test_a_server_that_ignores_range(loopback, waits, tmp_path):
    loopback.script = ['truncate', 'ignore-range']
    hub.download('thing', str(tmp_path))
    assert (tmp_path / 'thing.bin').read_bytes() == BODY
    assert loopback.ranges[1] is not None


def test_a_server_that_sends_another_range(loopback, waits, tmp_path):
    loopback.script = ['truncate', 'bad-range']
    hub.download('thing', str(tmp_path))
    assert (tmp_path / 'thing.bin').read_bytes() == BODY
    assert loopback.ranges[2] is None


@pytest.mark.parametrize('rest', [b'z' * 1000, b'z' * (len(BODY) + 5)])
def test_a_partial_file_that_does_not_fit(loopback, waits, tmp_path, rest):
    """Left by an interrupted transfer of other content, or too long."""
    (tmp_path / f'.thing.bin.{SHA1[:12]}.part').write_bytes(rest)
    hub.download('thing', str(tmp_path))
    assert (tmp_path / 'thing.bin').read_bytes() == BODY
    assert os.listdir(tmp_path) == ['thing.bin']


def test_a_partial_file_that_is_whole_already(loopback, tmp_path):
    (tmp_path / f'.thing.bin.{SHA1[:12]}.part').write_bytes(BODY)
    hub.download('thing', str(tmp_path))
    assert os.listdir(tmp_path) == ['thing.bin']
    assert not loopback.ranges


def test_a_wrong_checksum_never_gets_the_name(loopback, waits, tmp_path):
    loopback.script = ['wrong'] * 10
    wrong = hashlib.sha1(b'x' * len(BODY)).hexdigest()
    with pytest.raises(hub.DataNotFoundError, match=wrong):
        hub.download('thing', str(tmp_path))
    assert os.listdir(tmp_path) == []


def test_a_server_that_falls_silent(monkeypatch, loopback, waits, tmp_path):
    monkeypatch.setenv('D2L_TIMEOUT', '0.3')
    loopback.script = ['stall']
    hub.download('thing', str(tmp_path))
    assert (tmp_path / 'thing.bin').read_bytes() == BODY
    assert len(loopback.ranges) == 2
    assert loopback.ranges[1] is not None


def test_a_host_that_cannot_be_reached_is_left_alone(loopback, waits, tmp_path):
    loopback.close()
    with pytest.raises(hub.DataNotFoundError, match='refused'):
        hub.download('thing', str(tmp_path))
    assert len(waits) == 1
    with pytest.raises(hub.DataNotFoundError, match='not asked'):
        hub.download('thing', str(tmp_path))
    assert len(waits) == 1


def test_a_cache_that_cannot_be_written(loopback, tmp_path):
    (tmp_path / 'file').write_bytes(b'')
    with pytest.raises(hub.DataNotFoundError, match='cannot write'):
        hub.download('thing', str(tmp_path / 'file' / 'cache'))


def test_waits_grow_with_jitter_and_heed_the_server():
    policy = _fetch.Policy()
    waits = [policy.wait(failures, None) for failures in range(1, 9)]
    for failures, wait in enumerate(waits):
        middle = min(2 ** failures, 30)
        assert 0.5 * middle <= wait <= 1.5 * middle
    assert policy.wait(1, None) != policy.wait(1, None)
    assert policy.wait(1, 7.0) == 7.0
    assert policy.wait(1, 1e6) == policy.longest_wait


@pytest.mark.parametrize('variable, value', [
    ('D2L_TIMEOUT', 'soon'), ('D2L_TIMEOUT', '0'), ('D2L_RETRIES', '-1'), ('D2L_RETRIES', '1.5')])
def test_malformed_settings(monkeypatch, variable, value):
    monkeypatch.setenv(variable, value)
    with pytest.raises(ValueError, match=variable):
        _fetch.Policy.from_environment()


@pytest.mark.parametrize('setting, shown', [(None, False), ('1', True), ('0', False)])
def test_progress_bar(monkeypatch, loopback, tmp_path, capsys, setting, shown):
    # A script may have imported it without being a notebook.
    monkeypatch.setitem(sys.modules, 'ipykernel', types.ModuleType('ipykernel'))
    if setting:
        monkeypatch.setenv('D2L_PROGRESS', setting)
    hub.download('thing', str(tmp_path))
    captured = capsys.readouterr()
    assert ('thing.bin' in captured.err) == shown
    assert captured.out == ''


# Several processes

PROGRAM = '''
import logging, sys
logging.basicConfig(level=logging.INFO, stream=sys.stderr)
from d2l.utils import hub
hub.DATA_HUB['thing'] = (sys.argv[1] + 'thing.bin', sys.argv[2])
print(hub.download('thing', sys.argv[3]))
'''


def start_download(loopback, folder):
    environment = dict(os.environ, PYTHONPATH=REPOSITORY)
    return subprocess.Popen([sys.executable, '-c', PROGRAM, loopback.url, SHA1, str(folder)],
                            env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            text=True)


def wait_until(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_two_processes_ask_once(loopback, tmp_path):
    loopback.script = ['hold']
    first = start_download(loopback, tmp_path)
    wait_until(lambda: loopback.ranges)
    second = start_download(loopback, tmp_path)
    for line in second.stderr:
        if 'waiting for another process' in line:
            break
    loopback.release.set()
    for process in (first, second):
        out, err = process.communicate(timeout=30)
        assert process.returncode == 0, err
        assert out.strip() == str(tmp_path / 'thing.bin')
    assert len(loopback.ranges) == 1
    assert os.listdir(tmp_path) == ['thing.bin']


def test_a_killed_process_leaves_nothing_half_done(loopback, tmp_path):
    loopback.script = ['hold']
    process = start_download(loopback, tmp_path)
    part = tmp_path / f'.thing.bin.{SHA1[:12]}.part'
    wait_until(lambda: part.exists() and part.stat().st_size > 0)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)
    assert not (tmp_path / 'thing.bin').exists()
    have = part.stat().st_size
    hub.download('thing', str(tmp_path))
    assert (tmp_path / 'thing.bin').read_bytes() == BODY
    assert loopback.ranges[-1] == f'bytes={have}-'
    assert os.listdir(tmp_path) == ['thing.bin']
