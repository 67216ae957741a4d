"""Train ResNet-18 on Fashion-MNIST on one device, on several, and in several processes.

The same script, started in four ways:

    python examples/resnet18.py                                     # one device
    python examples/resnet18.py --devices 2                         # two devices
    d2l launch -n 2 -s 1 --store dist_sync examples/resnet18.py     # two workers and a server
    d2l launch -n 2 --store ring examples/resnet18.py               # two workers: [ring]

    python examples/resnet18.py --compare                           # all four, side by side

A device is a GPU where there are enough of them, else a part of the CPU.  By default a small part
of the pictures, made smaller, is trained on, so that it takes seconds; ``--examples 60000 --size
28`` is the whole set.

The weights of all four are the same, to the last bit.  BatchNorm stands in the way: it takes mean
and variance of what a device computes at once, so that two devices with half a batch each are
another function of the parameters than one device with all of it.  What defines the function here
is therefore not the number of devices but that of shards (``--shards 2``): every batch is cut into
so many, each is normalized by itself, and the devices of all workers share them out.  One device
goes through its shards one after the other, and the trainer adds up their gradients
(``accumulate``).  Sums of more than two shards may be added in another order and differ in their
last bits.  BatchNorm's running means, which only predictions use, are those of the shards that a
device has seen: the test accuracies may differ a little.
"""
# ruff: noqa: E402
import argparse
import hashlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile

# The number of threads decides into how many parts a convolution cuts the sums of its gradients.
os.environ.setdefault('OMP_NUM_THREADS', '1')

from d2l import mxnet as d2l
from d2l.parallel import job
from d2l.parallel.data_parallel import forward_backward
from d2l.parallel.sampler import DistributedSampler

gluon, init, npx = d2l.gluon, d2l.init, d2l.npx

FORMS = {'1 device': [],
         '2 devices': ['--devices', 2],
         '2 workers, 1 server': ['-n', 2, '-s', 1, '--store', 'dist_sync'],
         '2 workers, ring': ['-n', 2, '--store', 'ring']}


def load(examples, size):
    """examples random pictures to train on, and as many to test on: (X, y), (X, y).

    MXNet's seed decides which: the same in all processes.
    """
    train_iter, test_iter = d2l.load_data_fashion_mnist(examples, resize=size)
    return next(iter(train_iter)), next(iter(test_iter))


def train(args, devices, images, labels):
    """Returns the net, and of each step the losses of this worker's shards, sums over pictures."""
    passes, rest = divmod(args.shards, len(devices) * job.num_workers())
    if rest or args.batch_size % args.shards:
        sys.exit(f'--shards must be a multiple of {len(devices) * job.num_workers()}, the number '
                 f'of devices of all workers, and a divisor of --batch-size, {args.batch_size}; '
                 f'got {args.shards}')
    net = d2l.resnet18(10)
    net.initialize(init.Xavier(), ctx=devices)
    net.hybridize()
    trainer = d2l.Trainer(net, 'sgd', {'learning_rate': args.lr, 'momentum': 0.9},
                          kvstore=job.store(), batch_size=args.batch_size // passes,
                          accumulate=passes)
    loss, losses = gluon.loss.SoftmaxCrossEntropyLoss(), []
    sampler = DistributedSampler(len(images), args.batch_size, seed=args.seed, last='drop')
    while len(losses) < args.steps:
        for X, y in sampler.batches(images, labels):
            losses.append([])
            for one_pass in zip(*d2l.split_batch(X, y, [X.ctx] * passes)):
                _, ls = forward_backward(net, loss, *d2l.split_batch(*one_pass, devices))
                trainer.step()
                losses[-1] += [l.sum() for l in ls]
            job.progress(len(losses), examples=len(y), loss=losses[-1][0] / len(ls[0]))
            if len(losses) == args.steps:
                break
    return net, [[l.item() for l in row] for row in losses]


