"""The training of the fault matrix, which prints a digest of the weights.

    training.py FOLDER STEPS workers|servers

The workers or the servers update.  It goes on from the newest checkpoint in the folder.
Everything that a checkpoint holds counts: a shuffled sampler amid an epoch, Adam's states, a
schedule, dropout, NumPy's and Python's random numbers.  A file ``raise worker 1``, or ``raise
server 0``, in the folder asks for an exception, after the step that it holds.

For the test it notes in the folder: ``happened``, the time of that exception; ``reached``, worker
0's last step in the first start, and whether a checkpoint was being written then; and what each
start finds and restores, ``resumed-RESTART-RANK``.
"""
import hashlib
import json
import os
import random
import sys
import time
import zipfile

from d2l.parallel import job

# isort: off
import numpy
from mxnet import autograd, gluon, lr_scheduler, np, npx
# isort: on

from d2l.parallel.checkpoint import Checkpoint
from d2l.parallel.sampler import DistributedSampler
from d2l.parallel.trainer import Trainer

BATCH, LENGTH, INTERVAL = 32, 330, 20


def main(folder, steps, who):
    npx.set_np()
    net = gluon.nn.HybridSequential()
    net.add(gluon.nn.Dense(16, activation='relu', in_units=8), gluon.nn.Dropout(0.3),
            gluon.nn.Dense(4, in_units=16))
    net.initialize()
    source = numpy.random.RandomState(0)
    X = source.randn(LENGTH, 8).astype('float32')
    y = source.randint(0, 4, LENGTH)
    parameters = list(net.collect_params().values())
    for parameter in parameters:
        values = source.randn(*parameter.shape).astype('float32')
        parameter.set_data(np.array(values * 0.1))
    loss = gluon.loss.SoftmaxCrossEntropyLoss()
    schedule = lr_scheduler.FactorScheduler(step=30, factor=0.7, base_lr=0.02)
    trainer = Trainer(net, 'adam', {'learning_rate': 0.02, 'lr_scheduler': schedule},
                      kvstore=job.store(), update_on_kvstore=who == 'servers')
    sampler = DistributedSampler(LENGTH, BATCH)
    whole = whole_checkpoints(folder)
    checkpoint = Checkpoint(os.path.join(folder, 'checkpoints'), steps=INTERVAL, seed=1)
    step = checkpoint.restore(net=net, trainer=trainer, sampler=sampler) or 0
    note(folder, f'resumed-{job.restart()}-{job.rank()}', whole=whole, step=step)
    while step < steps:
        for rows, labels in sampler.batches(X, y):
            noise = numpy.random.randn(*rows.shape).astype('float32') * 0.1
            with autograd.record():
                value = loss(net((rows + np.array(noise)) * random.uniform(0.9, 1.1)), labels)
            value.backward()
            trainer.step(sampler.global_size)
            step += 1
            # Reading the loss keeps the steps that are asked for near those that are done.
            job.progress(step, examples=len(rows), loss=float(value.mean()))
            checkpoint.maybe_save(step, net=net, trainer=trainer, sampler=sampler)
            if job.rank() == job.restart() == 0:
                note(folder, 'reached', step=step, writing=checkpoint._busy())
            time.sleep(0.01)
            fail_if_asked(folder, step, trainer)
            if step == steps:
                break
    checkpoint.wait()
    digest = hashlib.sha256(b''.join(p.data().asnumpy().tobytes() for p in parameters))
    print('weights', digest.hexdigest())


def whole_checkpoints(folder):
    """The steps whose files are whole, by Python's own reading of them."""
    folder, found = os.path.join(folder, 'checkpoints'), []
    for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else ():
        if name.endswith('.npz'):
            with zipfile.ZipFile(os.path.join(folder, name)) as archive:
                assert archive.testzip() is None, name
            found.append(int(name[len('step-'):-len('.npz')]))
    return found


def fail_if_asked(folder, step, trainer):
    for victim in (f'worker {job.rank()}', 'server 0'):
        path = os.path.join(folder, f'raise {victim}')
        if job.restart() == 0 and os.path.exists(path) and step == int(open(path).read()):
            if victim == 'server 0' and job.rank() == 0:
                note(folder, 'happened', time=time.time())
                trainer._kvstore._connection.command(op='nonsense')
            elif victim != 'server 0':
                note(folder, 'happened', time=time.time())
                raise RuntimeError('asked to')


def note(folder, name, **facts):
    """Write it in one piece, whenever this process is killed."""
    path = os.path.join(folder, name)
    with open(path + '.part', 'w') as file:
        json.dump(facts, file)
    os.replace(path + '.part', path)


main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
