"""Attention: masked softmax, scaled dot product, additive, and with several heads."""
import mxnet as mx
from mxnet.gluon import nn

from d2l import ops
from d2l.nn._block import HybridBlock, does_just, parameter_of_child
from d2l.nn.dense import Dense, dense_layers
from d2l.nn.dropout import Dropout, dropped


def masked_softmax(X, valid_len):
    """Softmax over the last axis of X in which only the first valid_len entries count.

    X has shape (batch, queries, keys); valid_len is None, or of shape (batch,) or
    (batch, queries).  See ``d2l.ops.masked_softmax``, which this calls.  (Section 10.1)
    """
    return ops.masked_softmax(X, valid_len)


class Attention(HybridBlock):
    """What the attention blocks share: dropout on the weights, and a look at them.

    With ``keep_weights`` (an argument by keyword, or an attribute to set later) the weights of the
    newest imperative call stay in ``attention_weights``, an array of shape
    (batch, queries, keys), as they were before dropout.  Compiled calls keep nothing.
    """

    def __init__(self, dropout, keep_weights=False, **kwargs):
        super().__init__(**kwargs)
        self.keep_weights = keep_weights
        self.attention_weights = None
        self._rate = dropout
        self.dropout = Dropout(dropout)

    def _seed(self, query):
        """The random numbers with which an operator drops weights; None if there is no dropout."""
        return ops.random_seed(query) if self._rate else None

    def weigh(self, F, scores, value, valid_len):
        """Return the sum of value, weighted by the masked softmax of scores."""
        weights = ops.masked_softmax(scores, valid_len)
        if self.keep_weights:
            self.attention_weights = weights if F is mx.nd else None
        return ops.batch_dot(dropped(self.dropout, weights), value)


class DotProductAttention(Attention):
    """Scaled dot product attention, softmax(Q K^T / sqrt(d)) V.

    Section 10.1; Vaswani et al., 2017, equation 1.

    query (batch, queries, d), key (batch, keys, d) and value (batch, keys, v) give
    (batch, queries, v).  valid_len is None, or of shape (batch,) or (batch, queries): only that
    many of the first keys count.  dropout is the rate for the weights.  units is d, for graphs
    that need not find it out.

    With num_heads the last axes hold as many heads side by side, each of d or v, which attend by
    themselves.  The weights are not even stored (see `d2l.ops.attention`) unless keep_weights asks
    for them, of shape (batch * num_heads, queries, keys).
    """

    def __init__(self, dropout, units=None, num_heads=1, **kwargs):
        super().__init__(dropout, **kwargs)
        self._units, self._num_heads = units, num_heads

    def hybrid_forward(self, F, query, key, value, valid_len=None):
        return self.attend(F, query, key, value, valid_len)

    def attend(self, F, query, key, value, valid_len=None, causal=False):
        """The same, or with causal, which takes the place of valid_len: each query looks at its
        own key and those before it; the last key is the last query's own."""
        if not self.keep_weights:
            return ops.attention(query, key, value, valid_len, self._seed(query),
                                 num_heads=self._num_heads, dropout=self._rate, causal=causal,
                                 scale=self._units ** -0.5 if self._units else 0.0)
        if causal:
            valid_len = own_and_earlier(F, query, key)
        if self._num_heads > 1:
            query, key, value = (transpose_qkv(X, self._num_heads) for X in (query, key, value))
            if valid_len is not None:
                # The heads of an example stand side by side in the folded batch.
                valid_len = F.np.repeat(valid_len, self._num_heads, axis=0)
        units = self._units or _last_axis(F, query)
        scores = ops.batch_dot(query / units ** 0.5, key, transpose_b=True)
        output = self.weigh(F, scores, value, valid_len)
        return output if self._num_heads == 1 else transpose_output(output, self._num_heads)


class MLPAttention(Attention):
    """Additive attention, v^T tanh(W_q q + W_k k) (section 10.1; Bahdanau et al., 2015).

    query (batch, queries, q), key (batch, keys, k) and value (batch, keys, v) give
    (batch, queries, v).  units is the length of the hidden vector, valid_len as in
    `DotProductAttention`, dropout the rate for the weights.  Neither the hidden vectors of all
    pairs nor the weights are stored (see `d2l.ops.additive_attention`) unless keep_weights asks
    for the latter, or another block than the dense layer stands in the place of ``v``.
    """

    def __init__(self, units, dropout, **kwargs):
        super().__init__(dropout, **kwargs)
        self._units = units
        self.W_k = Dense(units, use_bias=False, flatten=False)
        self.W_q = Dense(units, use_bias=False, flatten=False)
        self.v = nn.Dense(1, use_bias=False, flatten=False)

    def hybrid_forward(self, F, query, key, value, valid_len=None):
        query, key = self.W_q(query), self.W_k(key)
        if not self.keep_weights and self._v_is_a_vector():
            return ops.additive_attention(query, key, value, self._vector(F, query), valid_len,
                                          self._seed(query), dropout=self._rate)
        features = F.np.expand_dims(query, 2) + F.np.expand_dims(key, 1)
        scores = F.np.squeeze(self.v(ops.activation(features, act_type='tanh')), axis=-1)
        return self.weigh(F, scores, value, valid_len)

    def _v_is_a_vector(self):
        return does_just(self.v, nn.Dense) and self.v.bias is None and self.v.act is None

    def _vector(self, F, like):
        """The weight of v, (units,); nobody calls v, so its shape has to be told."""
        weight = self.v.weight
        weight.shape = (1, self._units)
        if F is mx.nd:
            weight._finish_deferred_init()
        return F.npx.reshape(parameter_of_child(weight, like), (-1,))