def digest(net):
    """Of all parameters that are trained, on the first device."""
    return hashlib.sha256(b''.join(
        param.list_data()[0].asnumpy().tobytes() for param in net.collect_params().values()
        if param.grad_req != 'null')).hexdigest()


def run(args):
    npx.set_np()
    npx.random.seed(args.seed)
    (images, labels), test = load(args.examples, args.size)
    devices = job.devices(args.devices)
    net, losses = train(args, devices, images, labels)
    accuracy = d2l.evaluate_accuracy_gpus(net, [test])
    share = args.batch_size // job.num_workers()
    print(f'loss {sum(losses[0]) / share:.4f} at first, {sum(losses[-1]) / share:.4f} at last; '
          f'test accuracy {accuracy:.3f}; weights {digest(net)}')
    if args.save:
        with open(os.path.join(args.save, f'{job.rank()}.json'), 'w') as file:
            json.dump({'losses': losses, 'accuracy': accuracy, 'weights': digest(net)}, file)


def run_form(form, arguments):
    """Start the script as the form says; returns what its workers saved, in order of rank."""
    options = list(map(str, FORMS[form]))
    command = [sys.executable, os.path.abspath(__file__)]
    with tempfile.TemporaryDirectory() as folder:
        arguments = [*arguments, '--save', folder]
        if '-n' in options:
            arguments = [*options, '--logs', os.path.join(folder, 'logs'), command[1], *arguments]
            command[1:] = ['-m', 'd2l', 'launch']
        else:
            arguments += options
        done = subprocess.run(command + arguments, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f'{form}: exit status {done.returncode}\n{done.stdout}{done.stderr}')
        saved = []
        for rank in range(2 if '-n' in options else 1):
            with open(os.path.join(folder, f'{rank}.json')) as file:
                saved.append(json.load(file))
        return saved


def compare(args, arguments):
    """Print a table of the losses of all forms; exit with status 1 unless they are the same."""
    columns = sorted({0, args.steps // 4, args.steps // 2, args.steps - 1})
    print('| | ' + ' | '.join(f'loss of step {i + 1}' for i in columns)
          + ' | test accuracy | weights |')
    print('|---|' + '---|' * (len(columns) + 2))
    found = set()
    for form in FORMS:
        if form.endswith('ring') and importlib.util.find_spec('torch') is None:
            print(f'{form}: left out, its transport (torch) is not installed')
            continue
        saved = run_form(form, arguments)
        # The shards of a step in their order, from whichever worker.
        losses = [sum(sum(rows, [])) / args.batch_size
                  for rows in zip(*(worker['losses'] for worker in saved))]
        weights = {worker['weights'] for worker in saved}
        found.add((tuple(losses), *weights))
        cells = [f'{losses[i]:.7f}' for i in columns] + [f'{saved[0]["accuracy"]:.3f}']
        print(f'| {form} | ' + ' | '.join(cells)
              + f' | `{" ".join(sorted(text[:12] for text in weights))}` |', flush=True)
    if len(found) > 1:
        sys.exit('the losses or weights differ')
    print('the losses of all steps and the weights are the same, to the last bit')


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--examples', type=int, default=640)
    parser.add_argument('--size', type=int, default=14, help='edge of the pictures, in pixels')
    parser.add_argument('--batch-size', type=int, default=32,
                        help='pictures of a step, over all workers')
    parser.add_argument('--shards', type=int, default=2, help='parts of a batch; see above')
    parser.add_argument('--steps', type=int, default=20)
    parser.add_argument('--devices', type=int, default=1, help='of each worker')
    parser.add_argument('--lr', type=float, default=0.02)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--save', metavar='FOLDER', help='write losses to FOLDER/RANK.json')
    parser.add_argument('--compare', action='store_true', help='start it in all four ways')
    args = parser.parse_args()
    if args.compare:
        compare(args, [argument for argument in sys.argv[1:] if argument != '--compare'])
    else:
        run(args)


if __name__ == '__main__':
    main()
