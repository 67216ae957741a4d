"""A process's view of its job, launched and not."""
import os
import threading
import time

import mxnet as mx
import pytest
from mxnet import np

from d2l.parallel import job
from tests.parallel.jobs import Served, wait_for


def test_without_a_launcher_there_is_one_worker(monkeypatch):
    for name in [name for name in os.environ if name.startswith('D2L_')]:
        monkeypatch.delenv(name)
    assert not job.launched()
    assert (job.rank(), job.local_rank(), job.num_workers(), job.restart()) == (0, 0, 1, 0)
    assert job.folder() is None and job.store() == 'device' and job.store('local') == 'local'
    threads = threading.active_count()
    job.connect()
    job.start()
    job.formed()
    job.progress(1, loss=0.5)
    job.failed('text')
    job.stop()
    assert threading.active_count() == threads


def test_devices(monkeypatch):
    monkeypatch.setattr(mx.context, 'num_gpus', lambda: 4)
    for local_rank, count, expected in ((0, 1, [mx.gpu(0)]), (1, 2, [mx.gpu(2), mx.gpu(3)]),
                                        (2, 2, [mx.cpu(0), mx.cpu(1)])):
        monkeypatch.setenv('D2L_LOCAL_RANK', str(local_rank))
        assert job.devices(count) == expected


@pytest.fixture
def served(monkeypatch):
    with Served() as served:
        for name, value in dict(CONTROL=served.address, TOKEN='secret', NAME='worker 0',
                                RANK='2', LOCAL_RANK='1', NUM_WORKERS='4', RESTART='3',
                                JOB='/tmp/job', STORE='ring').items():
            monkeypatch.setenv('D2L_' + name, value)
        monkeypatch.setattr(job, '_line', job._Line())
        monkeypatch.setattr(job, 'PERIOD', 0.05)
        yield served
        job.stop()


def test_the_environment_says_which_worker_this_is(served):
    assert job.launched()
    assert (job.rank(), job.local_rank(), job.num_workers(), job.restart()) == (2, 1, 4, 3)
    assert (job.folder(), job.store()) == ('/tmp/job', 'ring')


def test_what_the_launcher_hears(served):
    job.start()
    job.start()
    job.formed()
    for step in range(1, 4):
        job.progress(step, examples=8, loss=np.array([0.25, 0.75]), rate=float('inf'))
    job.failed('x' * 9000)
    job.stop()
    job.progress(9)  # what comes late is not an error
    assert wait_for(lambda: served.heard[-1][1]['type'] == 'leaving')
    kinds = [message['type'] for _, message in served.heard]
    assert [kind for kind in kinds if kind != 'beat'] == ['connected', 'joining', 'formed',
                                                          'exception', 'leaving']
    last = served.heard[-1][1]
    assert (last['step'], last['examples']) == (3, 24)
    assert last['numbers'] == {'loss': 0.5, 'rate': 'inf'}
    assert not [t for t in threading.enumerate() if t.name == 'd2l heartbeat']


def test_the_heart_beats(served):
    job.connect()
    assert len(served.wait(4)) >= 4
    assert {message['type'] for _, message in served.heard[1:]} == {'beat'}


def test_numbers_are_looked_at_now_and_then(served, monkeypatch):
    looks = []

    class Loss:
        def __float__(self):
            looks.append(time.monotonic())
            return 1.0
    monkeypatch.setattr(job, 'PERIOD', 60)
    for step in range(100):
        job.progress(step, loss=Loss())
    assert len(looks) == 1 and job._line._step == 99


def test_a_forked_process_says_nothing(served):
    job.connect()
    pid = os.fork()
    if pid == 0:
        job.progress(7)
        job.failed('child')
        job.stop()
        os._exit(0)
    os.waitpid(pid, 0)
    time.sleep(0.1)
    assert {message['type'] for _, message in served.heard} <= {'connected', 'beat'}
    assert all(message.get('step') is None for _, message in served.heard)


def test_a_wrong_token_is_an_error(served, monkeypatch):
    monkeypatch.setenv('D2L_TOKEN', 'other')
    with pytest.raises(RuntimeError, match='job.start'):
        job.start()