class MultiHeadAttention(HybridBlock):
    """Attention with several heads, each of num_hiddens / num_heads (section 10.3).

    query (batch, queries, ...), key and value (batch, keys, ...) give
    (batch, queries, num_hiddens).  valid_len is None, or of shape (batch,) or (batch, queries).
    dropout is the rate for the weights; with use_bias the four projections have biases.  The
    weights (batch * num_heads, queries, keys), all heads of an example side by side, are kept in
    ``attention.attention_weights`` when ``attention.keep_weights`` is set.

    Raises ValueError unless num_heads divides num_hiddens.
    """

    def __init__(self, num_hiddens, num_heads, dropout, use_bias=False, **kwargs):
        super().__init__(**kwargs)
        if num_heads < 1 or num_hiddens % num_heads:
            raise ValueError('MultiHeadAttention: num_heads must divide num_hiddens, got '
                             f'{num_heads} and {num_hiddens}')
        self.num_heads = num_heads
        self.attention = DotProductAttention(dropout, num_hiddens // num_heads, num_heads)
        self.W_q = Dense(num_hiddens, use_bias=use_bias, flatten=False)
        self.W_k = Dense(num_hiddens, use_bias=use_bias, flatten=False)
        self.W_v = Dense(num_hiddens, use_bias=use_bias, flatten=False)
        self.W_o = Dense(num_hiddens, use_bias=use_bias, flatten=False)

    def hybrid_forward(self, F, query, key, value, valid_len=None):
        if key is not value:
            query, key, value = self.W_q(query), self.W_k(key), self.W_v(value)
        elif query is key:
            query, key, value = self.project_all(query)
        else:
            query, (key, value) = self.W_q(query), self.project(key)
        return self.W_o(self.attention(query, key, value, valid_len))

    def project(self, X):
        """The keys and the values of X, to attend to more than once: a list of two arrays."""
        return dense_layers(X, [self.W_k, self.W_v])

    def project_all(self, X):
        """The queries, the keys and the values of X, which attends to itself."""
        return dense_layers(X, [self.W_q, self.W_k, self.W_v])

    def attend(self, F, query, key, value, valid_len=None, causal=False):
        """Attend to what was projected; causal as in `DotProductAttention.attend`."""
        return self.W_o(self.attention.attend(F, query, key, value, valid_len, causal))


def transpose_qkv(X, num_heads):
    """Fold the heads of X, parts of its last axis, into its batch (section 10.3).

    (batch, steps, d) becomes (batch * num_heads, steps, d / num_heads), in which the heads of an
    example stand side by side.
    """
    npx = _namespace(X).npx
    X = npx.reshape(X, (-2, -2, num_heads, -1)).transpose((0, 2, 1, 3))
    return npx.reshape(X, (-5, -4))


def transpose_output(X, num_heads):
    """Undo `transpose_qkv`: (batch * num_heads, steps, d / num_heads) to (batch, steps, d)."""
    npx = _namespace(X).npx
    X = npx.reshape(X, (-6, -1, num_heads, -4)).transpose((0, 2, 1, 3))
    return npx.reshape(X, (-2, -2, -5))


def own_and_earlier(F, X, keys):
    """A valid_len (batch, steps), float32, with which each step of X sees itself and all before.

    X and keys have shape (batch, steps, ...); the last of the keys are those of X.  None where an
    array has but one step, which sees everything.
    """
    if F is mx.nd and X.shape[1] == 1:
        return None
    # float16 cannot count far.
    zeros = F.np.zeros_like(F.npx.slice(X, (None, None, 0), (None, None, 1))).astype('float32')
    own = F.npx.arange_like(zeros, axis=1) + 1
    return F.np.squeeze(zeros, axis=2) + own + (_steps(F, keys) - _steps(F, X))


def _steps(F, X):
    """The length of the second axis of X."""
    if F is mx.nd:
        return X.shape[1]
    # A symbol does not know its shape.
    return F.np.sum(F.np.ones_like(
        F.npx.slice(X, (0, None, 0), (1, None, 1)).astype('float32')))


def _namespace(X):
    return mx.sym if isinstance(X, mx.sym.Symbol) else mx.nd


def _last_axis(F, X):
    """The length of the last axis of X, which has three."""
    if F is mx.nd:
        return X.shape[-1]
    # A symbol does not know its shape: count the entries of one vector.
    return F.np.sum(F.np.ones_like(F.npx.slice(X, (0, 0, None), (1, 1, None))))
