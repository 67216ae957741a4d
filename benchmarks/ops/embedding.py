"""Embeddings with positions and segments against what MXNet and PyTorch compose.

transformer: token * sqrt(num_hiddens) + position, which is not learned; bert: token + segment +
position, all three learned.  Named by batch x steps, vocabulary x num_hiddens.  d2l and mxnet are
hybridized blocks (static), torch runs eagerly.
"""
import numpy as onp
from mxnet import gluon, np

from benchmarks.calls import mxnet_calls, torch_calls
from benchmarks.run import Case
from d2l import ops

try:
    import torch
except ImportError:
    torch = None

CASES = [('transformer', (32, 64), 10000, 256), ('bert', (32, 64), 10000, 256),
         ('bert', (8, 128), 30522, 256), ('transformer', (64, 10), 200, 32)]
MAX_STEPS = 1000


class Inputs(gluon.HybridBlock):
    """The parameters of both kinds of input, and a form that adds them up."""

    def __init__(self, form, kind, tables, scale):
        super().__init__()
        self._form, self._kind, self._scale = form, kind, scale
        for name, table in tables.items():
            learned = kind == 'bert' or name == 'weight'
            setattr(self, name, self.params.get(name, shape=table.shape,
                                                grad_req='write' if learned else 'null'))
        self.initialize()
        for name, table in tables.items():
            getattr(self, name).set_data(np.array(table))

    def hybrid_forward(self, F, data, segments, weight, position, segment_weight=None):
        return self._form(F, self._kind, self._scale, data, segments, weight, position,
                          segment_weight)


def ours(F, kind, scale, data, segments, weight, position, segment_weight):
    return ops.embedding(weight, data, position, segment_weight,
                         segments if kind == 'bert' else None, scale=scale)


def composed(F, kind, scale, data, segments, weight, position, segment_weight):
    def rows(index, table, shape):
        return F.npx.embedding(index, table, input_dim=shape[0], output_dim=shape[1])
    out = rows(data, weight, composed.shape)
    position = F.npx.slice(position, (None, 0), (None, composed.steps))  # take is slower
    if kind == 'bert':
        return out + rows(segments, segment_weight, (2, composed.shape[1])) + position
    return out * scale + position


def mxnet_provider(net, data, segments, dy, train):
    net.hybridize(static_alloc=True, static_shape=True)
    data, segments, dy = np.array(data), np.array(segments), np.array(dy)
    learned = [p for p in (net.weight, net.position, getattr(net, 'segment_weight', None))
               if p is not None and p.grad_req != 'null']

    return mxnet_calls(lambda: net(data, segments), dy, learned, train)


def torch_provider(kind, tables, scale, data, segments, dy, train):
    lookup = torch.nn.functional.embedding
    data, segments = torch.tensor(data).long(), torch.tensor(segments).long()
    dy, steps = torch.tensor(dy), data.shape[1]
    learned = {name: torch.tensor(table) for name, table in tables.items()}
    weight, position = learned['weight'], learned['position']
    if kind == 'transformer':
        learned.pop('position')
    for table in learned.values():
        table.requires_grad_()

    def inputs():
        if kind == 'bert':
            return (lookup(data, weight) + lookup(segments, learned['segment_weight'])
                    + position[:, :steps])
        return lookup(data, weight) * scale + position[:, :steps]

    return torch_calls(inputs, dy, list(learned.values()), train)


def exact(kind, tables, scale, data, segments, dy):
    """Output and gradients in float64, in the order of the tables."""
    dy, steps = dy.astype('float64'), data.shape[1]
    out = tables['weight'].astype('float64')[data] * scale + tables['position'][:, :steps]
    grads = {name: onp.zeros(table.shape) for name, table in tables.items()}
    onp.add.at(grads['weight'], data, dy * scale)
    if kind == 'bert':
        out = out + tables['segment_weight'][segments]
        grads['position'][0, :steps] = dy.sum(0)
        onp.add.at(grads['segment_weight'], segments, dy)
    else:
        del grads['position']
    return [out] + list(grads.values())


def cases():
    rng = onp.random.RandomState(0)
    for kind, shape, vocab, cols in CASES:
        # Words are as frequent as in texts (Zipf's law).
        data = onp.minimum(rng.zipf(1.2, shape), vocab) - 1
        segments = (onp.arange(shape[1]) >= rng.randint(1, shape[1], (shape[0], 1))).astype(int)
        tables = {'weight': rng.standard_normal((vocab, cols)).astype('float32'),
                  'position': rng.standard_normal((1, MAX_STEPS, cols)).astype('float32')}
        scale = cols ** 0.5 if kind == 'transformer' else 1.0
        if kind == 'bert':
            tables['segment_weight'] = rng.standard_normal((2, cols)).astype('float32')
        dy = rng.standard_normal(shape + (cols,)).astype('float32')
        truth = exact(kind, tables, scale, data, segments, dy)
        composed.shape, composed.steps = (vocab, cols), shape[1]
        for train in (False, True):
            arrays = data.astype('float32'), segments.astype('float32'), dy, train
            providers = {name: mxnet_provider(Inputs(form, kind, tables, scale), *arrays)
                         for name, form in (('d2l', ours), ('mxnet', composed))}
            if torch is not None:
                providers['torch'] = torch_provider(kind, tables, scale, *arrays)

            def check(results, truth=truth):
                for name, arrays in results.items():
                    for got, want in zip(arrays, truth):
                        got = got.numpy() if name == 'torch' else got.asnumpy()
                        assert onp.abs(got - want).max() <= 1e-5 * onp.abs(want).max(), name
            name = '{} {} {}x{}, {}x{}'.format('train' if train else 'forward', kind, *shape, vocab,
                                               cols)
            yield Case(name, providers, check,
                       nbytes=2 * dy.nbytes + (dy.nbytes + 4 * vocab * cols if train else 0))
