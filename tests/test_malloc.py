"""d2l/_malloc.py: page faults of large arrays, with and without it, in fresh processes."""
import os
import subprocess
import sys
from pathlib import Path

import pytest

from d2l import _malloc

ROOT = Path(__file__).resolve().parents[1]
# NumPy's arrays come from the same malloc.  Four arrays of 16 MiB, let go in another order.
COUNT = '''
import resource, sys
sys.path.insert(0, {root!r})
from d2l import _malloc
import numpy
report = _malloc.keep_large_blocks()
def work():
    for _ in range(10):
        arrays = [numpy.ones((4096, 1024), 'float32') for _ in range(4)]
        del arrays[1], arrays[0], arrays[1], arrays[0]
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
work()
before = faults()
work()
print(report['set_by'], report['kept_bytes'] or 0, faults() - before)
'''
PAGES = 40 * (16 << 20) // 4096  # of all arrays of one work()


def run(**variables):
    """set_by, kept_bytes and the page faults of ten rounds."""
    environ = {name: value for name, value in os.environ.items()
               if not name.startswith('MALLOC_') and name not in ('GLIBC_TUNABLES', 'D2L_MALLOC')}
    out = subprocess.check_output([sys.executable, '-c', COUNT.format(root=str(ROOT))], text=True,
                                  env=dict(environ, **variables))
    set_by, kept, faults = out.split()
    return set_by, int(kept), int(faults)


def test_large_arrays_keep_their_pages():
    set_by, kept, faults = run()
    assert set_by == 'd2l' and 0 < kept <= 1 << 30
    if kept < 128 << 20:
        pytest.skip('this machine has too little memory to keep the test\'s arrays')
    assert faults < PAGES / 100


@pytest.mark.parametrize('variable, value', [
    ('D2L_MALLOC', '0'), ('MALLOC_TRIM_THRESHOLD_', '131072'),
    ('GLIBC_TUNABLES', 'glibc.malloc.trim_threshold=131072')])
def test_what_the_user_has_set_stays(variable, value):
    set_by, kept, faults = run(**{variable: value})
    assert (set_by, kept) == ('user', 0) and faults > PAGES / 20


def test_checks_of_malloc_are_no_setting_of_it(monkeypatch):
    monkeypatch.setenv('MALLOC_CHECK_', '0')
    assert not _malloc._user_has_set()


@pytest.mark.parametrize('memory, kept', [(1 << 40, 1 << 30), (4 << 30, 512 << 20)])
@pytest.mark.parametrize('old', [False, True])
def test_a_small_machine_keeps_less(monkeypatch, memory, kept, old):
    """old: a glibc that refuses a threshold above half of what a heap of its own may have."""
    called = {}

    class Libc:
        def __init__(self, name):
            pass

        def mallopt(self, option, value):
            if old and option == -3 and value > 32 << 20:
                return 0
            called[option] = value
            return 1

    monkeypatch.setattr(_malloc.ctypes, 'CDLL', Libc)
    monkeypatch.setattr(_malloc, '_user_has_set', lambda: False)
    monkeypatch.delenv('D2L_MALLOC', raising=False)
    assert _malloc.keep_large_blocks(memory) == {'kept_bytes': kept, 'set_by': 'd2l'}
    # What mallopt takes is an int.
    assert called == {-8: 1, **({-4: 0} if old else {-3: kept}), -1: kept, -2: 64 << 20}


def test_another_libc_is_left_alone(monkeypatch):
    monkeypatch.setattr(_malloc.ctypes, 'CDLL', lambda name: object())
    monkeypatch.setattr(_malloc, '_user_has_set', lambda: False)
    monkeypatch.delenv('D2L_MALLOC', raising=False)
    assert _malloc.keep_large_blocks() == {'kept_bytes': None, 'set_by': 'libc'}
