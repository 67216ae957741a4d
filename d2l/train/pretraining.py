"""Pretraining BERT on one or several devices (section 14.10)."""
import numbers

from mxnet import autograd, gluon, np
from mxnet.context import Context

from d2l.train.optimizers import fused
from d2l.utils.animator import Animator
from d2l.utils.timing import Accumulator, Timer

# Keeps the mean over no masked token at zero.
_TINY = 1e-8


def train_bert(train_iter, net, loss, vocab_size, devices, log_interval, num_steps, *,
               animator=None, trainer=None, after_step=None):
    """Pretrain with Adam (learning rate 0.001) for num_steps batches (section 14.10).

    The batches of train_iter are those of `d2l.data.pretraining.load_data_wiki`, and it is gone
    through as often as the steps need.  net is a BERTModel, or a Block called as
    net(tokens, segments, valid_lens, pred_positions) that returns (anything, scores of shape
    (b, n, vocab_size), scores of shape (b, 2)).  loss is a gluon SoftmaxCrossEntropyLoss.

    devices is a list on which net is initialized.  Each batch is split over them as evenly as it
    goes, they compute at the same time, and the gradient is that of the whole batch: the result
    does not depend on the number of devices, except for rounding and dropout.

    Every log_interval steps and after the last, the means of the losses of all steps so far go to
    the animator, if one is given: the caller can then save its figure.  Prints them at the end,
    and the pairs of sentences a second.  This counts loading data and training, not drawing.

    trainer replaces the one with Adam.  If it is a `d2l.Trainer` of several workers, each goes
    through its own part of every global batch, as of a `DistributedSampler`: gradient, losses and
    numbers of pairs are then those of the whole, whatever the parts' numbers of masked tokens.
    after_step(step), if given, is called after each update, the first of which is step 1: to save
    a checkpoint, say.

    Raises ValueError when log_interval or num_steps is not a whole number of at least 1, for an
    empty list of devices, and when train_iter has no (more) batches.
    """
    for name, value in (('log_interval', log_interval), ('num_steps', num_steps)):
        if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 1:
            raise ValueError(f'train_bert: {name} must be a whole number of at least 1, '
                             f'got {value!r}')
    devices = [devices] if isinstance(devices, Context) else list(devices)
    if not devices:
        raise ValueError('train_bert: devices must have at least one device, got none')
    if trainer is None:
        trainer = gluon.Trainer(net.collect_params(), fused('adam'), {'learning_rate': 1e-3})
    if animator is None:
        animator = Animator(xlabel='step', ylabel='loss', legend=['mlm', 'nsp'],
                            xlim=[1, num_steps] if num_steps > 1 else None)
    # Sums of MLM losses, NSP losses, pairs of sentences, and the number of steps.
    metric, timer = Accumulator(4), Timer()
    for step, batch in enumerate(_batches(train_iter, num_steps), 1):
        mlm_l, nsp_l = _train_step(batch, net, loss, vocab_size, devices, trainer)
        metric.add(mlm_l, nsp_l, len(batch[0]), 1)
        if after_step is not None:
            after_step(step)
        if step % log_interval == 0 or step == num_steps:
            # Reading the sums waits for the devices, so the stopwatch sees finished work.
            mlm_sum, nsp_sum, pairs = _sum_workers(trainer, metric[0], metric[1], metric[2])
            means = mlm_sum / metric[3], nsp_sum / metric[3]
            timer.stop()
            animator.add(step, means)
            timer.start()
    animator.close()
    print(f'MLM loss {means[0]:.3f}, NSP loss {means[1]:.3f}')
    print(f'{pairs / timer.sum():.1f} sentence pairs/sec on {devices}')


def _get_batch_loss_bert(net, loss, vocab_size, tokens_X_shards, segments_X_shards,
                         valid_lens_x_shards, pred_positions_X_shards, mlm_weights_X_shards,
                         mlm_Y_shards, nsp_y_shards):
    """The losses of the parts of a batch, each on its device.  Returns (mlm_ls, nsp_ls, ls).

    Each of the seven arguments is a list with one array for each device; see `train_bert` for net
    and loss.  mlm_ls are the means over the masked tokens of each part, nsp_ls those over its
    pairs of sentences.  ls are their sums, weighted by the share that the part has in the whole
    batch: so the gradients of ls add up to that of the whole batch, however it was split.  With
    one device ls[0] is mlm_ls[0] + nsp_ls[0].  Nothing is waited for.  Section 14.10.
    """
    shards = list(zip(tokens_X_shards, segments_X_shards, valid_lens_x_shards,
                      pred_positions_X_shards, mlm_weights_X_shards, mlm_Y_shards, nsp_y_shards))
    shares = _shares(mlm_weights_X_shards, [len(nsp_y) for nsp_y in nsp_y_shards])
    losses = [_shard_loss(net, loss, vocab_size, *shard) for shard in shards]
    return ([mlm_l for mlm_l, _ in losses], [nsp_l for _, nsp_l in losses],
            [_weighted(pair, share) for pair, share in zip(losses, shares)])


