"""From the kill -9 of a worker to the first step after the restart, of a job of two workers.

A row is wall time.  'd2l' holds the launcher's noticing, the end of all processes, their new start
(Python, MXNet, the connections), the checkpoint's restoring and a step; 'first start' is the time
from the command to the first step of the same job, for comparison.

As a script (restart.py FOLDER STEPS) this is a worker of such a job.
"""
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

STORES = {'dist_sync, 2 workers, 1 server': ('--store', 'dist_sync', '-s', '1'),
          'ring, 2 workers': ('--store', 'ring')}
ROOT = Path(__file__).resolve().parents[2]
STEPS = 6


def run_job(options):
    """Run a job whose worker 1 is killed after its third step.

    Returns (seconds to the first step, seconds from the kill to the first step after the restart,
    the steps that rank 0 has done before and after it).
    """
    with tempfile.TemporaryDirectory() as folder:
        begin = time.time()
        subprocess.run(
            [sys.executable, '-m', 'd2l', 'launch', '-n', '2', *options, '--logs',
             folder + '/logs', str(Path(__file__).resolve()), folder, str(STEPS)],
            check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env=dict(os.environ, PYTHONPATH=os.pathsep.join(
                [str(ROOT), os.environ.get('PYTHONPATH', '')]), OMP_NUM_THREADS='1'))
        killed = float(Path(folder, 'killed').read_text())
        lines = [json.loads(line) for line in Path(folder, 'steps').read_text().splitlines()]
    first = lines[0]['time'] - begin
    again = next(line['time'] for line in lines if line['restart'] == 1) - killed
    return first, again, [[line['step'] for line in lines if line['restart'] == i] for i in (0, 1)]


def cases():
    from benchmarks.run import Case
    from d2l.testing import summary_of_times
    for name, options in STORES.items():
        if 'ring' in name and importlib.util.find_spec('torch') is None:
            continue

        def steps(options=options):
            return [run_job(options)[2][-1][-1]]

        def check(results):
            assert results['d2l'] == [STEPS]

        def timed(functions, samples, options=options):
            # The launcher's processes are no children of this one: their CPU time is not known.
            taken = [run_job(options)[:2] for _ in range(min(samples, 5))]
            return {'d2l': summary_of_times([(again, again) for _, again in taken]),
                    'first start': summary_of_times([(first, first) for first, _ in taken])}
        yield Case('kill -9, {}'.format(name), {
            'd2l': steps, 'first start': lambda: [STEPS]}, check, time=timed)  # of the same job


def worker(folder, steps):
    """Train, note the time of each step, and be killed once."""
    from d2l.parallel import job

    # isort: off
    from mxnet import autograd, gluon, np, npx
    # isort: on

    from d2l.parallel.checkpoint import Checkpoint
    from d2l.parallel.trainer import Trainer
    npx.set_np()
    net = gluon.nn.Dense(256, in_units=256)
    net.initialize()
    checkpoint = Checkpoint(os.path.join(folder, 'checkpoints'), steps=1)
    trainer = Trainer(net, 'adam', batch_size=16, kvstore=job.store())
    X = np.ones((8, 256))
    step = checkpoint.restore(net=net, trainer=trainer) or 0
    while step < steps:
        with autograd.record():
            loss = (net(X) ** 2).mean(axis=1)
        loss.backward()
        trainer.step()
        npx.waitall()
        step += 1
        if job.rank() == 0:
            with open(os.path.join(folder, 'steps'), 'a') as file:
                file.write(json.dumps({'restart': job.restart(), 'step': step,
                                       'time': time.time()}) + '\n')
        checkpoint.maybe_save(step, net=net, trainer=trainer)
        if step == 3 and job.rank() == 1 and job.restart() == 0:
            Path(folder, 'killed').write_text(str(time.time()))
            os.kill(os.getpid(), signal.SIGKILL)
    checkpoint.wait()


if __name__ == '__main__':
    worker(sys.argv[1], int(sys.argv[2]))
