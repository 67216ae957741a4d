"""Pretrain the book's small BERT (section 14.10), so that it survives the end of its processes.

    python examples/bert_small.py                                     # one process
    d2l launch -n 2 -s 1 --store dist_sync examples/bert_small.py     # two workers and a server
    d2l launch -n 2 --store ring examples/bert_small.py               # two workers: [ring]

``d2l.train_bert`` does the training; what is here makes it one of several workers and keeps
checkpoints.  Kill any process of a job, by ``kill -9`` if you like: the launcher starts the job
again, which goes on from the newest checkpoint and ends with the weights of a run that nobody
disturbed, bit by bit.  Started anew by hand the script goes on, too, until ``--steps`` are done;
another ``--folder`` begins a new run.

Two workers compute what two devices of one process do (``--devices 2``), bit by bit without
``--dropout``, whose random numbers each process draws for itself.  The text is The Time Machine,
which ships with the package, or WikiText-2 (``--text wikitext-2``), which is downloaded unless a
folder of D2L_DATA has it.
"""
import argparse
import hashlib
import os
import random
import re

from d2l import mxnet as d2l
from d2l.parallel import job
from d2l.parallel.checkpoint import Checkpoint
from d2l.parallel.sampler import DistributedSampler

gluon, npx = d2l.gluon, d2l.npx


def read_paragraphs(text):
    """Paragraphs, lists of sentences of words in lower case, as of `d2l._read_wiki`."""
    if text == 'wikitext-2':
        return d2l._read_wiki(d2l.download_extract('wikitext-2', 'wikitext-2'))
    with open(d2l.download('time_machine'), encoding='utf-8') as file:
        paragraphs = re.split(r'\n\s*\n', file.read().lower())
    sentences = [[' '.join(re.findall("[a-z']+", sentence)) for sentence in re.split('[.!?]', one)]
                 for one in paragraphs]
    return [found for found in (list(filter(None, one)) for one in sentences) if found]


def pretrain(args):
    """Returns the net after args.steps steps, some of which an earlier run may have made."""
    random.seed(args.seed)  # pairs and masks: the same in all workers, and after a restart
    npx.random.seed(args.seed)
    dataset = d2l._WikiTextDataset(read_paragraphs(args.text), args.max_len)
    devices = job.devices(args.devices)
    net = d2l.BERTModel(len(dataset.vocab), num_hiddens=128, ffn_num_hiddens=256, num_heads=2,
                        num_layers=2, dropout=args.dropout, max_len=args.max_len)
    net.initialize(d2l.init.Xavier(), ctx=devices)
    net.hybridize()
    trainer = d2l.Trainer(net, 'adam', {'learning_rate': 1e-3}, kvstore=job.store())
    sampler = DistributedSampler(len(dataset), args.batch_size, seed=args.seed, last='drop')
    train_iter = gluon.data.DataLoader(dataset, batch_sampler=sampler)
    checkpoint = Checkpoint(args.folder, steps=args.every, seed=args.seed)
    done = checkpoint.restore(net=net, trainer=trainer, sampler=sampler) or 0
    if job.rank() == 0:
        print(f'{len(dataset)} pairs of sentences, {len(dataset.vocab)} different words; '
              f'{done} of {args.steps} steps are done')

    def after_step(step):
        checkpoint.maybe_save(done + step, net=net, trainer=trainer, sampler=sampler)

    if done < args.steps:
        d2l.train_bert(train_iter, net, gluon.loss.SoftmaxCrossEntropyLoss(), len(dataset.vocab),
                       devices, args.log_interval, args.steps - done, trainer=trainer,
                       after_step=after_step)
    checkpoint.wait()
    return net


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--text', choices=['time_machine', 'wikitext-2'], default='time_machine')
    parser.add_argument('--folder', default=os.path.join('out', 'bert_small'),
                        help='of the checkpoints; all workers must reach it')
    parser.add_argument('--every', type=int, default=10, help='steps between two checkpoints')
    parser.add_argument('--steps', type=int, default=100)
    parser.add_argument('--batch-size', type=int, default=64,
                        help='pairs of sentences of a step, over all workers')
    parser.add_argument('--max-len', type=int, default=64, help='tokens of a pair of sentences')
    parser.add_argument('--dropout', type=float, default=0.2)
    parser.add_argument('--devices', type=int, default=1, help='of each worker')
    parser.add_argument('--log-interval', type=int, default=10)
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args()
    npx.set_np()
    net = pretrain(args)
    weights = b''.join(param.list_data()[0].asnumpy().tobytes()
                       for param in net.collect_params().values())
    print('weights', hashlib.sha256(weights).hexdigest())


if __name__ == '__main__':
    main()