def _batches(train_iter, num_steps):
    """num_steps batches, in as many passes as it takes."""
    done = 0
    while done < num_steps:
        before = done
        for batch in train_iter:
            yield batch
            done += 1
            if done == num_steps:
                return
        if done == before:
            raise ValueError(f'train_bert: train_iter must give {num_steps} batches in one or '
                             f'several passes, got {"none more after " if done else ""}{done}')


def _train_step(batch, net, loss, vocab_size, devices, trainer):
    """Change the parameters once.  Returns the losses of the batch, which are not waited for."""
    shards, sizes = _split(batch, devices)
    shares = _shares([shard[4] for shard in shards], sizes, trainer)
    with autograd.record():
        losses = [_shard_loss(net, loss, vocab_size, *shard) for shard in shards]
        ls = [_weighted(pair, share) for pair, share in zip(losses, shares)]
    for l in ls:
        l.backward()
    trainer.step(1)
    return [sum((pair[i] * share[i]).as_in_ctx(devices[0]) for pair, share in zip(losses, shares))
            for i in (0, 1)]


def _split(batch, devices):
    """The batch as a list of tuples, one on each device, and the numbers of examples in them.

    A device for which there is no example gets the first one with the number 0: its gradient must
    be computed, with the weight zero, or the trainer would add the one of an earlier step.
    """
    size, missing = len(batch[0]), max(0, len(devices) - len(batch[0]))
    if missing:
        batch = [np.concatenate([array] + [array[:1]] * missing) for array in batch]
        batch[4][size:] = 0
    fields = [gluon.utils.split_and_load(array, devices, even_split=False) for array in batch]
    shards = list(zip(*fields))
    sizes = [0 if i >= size else len(shard[0]) for i, shard in enumerate(shards)]
    return shards, sizes


def _shard_loss(net, loss, vocab_size, tokens, segments, valid_lens, pred_positions, mlm_weights,
                mlm_y, nsp_y):
    """The MLM and the NSP loss of one part of a batch."""
    _, mlm_y_hat, nsp_y_hat = net(tokens, segments, valid_lens.reshape(-1), pred_positions)
    mlm_l = loss(mlm_y_hat.reshape(-1, vocab_size), mlm_y.reshape(-1),
                 mlm_weights.reshape(-1, 1))
    # A hybridized loss takes weights in all of its calls or in none.
    nsp_l = loss(nsp_y_hat, nsp_y, np.ones_like(nsp_y_hat[:, :1]))
    return mlm_l.sum() / (mlm_weights.sum() + _TINY), nsp_l.mean()


def _shares(mlm_weights, sizes, trainer=None):
    """For each part of a batch, by which factors its two losses count in those of the batch.

    ``sizes`` are the numbers of pairs of sentences.  The sums of the weights come from all
    devices to each, which none waits for: they are known before the model is computed.  Where the
    trainer has several workers, the batch is that of all of them, and they wait for each other.
    """
    workers = getattr(trainer, 'num_workers', 1)
    if len(sizes) == workers == 1:
        return [(1.0, 1.0)]
    with autograd.pause():
        sums = [weights.sum() for weights in mlm_weights]
        if workers > 1:
            total, size_of_all = _sum_workers(trainer, sum(part.item() for part in sums),
                                              sum(sizes))
            return [((part + _TINY) / (total + _TINY), size / size_of_all)
                    for part, size in zip(sums, sizes)]
        total = sum(part.as_in_ctx(sums[0].ctx) for part in sums)
        return [((part + _TINY) / (total.as_in_ctx(part.ctx) + _TINY), size / sum(sizes))
                for part, size in zip(sums, sizes)]


def _sum_workers(trainer, *numbers):
    """Their sums over all workers, where the trainer knows of such."""
    return trainer.sum_workers(numbers).tolist() if hasattr(trainer, 'sum_workers') else numbers


def _weighted(losses, shares):
    (mlm_l, nsp_l), (mlm_share, nsp_share) = losses, shares
    if isinstance(mlm_share, float):
        return mlm_l + nsp_l
    return mlm_l * mlm_share + nsp_l * nsp_share
