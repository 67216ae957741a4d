"""The training of the fault matrix: ``training.py FOLDER STEPS`` prints a digest of the weights.

It goes on from the newest checkpoint in the folder.  Files that the test puts there ask for an
exception: raise-worker has the last worker raise one, raise-server has the servers.
"""
import hashlib
import os
import sys
import time

from d2l.parallel import job

# isort: off
import numpy
from mxnet import autograd, gluon, np, npx
# isort: on

from d2l.parallel.checkpoint import Checkpoint
from d2l.parallel.trainer import Trainer

BATCH = 32


def main(folder, steps):
    npx.set_np()
    net = gluon.nn.HybridSequential()
    net.add(gluon.nn.Dense(16, activation='relu', in_units=8), gluon.nn.Dense(4, in_units=16))
    net.initialize()
    random = numpy.random.RandomState(0)
    X = random.randn(320, 8).astype('float32')
    y = random.randint(0, 4, 320)
    loss = gluon.loss.SoftmaxCrossEntropyLoss()
    checkpoint = Checkpoint(os.path.join(folder, 'checkpoints'), steps=20, seed=1)
    parameters = list(net.collect_params().values())
    for parameter in parameters:
        values = random.randn(*parameter.shape).astype('float32')
        parameter.set_data(np.array(values * 0.1))
    trainer = Trainer(net, 'adam', {'learning_rate': 0.01}, batch_size=BATCH, kvstore=job.store())
    step = checkpoint.restore(net=net, trainer=trainer) or 0
    while step < steps:
        rows = (numpy.arange(job.rank(), BATCH, job.num_workers()) + step * BATCH) % len(X)
        with autograd.record():
            value = loss(net(np.array(X[rows])), np.array(y[rows]))
        value.backward()
        trainer.step(BATCH)
        step += 1
        job.progress(step, examples=len(rows), loss=value)
        checkpoint.maybe_save(step, net=net, trainer=trainer)
        time.sleep(0.01)
        fail_if_asked(folder, trainer)
    checkpoint.wait()
    digest = hashlib.sha256(b''.join(p.data().asnumpy().tobytes() for p in parameters))
    print('weights', digest.hexdigest())


def fail_if_asked(folder, trainer):
    asked = {name for name in os.listdir(folder) if name.startswith('raise-')}
    if job.restart() == 0 and 'raise-worker' in asked and job.rank() == job.num_workers() - 1:
        note_time(folder)
        raise RuntimeError('asked to')
    if job.restart() == 0 and 'raise-server' in asked and job.rank() == 0:
        note_time(folder)
        trainer._kvstore._connection.command(op='nonsense')


def note_time(folder):
    with open(os.path.join(folder, 'happened'), 'w') as file:
        file.write(str(time.time()))


main(sys.argv[1], int(sys.argv[2]))
