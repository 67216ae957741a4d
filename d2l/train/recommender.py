"""Training recommender systems: the loops of chapter 16."""
from mxnet import autograd, np, npx

from d2l.data.arrays import positive_int
from d2l.train.ranking import checked_devices, evaluate_ranking
from d2l.utils.animator import Animator
from d2l.utils.timing import Accumulator, Timer


def train_recsys_rating(net, train_iter, test_iter, loss, trainer, num_epochs, devices=None,
                        evaluator=None, **kwargs):
    """Train a model of ratings, draw the curves and print the result (section 16.3).

    A batch of train_iter is a list of arrays, the last of which holds the ratings: the model is
    net(*all_others).  A batch that is one array, as for the autoencoder of section 16.4, is both
    input and target.  loss(y_hat, y) returns the loss of each example, or their sum.  A batch is
    divided among the devices, by default try_all_gpus(), evenly or not; the result is that of
    one device.

    After each epoch evaluator(net, test_iter, devices), or with the keyword inter_mat
    evaluator(net, test_iter, inter_mat, devices), returns the test RMSE.  Without an evaluator it
    is that of net over all ratings of test_iter; with inter_mat, that of the outputs for
    test_iter, put one below the other, over the entries of inter_mat that are not 0.

    The mean loss and the test RMSE of each epoch go to the animator, if the keyword animator
    brings one: the caller can then save its figure.  Prints the last of both, and the examples
    (rows) a second, which counts loading data and training, not testing.

    An epoch without batches, as a rollover loader has it when a batch is larger than the data, is
    passed over.  Raises ValueError if there is no batch at all, for num_epochs below 1 and for
    arrays of unequal length, TypeError for other keywords.
    """
    name = 'train_recsys_rating'
    num_epochs = positive_int(f'{name}: num_epochs', num_epochs)
    devices = checked_devices(name, devices)
    animator, extra = kwargs.pop('animator', None), ()
    if kwargs.get('inter_mat') is not None:
        extra = (kwargs['inter_mat'],)
    if set(kwargs) - {'inter_mat'}:
        raise TypeError(f'{name}: the keywords must be inter_mat or animator, '
                        f'got {sorted(set(kwargs) - {"inter_mat"})[0]}')
    evaluator = _rmse if evaluator is None else evaluator

    def objective(*values):
        return loss(net(*values[:-1] or values), values[-1])

    if animator is None:
        animator = Animator(xlabel='epoch', xlim=[1, num_epochs] if num_epochs > 1 else None,
                            ylim=[0, 2], legend=['train loss', 'test RMSE'])
    timer, examples, train_loss = Timer(), 0, None
    for epoch in range(num_epochs):
        metric = _train_epoch(name, train_iter, 1, objective, trainer, devices, timer)
        examples += metric[1]
        if examples:
            train_loss = metric[0] / metric[1] if metric[1] else train_loss
            test_rmse = float(evaluator(net, test_iter, *extra, devices))
            animator.add(epoch + 1, (train_loss if metric[1] else None, test_rmse))
    _check_examples(name, examples)
    animator.close()
    print(f'train loss {train_loss:.3f}, test RMSE {test_rmse:.3f}')
    print(f'{examples / timer.sum():.1f} examples/sec on {devices}')


