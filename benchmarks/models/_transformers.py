"""Transformers without d2l: the one of section 10.3, of MXNet's own operators and in PyTorch, from
whose parts BERT is made, too; and what their benchmarks share.

Both keep keys and values of earlier steps, as ours does.
"""
import mxnet as mx
import numpy as onp
from mxnet import gluon, np

from benchmarks.calls import check_equal, to_numpy
from d2l.nn import Decoder, Encoder, EncoderDecoder

try:
    import torch
    from torch.nn import functional
except ImportError:
    torch = None

STATIC = {'static_alloc': True, 'static_shape': True}


class Sizes:
    """batch, steps, num_hiddens, ffn_num_hiddens, num_heads, num_layers, vocab; dropout.

    bias: whether the projections of attention have biases.
    """

    bias = False

    def __init__(self, batch, steps, hiddens, ffn, heads, layers, vocab, dropout=0.0):
        self.batch, self.steps, self.hiddens, self.ffn = batch, steps, hiddens, ffn
        self.heads, self.layers, self.vocab, self.dropout = heads, layers, vocab, dropout


def table(steps, hiddens):
    """The codes of the first positions, (steps, hiddens)."""
    columns = onp.arange(hiddens)
    angles = onp.arange(steps)[:, None] / 10000 ** (columns // 2 * 2 / hiddens)
    return onp.where(columns % 2, onp.cos(angles), onp.sin(angles)).astype('float32')


class MultiHead(gluon.HybridBlock):
    """lengths (batch * heads, queries), int32, or None: MXNet's fastest mask is in its softmax."""

    def __init__(self, sizes):
        super().__init__()
        self.heads, self.scale = sizes.heads, (sizes.hiddens // sizes.heads) ** -0.5
        for name in ('W_q', 'W_k', 'W_v', 'W_o'):
            setattr(self, name, gluon.nn.Dense(sizes.hiddens, use_bias=sizes.bias, flatten=False))
        self.dropout = gluon.nn.Dropout(sizes.dropout)

    def fold(self, F, X):
        X = F.npx.reshape(X, (-2, -2, self.heads, -1))
        return F.npx.reshape(F.np.transpose(X, (0, 2, 1, 3)), (-5, -4))

    def project(self, F, X):
        return [self.fold(F, self.W_k(X)), self.fold(F, self.W_v(X))]

    def attend(self, F, query, keys, values, lengths):
        query = self.fold(F, self.W_q(query) * self.scale)
        scores = F.npx.batch_dot(query, keys, transpose_b=True)
        weights = F.npx.softmax(scores, axis=-1) if lengths is None else F.npx.softmax(
            scores, axis=-1, length=lengths, use_length=True)
        out = F.npx.batch_dot(self.dropout(weights), values)
        out = F.npx.reshape(out, (-6, -1, self.heads, -4))
        return self.W_o(F.npx.reshape(F.np.transpose(out, (0, 2, 1, 3)), (-2, -2, -5)))


class AddNorm(gluon.HybridBlock):
    def __init__(self, dropout):
        super().__init__()
        self.dropout, self.ln = gluon.nn.Dropout(dropout), gluon.nn.LayerNorm()

    def hybrid_forward(self, F, X, Y):
        return self.ln(X + self.dropout(Y))


class FFN(gluon.HybridBlock):
    def __init__(self, sizes):
        super().__init__()
        self.dense1 = gluon.nn.Dense(sizes.ffn, activation='relu', flatten=False)
        self.dense2 = gluon.nn.Dense(sizes.hiddens, flatten=False)

    def hybrid_forward(self, F, X):
        return self.dense2(self.dense1(X))


class EncoderLayer(gluon.HybridBlock):
    def __init__(self, sizes):
        super().__init__()
        self.attention, self.addnorm1 = MultiHead(sizes), AddNorm(sizes.dropout)
        self.ffn, self.addnorm2 = FFN(sizes), AddNorm(sizes.dropout)

    def hybrid_forward(self, F, X, lengths):
        memory = self.attention.project(F, X)
        Y = self.addnorm1(X, self.attention.attend(F, X, *memory, lengths))
        return self.addnorm2(Y, self.ffn(Y))


class DecoderLayer(gluon.HybridBlock):
    """past: None or [keys, values, keys and values of the source]."""

    def __init__(self, sizes):
        super().__init__()
        for i in (1, 2, 3):
            setattr(self, f'addnorm{i}', AddNorm(sizes.dropout))
        self.attention1, self.attention2 = MultiHead(sizes), MultiHead(sizes)
        self.ffn = FFN(sizes)

    def step(self, F, X, enc_outputs, past, own_lengths, lengths):
        steps = self.attention1.project(F, X)
        if past is None:
            source = self.attention2.project(F, enc_outputs)
        else:
            steps = [F.np.concatenate(pair, axis=1) for pair in zip(past, steps)]
            source = past[2:]
        Y = self.addnorm1(X, self.attention1.attend(F, X, *steps, own_lengths))
        Y = self.addnorm2(Y, self.attention2.attend(F, Y, *source, lengths))
        return self.addnorm3(Y, self.ffn(Y)), [*steps, *source]


class PlainEncoder(Encoder):
    def __init__(self, sizes):
        super().__init__()
        self.sizes = sizes
        self.embedding = gluon.nn.Embedding(sizes.vocab, sizes.hiddens)
        self.dropout = gluon.nn.Dropout(sizes.dropout)
        self.codes = self.params.get_constant('codes', table(sizes.steps, sizes.hiddens)[None])
        self.blks = gluon.nn.HybridSequential()
        for _ in range(sizes.layers):
            self.blks.add(EncoderLayer(sizes))

    def hybrid_forward(self, F, X, valid_len, codes):
        lengths = for_heads(F, valid_len, self.sizes.heads, self.sizes.steps)
        X = self.dropout(self.embedding(X) * self.sizes.hiddens ** 0.5 + codes)
        for layer in self.blks:
            X = layer(X, lengths)
        return X


class PlainDecoder(Decoder):
    """state: [enc_outputs, valid_len, layers' caches, position of the first step]."""

    def __init__(self, sizes, steps):
        super().__init__()
        self.sizes, self.steps = sizes, steps
        self.embedding = gluon.nn.Embedding(sizes.vocab, sizes.hiddens)
        self.dropout = gluon.nn.Dropout(sizes.dropout)
        self.codes = self.params.get_constant('codes', table(sizes.steps, sizes.hiddens))
        self.blks = gluon.nn.HybridSequential()
        for _ in range(sizes.layers):
            self.blks.add(DecoderLayer(sizes))
        self.dense = gluon.nn.Dense(sizes.vocab, flatten=False)

    def init_state(self, enc_outputs, valid_len):
        F = mx.sym if isinstance(enc_outputs, mx.sym.Symbol) else mx
        return [enc_outputs, valid_len, [None] * self.sizes.layers, F.np.zeros((1,))]

    def hybrid_forward(self, F, X, state, codes):
        enc_outputs, valid_len, caches, position = state
        sizes, steps, own = self.sizes, self.steps, None
        if steps > 1:
            own = F.np.tile(F.np.arange(1, steps + 1, dtype='int32'),
                            (sizes.batch * sizes.heads, 1))
        lengths = for_heads(F, valid_len, sizes.heads, steps)
        codes = F.np.take(codes, position + F.np.arange(steps), axis=0)
        X = self.dropout(self.embedding(X) * sizes.hiddens ** 0.5 + codes)
        new = []
        for layer, past in zip(self.blks, caches):
            X, cache = layer.step(F, X, enc_outputs, past, own, lengths)
            new.append(cache)
        return self.dense(X), [enc_outputs, valid_len, new, position + steps]


def for_heads(F, valid_len, heads, queries):
    lengths = F.np.expand_dims(F.np.repeat(valid_len, heads), 1)
    return F.np.repeat(lengths, queries, axis=1).astype('int32')


def plain_transformer(sizes, steps):
    """steps: those of one call of the decoder."""
    return EncoderDecoder(PlainEncoder(sizes), PlainDecoder(sizes, steps))


class Torch:
    """The same in PyTorch, with the parameters of a dict: name in our files -> array."""

    def __init__(self, values, sizes):
        self.sizes = sizes
        self.p = {name: torch.tensor(a, requires_grad=True) for name, a in values.items()}
        self.codes = torch.tensor(table(sizes.steps, sizes.hiddens))

    def __call__(self, src, tgt, valid_len, train=False):
        memory, allowed = self.encode(src, valid_len, train)
        return self.decode(tgt, memory, allowed, [None] * self.sizes.layers, 0, train)[0]

    def search(self, src, valid_len, bos, num_steps):
        memory, allowed = self.encode(src, valid_len)
        newest = torch.full((len(src), 1), bos)
        caches, tokens = [None] * self.sizes.layers, []
        for i in range(num_steps):
            scores, caches = self.decode(newest, memory, allowed, caches, i)
            newest = scores.argmax(-1)
            tokens.append(newest)
        return torch.cat(tokens, 1)

    def encode(self, src, valid_len, train=False):
        allowed = (torch.arange(src.shape[1]) < valid_len[:, None])[:, None, None]
        X = self.embed('encoder', src, 0, train)
        return self.encoder_layers(X, allowed, train), allowed

    def encoder_layers(self, X, allowed, train):
        for i in range(self.sizes.layers):
            name = f'encoder.blks.{i}.'
            keys = self.project(name + 'attention.', X)
            Y = self.attend(name + 'attention.', X, keys, train, allowed)
            X = self.add_norm(name + 'addnorm1.', X, Y, train)
            X = self.add_norm(name + 'addnorm2.', X, self.ffn(name + 'ffn.', X), train)
        return X

    def decode(self, tgt, memory, allowed, caches, position, train=False):
        X, new = self.embed('decoder', tgt, position, train), []
        for i, past in enumerate(caches):
            name = f'decoder.blks.{i}.'
            steps = self.project(name + 'attention1.', X)
            if past is None:
                source = self.project(name + 'attention2.', memory)
            else:
                steps = [torch.cat(pair, 2) for pair in zip(past[0], steps)]
                source = past[1]
            new.append((steps, source))
            Y = self.attend(name + 'attention1.', X, steps, train, causal=tgt.shape[1] > 1)
            X = self.add_norm(name + 'addnorm1.', X, Y, train)
            Y = self.attend(name + 'attention2.', X, source, train, allowed)
            X = self.add_norm(name + 'addnorm2.', X, Y, train)
            X = self.add_norm(name + 'addnorm3.', X, self.ffn(name + 'ffn.', X), train)
        return self.dense('decoder.dense', X), new

    def dense(self, name, X):
        return functional.linear(X, self.p[name + '.weight'], self.p.get(name + '.bias'))

    def embed(self, side, tokens, position, train):
        X = functional.embedding(tokens, self.p[side + '.embedding.weight'])
        codes = self.codes[position:position + tokens.shape[1]]
        return self.dropped(X * self.sizes.hiddens ** 0.5 + codes, train)

    def dropped(self, X, train):
        return functional.dropout(X, self.sizes.dropout) if train and self.sizes.dropout else X

    def heads(self, X, name):
        X = self.dense(name, X)
        return X.unflatten(-1, (self.sizes.heads, -1)).transpose(1, 2)

    def project(self, name, X):
        return [self.heads(X, name + 'W_k'), self.heads(X, name + 'W_v')]

    def attend(self, name, X, keys, train, allowed=None, causal=False):
        out = functional.scaled_dot_product_attention(
            self.heads(X, name + 'W_q'), *keys, attn_mask=allowed, is_causal=causal,
            dropout_p=self.sizes.dropout if train else 0.0)
        return self.dense(name + 'W_o', out.transpose(1, 2).flatten(2))

    def add_norm(self, name, X, Y, train):
        return self.norm(name + 'ln', X + self.dropped(Y, train))

    def norm(self, name, X):
        gamma, beta = self.p[name + '.gamma'], self.p[name + '.beta']
        return functional.layer_norm(X, gamma.shape, gamma, beta, 1e-5)

    def ffn(self, name, X):
        return self.dense(name + 'dense2', functional.relu(self.dense(name + 'dense1', X)))


def copy_parameters(net, values):
    """Set parameters of a net that was called by their names in our files."""
    for name, parameter in net._collect_params_with_prefix().items():
        if name in values:
            parameter.set_data(np.array(values[name]))


def values_of(net):
    """The parameters of a net that was called, by their names in our files."""
    return {name: p.data().asnumpy() for name, p in net._collect_params_with_prefix().items()}


def checker(kind):
    """kind: forward, train, dropout (training with it) or greedy, whose tokens must be equal."""
    def check(results):
        """Equal numbers; gradients up to a factor, which clipping and the trainer share
        differently, and with dropout, at batch 1 a matter of luck, only of like size."""
        results = to_numpy(results)
        for arrays in results.values():
            if kind in ('train', 'dropout'):
                norm = sum(onp.linalg.norm(a) ** 2 for a in arrays[1:]) ** 0.5
                arrays[1:] = [a / norm for a in arrays[1:]]
            if kind == 'dropout':  # the loss, and how much of the gradient each parameter has
                arrays[1:] = [onp.array([onp.linalg.norm(a) for a in arrays[1:]])]
        # The gradient of the bias of attention's keys is zero but for rounding.
        check_equal(results, {'greedy': 0, 'dropout': 0.6}.get(kind, 1e-3), least=1e-3)
    return check
