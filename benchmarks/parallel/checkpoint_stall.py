"""What a checkpoint costs a training: the same steps with one at the first of them, and without.

A row is the time of all these steps.  The difference of the two wall times is the stall: what
`save` takes, what the thread takes from the steps after it, and the rest of its writing, if the
steps end before.  At one checkpoint a minute it must stay below 1 % of that, 600 ms.  The row
'call of save' is its first part.
"""
import atexit
import shutil
import tempfile
import time

import mxnet as mx
import numpy as onp
from mxnet import gluon, np
from mxnet.gluon import nn

from benchmarks.run import Case
from d2l.parallel.checkpoint import Checkpoint
from d2l.parallel.data_parallel import forward_backward
from d2l.parallel.trainer import Trainer
from d2l.testing import summary_of_times, time_op

SHAPES = [(256, 4, 200), (1024, 8, 40)]  # width and number of layers, steps
BATCH = 32


def training(width, depth, count, folder):
    """Return a Checkpoint, a function that takes count steps and saves one if told to, and a list.

    The list gets (CPU seconds, wall seconds) of each call of save.
    """
    mx.random.seed(0)
    net = nn.HybridSequential()
    for _ in range(depth):
        net.add(nn.Dense(width, in_units=width, activation='relu'))
    net.initialize(mx.init.Xavier())
    net.hybridize()
    # Equal rows, or a rate that learns them, would give gradients of 0, and the states of Adam
    # would become denormal numbers, which are slow.
    trainer = Trainer(net, 'adam', {'learning_rate': 1e-7})
    X, loss = np.random.normal(size=(BATCH, width)), gluon.loss.L2Loss()
    checkpoint, done, calls = Checkpoint(folder, keep=2, seed=0), [0], []

    def steps(saving):
        for step in range(count):
            forward_backward(net, loss, [X], [X])
            trainer.step(BATCH)
            done[0] += 1
            if saving and step == 0:
                cpu, wall = time.process_time(), time.perf_counter()
                checkpoint.save(done[0], net=net, trainer=trainer)
                calls.append((time.process_time() - cpu, time.perf_counter() - wall))
        checkpoint.wait()
        return [onp.array([done[0]])]
    return checkpoint, steps, calls


def cases():
    for width, depth, count in SHAPES:
        folder = tempfile.mkdtemp()
        atexit.register(shutil.rmtree, folder, True)
        checkpoint, steps, calls = training(width, depth, count, folder)

        def check(results, checkpoint=checkpoint, count=count):
            assert results['d2l'][0] == checkpoint.steps()[-1] + count - 1

        def timed(functions, samples, calls=calls):
            found = time_op(functions, samples)
            return dict(found, **{'call of save': summary_of_times(calls[-samples:])})

        nbytes = 3 * 4 * depth * (width * width + width)  # the parameters and Adam's two states
        yield Case('{} steps, {:.0f} MB'.format(count, nbytes / 1e6), {
            'd2l': lambda steps=steps: steps(True),
            'no checkpoint': lambda steps=steps: steps(False)}, check, time=timed)