def train_ranking(net, train_iter, test_iter, loss, trainer, test_seq_iter, num_users, num_items,
                  num_epochs, devices, evaluator, candidates, eval_step=1, *, animator=None):
    """Train a model that ranks items, draw the curves and print the result (section 16.6).

    A batch of train_iter is a list of arrays: whatever net takes before the item (the user, in
    section 16.7 also a sequence), then the items to be preferred and the others.  The loss is
    loss(net(*others, preferred), net(*others, other)), of each example or their sum.  A batch is
    divided among the devices, evenly or not; the result is that of one device.

    evaluator(net, test_iter, test_seq_iter, candidates, num_users, num_items, devices) returns
    hit rate and AUC, as `evaluate_ranking` does, which also stands in for None.  It is called
    after every eval_step-th epoch and after the last one; the results go to the animator, if one
    is given: the caller can then save its figure.

    Prints the mean loss of the last epoch, the last results, and the examples a second, which
    counts loading data and training, not testing.

    Epochs without batches and errors are as in `train_recsys_rating`.
    """
    name = 'train_ranking'
    num_epochs = positive_int(f'{name}: num_epochs', num_epochs)
    eval_step = positive_int(f'{name}: eval_step', eval_step)
    devices = checked_devices(name, devices)
    evaluator = evaluate_ranking if evaluator is None else evaluator

    def objective(*values):
        others, preferred, other = values[:-2], values[-2], values[-1]
        return loss(net(*others, preferred), net(*others, other))

    if animator is None:
        animator = Animator(xlabel='epoch', xlim=[1, num_epochs] if num_epochs > 1 else None,
                            ylim=[0, 1], legend=['test hit rate', 'test AUC'])
    timer, examples, train_loss = Timer(), 0, None
    for epoch in range(num_epochs):
        metric = _train_epoch(name, train_iter, 3, objective, trainer, devices, timer)
        examples += metric[1]
        train_loss = metric[0] / metric[1] if metric[1] else train_loss
        if examples and ((epoch + 1) % eval_step == 0 or epoch + 1 == num_epochs):
            hit_rate, auc = evaluator(net, test_iter, test_seq_iter, candidates, num_users,
                                      num_items, devices)
            animator.add(epoch + 1, (hit_rate, auc))
    _check_examples(name, examples)
    animator.close()
    print(f'train loss {train_loss:.3f}, test hit rate {float(hit_rate):.3f}, '
          f'test AUC {float(auc):.3f}')
    print(f'{examples / timer.sum():.1f} examples/sec on {devices}')


def _train_epoch(name, train_iter, least, objective, trainer, devices, timer):
    """Train for one epoch and return [sum of the losses, number of examples].

    objective(*arrays) returns the loss on one device.  The only wait is the accumulator's, for
    the sums of a few batches ago, and one at the end of the epoch.
    """
    metric = Accumulator(2)
    timer.start()
    for values in train_iter:
        values = _checked_batch(name, values, least)
        size = len(values[0])
        parts = _split(values, devices)
        with autograd.record():
            losses = [objective(*part) for part in parts[:size]]
            # Every device must have gradients, also those that a small batch leaves idle.
            idle = [objective(*part) * 0 for part in parts[size:]]
        autograd.backward(losses + idle)
        trainer.step(size)
        metric.add(sum(l.sum().as_in_ctx(devices[0]) for l in losses), size)
    npx.waitall()
    timer.stop()
    return metric.data


def _split(values, devices):
    """A list of arrays for each device; those beyond the last example repeat the first one."""
    if len(devices) == 1:
        return [[value.as_in_ctx(devices[0]) for value in values]]
    size = len(values[0])
    count = min(size, len(devices))
    bounds = [size * i // count for i in range(count + 1)]
    slices = list(zip(bounds, bounds[1:])) + [(0, 1)] * (len(devices) - count)
    return [[value[begin:end].as_in_ctx(device) for value in values]
            for (begin, end), device in zip(slices, devices)]


def _rmse(net, test_iter, *args):
    """The root mean square error: see ``train_recsys_rating``."""
    *inter_mat, devices = args
    metric, row = Accumulator(2), 0
    for values in test_iter:
        values = _checked_batch('train_recsys_rating', values, 1)
        size = len(values[0])
        if inter_mat:
            values = [*values, inter_mat[0][row:row + size].as_in_ctx(values[0].ctx)]
        sums = []
        for part in _split(values, devices)[:size]:
            y_hat, y = net(*part[:-1] or part), part[-1]
            error = np.square(y_hat.reshape(y.shape) - y)
            if inter_mat:
                known = (y != 0).astype(error.dtype)
                sums.append(((error * known).sum(), known.sum()))
            else:
                sums.append((error.sum(), error.size))
        # Reading a number waits for its device: first all devices get their work.
        for numbers in sums:
            metric.add(*numbers)
        row += size
    if metric[1] == 0:
        raise ValueError('train_recsys_rating: test_iter must give at least one rating, got none')
    return (metric[0] / metric[1]) ** 0.5


def _checked_batch(name, values, least):
    values = list(values) if isinstance(values, (list, tuple)) else [values]
    if len(values) < least:
        raise ValueError(f'{name}: a batch must have at least {least} arrays, got {len(values)}')
    if len({len(value) for value in values}) > 1:
        raise ValueError(f'{name}: the arrays of a batch must be equally long, got the lengths '
                         f'{[len(value) for value in values]}')
    return values


def _check_examples(name, examples):
    if not examples:
        raise ValueError(f'{name}: train_iter must give at least one batch, got none')
