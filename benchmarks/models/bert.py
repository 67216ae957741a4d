"""BERT-small (sections 14.8 and 15.7): the forward pass of pretraining, and steps of it.

Batches are like those of WikiText-2: padded pairs of sentences, with 15 % of their tokens to
predict.  forward gives the scores of both tasks.  train is a whole step: forward, the losses of
masked tokens and next sentences, backward, Adam.

d2l is our net, hybridized, with the losses of `train_bert` and d2l_adam.  mxnet is the same net and
the losses of MXNet's own operators, one graph, with its Adam.  torch is eager, with
scaled_dot_product_attention and fused Adam.  All have the same parameters.
"""
import numpy as onp
from mxnet import autograd, gluon, np, npx

from benchmarks.models._transformers import (
    STATIC,
    EncoderLayer,
    Sizes,
    Torch,
    checker,
    copy_parameters,
    for_heads,
    torch,
    values_of,
)
from benchmarks.run import Case
from d2l.nn import BERTModel, NextSentencePred
from d2l.train import optimizers  # noqa: F401  (d2l_adam)
from d2l.train.pretraining import _get_batch_loss_bert

# batch, steps, num_hiddens, ffn_num_hiddens, num_heads, num_layers, vocabulary
SHAPES = [(batch, 128, 256, 512, 4, 2, 20256) for batch in (1, 8, 32)]
MAX_LEN, LEARNING_RATE = 512, 1e-4


class BERTSizes(Sizes):
    bias = True


