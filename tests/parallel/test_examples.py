"""The examples of parallel training, run small, as a user runs them."""
import os
import re
import signal
import subprocess
import sys

import pytest

from tests.parallel.jobs import ROOT, Launched, python_path, wait_for

pytestmark = pytest.mark.slow
EXAMPLES = ROOT / 'examples'


def run(example, *arguments, status=0):
    """Run an example without the launcher; its output."""
    done = subprocess.run([sys.executable, str(EXAMPLES / example), *map(str, arguments)],
                          capture_output=True,
                          env=dict(os.environ, PYTHONPATH=python_path()), text=True)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_resnet18_is_the_same_however_it_is_started():
    """On one device, two devices, two workers with a server and, where there is torch, the ring."""
    output = run('resnet18.py', '--compare', '--examples', 24, '--size', 7, '--batch-size', 8,
                 '--steps', 3)
    assert 'the losses of all steps and the weights are the same, to the last bit' in output
    rows = [line.split('|') for line in output.splitlines() if line.startswith('|')][2:]
    assert [row[1].strip() for row in rows][:3] == ['1 device', '2 devices', '2 workers, 1 server']
    assert len({tuple(row[2:5] + row[6:]) for row in rows}) == 1, output
    assert len(set(rows[0][2:5])) == 3


def test_resnet18_needs_shards_for_all_devices():
    assert '--shards must be a multiple of 3' in run('resnet18.py', '--devices', 3, status=1)


def test_bert_survives_the_end_of_a_worker(tmp_path):
    """Weights and losses are those of two devices, where nothing happens, to the last bit."""
    size = ['--steps', 40, '--every', 5, '--batch-size', 6, '--max-len', 24, '--dropout', 0]
    expected = run('bert_small.py', '--devices', 2, '--folder', tmp_path / 'undisturbed', *size)
    with Launched(tmp_path, (EXAMPLES / 'bert_small.py').read_text(), '-n', 2, '-s', 1, '--store',
                  'dist_sync', arguments=['--folder', tmp_path / 'killed', *size]) as job:
        assert wait_for(lambda: list(tmp_path.glob('killed/*.npz')), 60)
        os.kill(job.pid('worker 1'), signal.SIGKILL)
        assert job.finish(120) == 0, job.errors
    assert 'worker 1' in job.events('failure')[0]['text']
    again = re.findall('(\\d+) of 40 steps are done', job.output)
    assert len(again) == 2 and again[0] == '0' and 5 <= int(again[1]) < 40
    weights = re.findall('weights (\\w+)', job.output)
    assert weights == re.findall('weights (\\w+)', expected) * 2
