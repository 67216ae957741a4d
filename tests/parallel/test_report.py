"""What a launcher makes of the heartbeats: the bar, TensorBoard's files, who is silent."""
import json
import sys
import time
from types import ModuleType, SimpleNamespace

import pytest

from d2l import cli
from d2l.parallel import _report, _supervise


def member(rank):
    return _report.Member(SimpleNamespace(name=f'worker {rank}', role='worker'), 'localhost')


@pytest.fixture
def running(monkeypatch):
    """Two workers after 4 s, in which they did 8 steps of 10 and of 30 examples; loss is nan."""
    now = [100.0]
    monkeypatch.setattr(_report.time, 'monotonic', lambda: now[0])
    workers = [member(0), member(1)]
    for step in (2, 10):
        for worker, examples in zip(workers, (10, 30)):
            worker.beat({'step': step, 'examples': examples * step,
                         'numbers': {'loss': 0.5, 'norm': 'nan'}})
        now[0] += 4
    return workers


def test_the_bar_has_the_spread(tmp_path, running, monkeypatch):
    """The slowest and the fastest worker, in examples a second."""
    shown = {}
    report = _report.Report(str(tmp_path / 'job'), ['x.py'])
    report._bar = SimpleNamespace(set_postfix=shown.update, close=lambda: None)
    report.progress(running)
    assert report._bar.n == 10
    assert shown == {'loss': 0.5, 'norm': 'nan', 'examples_per_s': 80.0, 'workers': '20..60'}
    report.end(running, 'done', 0)
    found = [json.loads(line) for line in (tmp_path / 'job' / 'events.jsonl').open()]
    assert (found[0]['slowest'], found[0]['fastest'], found[0]['steps_per_s']) == (20, 60, 2)


def test_tensorboard(tmp_path, running, monkeypatch):
    """A stand-in for tensorboardX: each number once a step, the writer closed at the end."""
    calls, module = [], ModuleType('tensorboardX')

    class SummaryWriter:
        def __init__(self, folder):
            calls.append(folder)

        def add_scalar(self, *args):
            calls.append(args)

        def close(self):
            calls.append('closed')
    module.SummaryWriter = SummaryWriter
    monkeypatch.setitem(sys.modules, 'tensorboardX', module)
    report = _report.Report(str(tmp_path / 'job'), ['x.py'], board=True)
    report.progress(running)
    report.progress(running)  # no step since
    report.end(running, 'done', 0)
    assert calls[0] == str(tmp_path / 'job' / 'tensorboard') and calls[-1] == 'closed'
    numbers = {name: value for name, value, step in calls[1:-1] if step == 10}
    assert len(numbers) == len(calls) - 2 and str(numbers.pop('norm')) == 'nan'
    assert numbers == {'loss': 0.5, 'steps_per_s': 2.0, 'examples_per_s': 80.0, 'slowest': 20.0,
                       'fastest': 60.0}


def test_tensorboard_is_not_installed(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, 'tensorboardX', None)
    (tmp_path / 'x.py').write_text('')
    assert cli.main(['launch', '--tensorboard', '--logs', str(tmp_path / 'job'),
                     str(tmp_path / 'x.py')]) == 2
    assert "--tensorboard needs tensorboardX: pip install 'd2l-gluon[viz]'" in (
        capsys.readouterr().err)
    assert not (tmp_path / 'job').exists()


def test_a_process_without_a_heartbeat():
    """Six heartbeat timeouts after the last one; not one that has ended, leaves or starts."""
    job = SimpleNamespace(args=SimpleNamespace(heartbeat_timeout=10))
    attempt = _supervise.Attempt(job, None, None, 0)
    attempt.members = workers = [member(rank) for rank in range(5)]
    now = time.monotonic()
    for worker in workers:
        worker.connected, worker.heard = True, now - 60.5
    workers[0].heard = now - 59.5
    workers[2].leaving, workers[3].status, workers[4].connected = True, 0, False
    with pytest.raises(_supervise.Failure, match='^worker 1 sent no heartbeat for 60 s$') as found:
        attempt._check_silence(now)
    assert (found.value.status, found.value.again, found.value.hung) == (124, True, ['worker 1'])
    workers[1].heard = now
    attempt._check_silence(now)