def data(sizes):
    """tokens, segments, valid_lens, pred_positions, mlm_weights, mlm_Y, nsp_y."""
    rng = onp.random.RandomState(0)
    valid_lens = rng.randint(sizes.steps // 2, sizes.steps + 1, size=(sizes.batch, 1))
    steps = onp.arange(sizes.steps)
    tokens = rng.randint(4, sizes.vocab, size=(sizes.batch, sizes.steps)) * (steps < valid_lens)
    segments = (steps >= valid_lens // 2) & (steps < valid_lens)
    predictions = onp.arange(round(0.15 * sizes.steps))
    given = predictions < onp.rint(0.15 * valid_lens)
    positions = onp.sort(rng.uniform(size=given.shape) * valid_lens).astype(int) * given
    labels = rng.randint(4, sizes.vocab, size=given.shape) * given
    return (tokens.astype('int32'), segments.astype('int32'), valid_lens[:, 0].astype('float32'),
            positions.astype('int32'), given.astype('float32'), labels.astype('float32'),
            rng.randint(2, size=sizes.batch).astype('float32'))


class PlainEncoder(gluon.HybridBlock):
    def __init__(self, sizes):
        super().__init__()
        self.sizes = sizes
        self.token_embedding = gluon.nn.Embedding(sizes.vocab, sizes.hiddens)
        self.segment_embedding = gluon.nn.Embedding(2, sizes.hiddens)
        self.pos_embedding = self.params.get('pos_embedding', shape=(1, MAX_LEN, sizes.hiddens))
        self.blks = gluon.nn.HybridSequential()
        for _ in range(sizes.layers):
            self.blks.add(EncoderLayer(sizes))

    def hybrid_forward(self, F, tokens, segments, valid_lens, pos_embedding):
        sizes = self.sizes
        X = self.token_embedding(tokens) + self.segment_embedding(segments)
        X = X + F.npx.slice(pos_embedding, (None, None), (None, sizes.steps))
        lengths = for_heads(F, valid_lens, sizes.heads, sizes.steps)
        for layer in self.blks:
            X = layer(X, lengths)
        return X


class PlainMaskLM(gluon.HybridBlock):
    def __init__(self, sizes):
        super().__init__()
        self.sizes = sizes
        self.mlp = gluon.nn.HybridSequential()
        self.mlp.add(gluon.nn.Dense(sizes.hiddens, flatten=False, activation='relu'),
                     gluon.nn.LayerNorm(), gluon.nn.Dense(sizes.vocab, flatten=False))

    def hybrid_forward(self, F, X, pred_positions):
        starts = F.np.arange(self.sizes.batch, dtype='int32') * self.sizes.steps
        rows = F.npx.reshape(X, (-5, -4))
        return self.mlp(F.np.take(rows, pred_positions + F.np.expand_dims(starts, 1), axis=0))


class PlainBERT(gluon.HybridBlock):
    """The net of MXNet's own operators, with children named as ours are."""

    def __init__(self, sizes):
        super().__init__()
        self.encoder = PlainEncoder(sizes)
        self.hidden = gluon.nn.Dense(sizes.hiddens, activation='tanh')
        self.mlm = PlainMaskLM(sizes)
        self.nsp = NextSentencePred()  # a dense layer

    def hybrid_forward(self, F, tokens, segments, valid_lens, pred_positions):
        X = self.encoder(tokens, segments, valid_lens)
        first = F.np.squeeze(F.npx.slice(X, (None, 0), (None, 1)), axis=1)
        return X, self.mlm(X, pred_positions), self.nsp(self.hidden(first))


class PlainLosses(gluon.HybridBlock):
    """The sum of the losses of a net, so that one graph has all."""

    def __init__(self, net):
        super().__init__()
        self.net, self.loss = net, gluon.loss.SoftmaxCELoss()

    def hybrid_forward(self, F, tokens, segments, valid_lens, positions, weights, mlm_Y, nsp_y):
        _, mlm_Y_hat, nsp_Y_hat = self.net(tokens, segments, valid_lens, positions)
        rows, labels = F.npx.reshape(mlm_Y_hat, (-5, -4)), F.npx.reshape(mlm_Y, (-1,))
        mlm_l = self.loss(rows, labels, F.npx.reshape(weights, (-1, 1)))
        mlm_l = F.np.sum(mlm_l) / F.np.sum(weights)
        return mlm_l + F.np.mean(self.loss(nsp_Y_hat, nsp_y))


class TorchBERT(Torch):
    def __call__(self, tokens, segments, valid_lens, positions, train=False):
        functional = torch.nn.functional
        allowed = (torch.arange(tokens.shape[1]) < valid_lens[:, None])[:, None, None]
        X = functional.embedding(tokens, self.p['encoder.token_embedding.weight'])
        X = X + functional.embedding(segments, self.p['encoder.segment_embedding.weight'])
        X = X + self.p['encoder.pos_embedding'][:, :tokens.shape[1]]
        X = self.encoder_layers(X, allowed, train)
        chosen = X[torch.arange(len(X))[:, None], positions]
        chosen = self.norm('mlm.mlp.1', functional.relu(self.dense('mlm.mlp.0', chosen)))
        first = torch.tanh(self.dense('hidden', X[:, 0]))
        return X, self.dense('mlm.mlp.2', chosen), self.dense('nsp.output', first)


def initialized(net, arrays, values=None):
    net.initialize(init='xavier')
    net(*map(np.array, arrays[:4]))
    if values is not None:
        copy_parameters(net, values)
    return net


def forward_provider(net, arrays):
    net.hybridize(**STATIC)
    inputs = [np.array(a) for a in arrays[:4]]
    return lambda: list(net(*inputs))


def train_provider(net, arrays, losses, optimizer, names):
    """losses: of the seven arrays, the sum of both losses."""
    arrays = [np.array(a) for a in arrays]
    trainer = gluon.Trainer(net.collect_params(), optimizer, {'learning_rate': LEARNING_RATE})
    parameters = net._collect_params_with_prefix()

    def step():
        with autograd.record():
            l = losses(*arrays)
        l.backward()
        trainer.step(1)
        return [l] + [parameters[name].grad() for name in names]
    return step


def our_losses(net, vocab):
    net.hybridize(**STATIC)
    loss = gluon.loss.SoftmaxCELoss()
    return lambda *arrays: _get_batch_loss_bert(net, loss, vocab, *([a] for a in arrays))[2][0]


def plain_losses(net):
    losses = PlainLosses(net)
    losses.hybridize(**STATIC)
    return losses


def torch_arrays(arrays):
    lengths, weights = (torch.tensor(arrays[i]) for i in (2, 4))
    tokens, segments, positions, labels, nsp_y = (torch.tensor(arrays[i]).long()
                                                  for i in (0, 1, 3, 5, 6))
    return (tokens, segments, lengths, positions), weights, labels, nsp_y


def torch_forward(net, arrays):
    inputs = torch_arrays(arrays)[0]

    def forward():
        with torch.inference_mode():
            return list(net(*inputs))
    return forward


def torch_train(net, arrays, names):
    inputs, weights, labels, nsp_y = torch_arrays(arrays)
    cross_entropy = torch.nn.functional.cross_entropy
    labels = labels.masked_fill(weights == 0, -100).flatten()
    optimizer = torch.optim.Adam(list(net.p.values()), LEARNING_RATE, fused=True)

    def step():
        optimizer.zero_grad()
        _, mlm_Y_hat, nsp_Y_hat = net(*inputs, True)
        l = cross_entropy(mlm_Y_hat.flatten(0, 1), labels) + cross_entropy(nsp_Y_hat, nsp_y)
        l.backward()
        optimizer.step()
        return [l.detach()] + [net.p[name].grad for name in names]
    return step


def providers(sizes, arrays, kind):
    ours = initialized(BERTModel(sizes.vocab, sizes.hiddens, sizes.ffn, sizes.heads, sizes.layers,
                                 sizes.dropout, MAX_LEN), arrays)
    values = values_of(ours)
    plain = initialized(PlainBERT(sizes), arrays, values)
    if kind == 'forward':
        found = {'d2l': forward_provider(ours, arrays), 'mxnet': forward_provider(plain, arrays)}
    else:
        names = list(values)
        found = {
            'd2l': train_provider(ours, arrays, our_losses(ours, sizes.vocab), 'd2l_adam', names),
            'mxnet': train_provider(plain, arrays, plain_losses(plain), 'adam', names)}
    if torch is not None:
        net = TorchBERT(values, sizes)
        found['torch'] = (torch_forward(net, arrays) if kind == 'forward'
                          else torch_train(net, arrays, list(values)))
    return found


def cases():
    npx.random.seed(0)
    for shape in SHAPES:
        for kind, dropout in (('forward', 0.0), ('train', 0.0), ('train dropout 0.1', 0.1)):
            sizes = BERTSizes(*shape, dropout)
            yield Case(f'{kind} batch {sizes.batch} steps {sizes.steps}',
                       providers(sizes, data(sizes), kind),
                       checker('dropout' if dropout else kind))
