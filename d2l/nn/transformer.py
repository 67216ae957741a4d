"""The Transformer's encoder and its parts (section 10.3; Vaswani et al., 2017)."""
import numpy
from mxnet import np
from mxnet.gluon import nn

from d2l import ops
from d2l.nn._block import HybridBlock, constant, does_just, parameter_of_child
from d2l.nn.attention import MultiHeadAttention
from d2l.nn.dense import Dense
from d2l.nn.dropout import Dropout, dropped
from d2l.nn.encoder_decoder import Encoder
from d2l.nn.layer_norm import LayerNorm


class PositionWiseFFN(nn.HybridBlock):
    """Two dense layers with relu between, applied to every position (section 10.3).

    (batch, steps, ...) to (batch, steps, pw_num_outputs), through ffn_num_hiddens.
    """

    def __init__(self, ffn_num_hiddens, pw_num_outputs, **kwargs):
        super().__init__(**kwargs)
        self.dense1 = Dense(ffn_num_hiddens, flatten=False, activation='relu')
        self.dense2 = Dense(pw_num_outputs, flatten=False)

    def hybrid_forward(self, F, X):
        return self.dense2(self.dense1(X))


class _NormOfSum(LayerNorm):
    """LayerNorm of X + dropout(Y)."""

    def __init__(self, dropout, **kwargs):
        super().__init__(**kwargs)
        self._rate = dropout

    def _alias(self):
        return 'layernorm'  # in the names of parameters

    def hybrid_forward(self, F, X, Y, gamma, beta):
        seed = ops.random_seed(X) if self._rate else None
        return ops.add_norm(X, Y, gamma, beta, seed, p=self._rate, eps=self._epsilon)


class AddNorm(nn.HybridBlock):
    """Layer normalization of X + dropout(Y), over the last axis (section 10.3).

    X and Y have the same shape, which is also that of the result.  One kernel of d2l does all of
    it; the parameters are those of ``ln``, a LayerNorm.
    """

    def __init__(self, dropout, **kwargs):
        super().__init__(**kwargs)
        self.ln = _NormOfSum(dropout)

    def hybrid_forward(self, F, X, Y):
        return self.ln(X, Y)


class PositionalEncoding(HybridBlock):
    """Add sines and cosines of the position to X, then drop out (section 10.3).

    X and the result have shape (batch, steps, num_hiddens).  At position i, column 2j gets
    sin(i / 10000^(2j / num_hiddens)) and column 2j + 1 the cosine of the same.  The positions
    are 0, 1, ...; they go on from those of past, (batch, steps, ...), where it is given.

    The codes are computed for as many steps as X has; max_len is only the length of ``P``, the
    array (1, max_len, num_hiddens) of them.
    """

    def __init__(self, num_hiddens, dropout, max_len=1000, **kwargs):
        super().__init__(**kwargs)
        self._num_hiddens, self._max_len, self._dtype = num_hiddens, max_len, 'float32'
        self.dropout = Dropout(dropout)

    @property
    def P(self):
        """The codes of the first max_len positions, (1, max_len, num_hiddens)."""
        return ops.positional_encoding(np.zeros((1, self._max_len)), num_hiddens=self._num_hiddens)

    def cast(self, dtype):
        super().cast(dtype)
        self._dtype = numpy.dtype(dtype).name

    def hybrid_forward(self, F, X, past=None):
        return dropped(self.dropout, X + self.codes(X, past))

    def codes(self, X, past=None):
        """The codes (1, steps, num_hiddens) for X of shape (batch, steps, ...), after past."""
        return ops.positional_encoding(X, past, num_hiddens=self._num_hiddens, dtype=self._dtype)


class EncoderBlock(HybridBlock):
    """One layer of the Transformer's encoder: self-attention, then a network for each position,
    each followed by `AddNorm` (section 10.3).

    X and the result have shape (batch, steps, num_hiddens); valid_len is None, or of shape
    (batch,) or (batch, steps).  Other arguments as in `MultiHeadAttention`, `PositionWiseFFN`.
    """

    def __init__(self, num_hiddens, ffn_num_hiddens, num_heads, dropout, use_bias=False, **kwargs):
        super().__init__(**kwargs)
        self.attention = MultiHeadAttention(num_hiddens, num_heads, dropout, use_bias)
        self.addnorm1 = AddNorm(dropout)
        self.ffn = PositionWiseFFN(ffn_num_hiddens, num_hiddens)
        self.addnorm2 = AddNorm(dropout)

    def hybrid_forward(self, F, X, valid_len=None):
        Y = self.addnorm1(X, self.attention(X, X, X, valid_len))
        return self.addnorm2(Y, self.ffn(Y))


class TransformerEncoder(Encoder):
    """The Transformer's encoder: embedding, positions and num_layers blocks (section 10.3).

    X holds tokens, (batch, steps); the result has shape (batch, steps, num_hiddens).  valid_len
    is None, or of shape (batch,) or (batch, steps).  Embedding, scale and positions are one pass of
    d2l's kernel.
    """

    def __init__(self, vocab_size, num_hiddens, ffn_num_hiddens, num_heads, num_layers, dropout,
                 use_bias=False, **kwargs):
        super().__init__(**kwargs)
        self.num_hiddens = num_hiddens
        self.embedding = nn.Embedding(vocab_size, num_hiddens)
        self.pos_encoding = PositionalEncoding(num_hiddens, dropout)
        self.blks = nn.HybridSequential()
        for _ in range(num_layers):
            self.blks.add(EncoderBlock(num_hiddens, ffn_num_hiddens, num_heads, dropout, use_bias))

    def hybrid_forward(self, F, X, valid_len=None, *args):
        X = embed(F, X, self.embedding, self.pos_encoding, self.num_hiddens ** 0.5)
        valid_len = constant(valid_len)
        for block in self.blks:
            X = block(X, valid_len)
        return X


def embed(F, X, embedding, pos_encoding, scale, past=None):
    """Embed tokens X (batch, steps), bring them by scale to the size of the codes of their
    positions, which lie between -1 and 1, and add these: what is first in encoder and decoder.

    past as in `PositionalEncoding`; a block that stands in for that one does not get it.
    """
    if does_just(embedding, nn.Embedding) and does_just(pos_encoding, PositionalEncoding):
        weight = parameter_of_child(embedding.weight, X)
        X = ops.embedding(weight, X, pos_encoding.codes(X, past), scale=scale)
        return dropped(pos_encoding.dropout, X)
    X = embedding(X) * scale
    if past is None or type(pos_encoding) is not PositionalEncoding:
        return pos_encoding(X)
    return pos_encoding(X, past)
