"""The Transformer's decoder (section 10.3; Vaswani et al., 2017)."""
from mxnet.gluon import nn

from d2l.nn._block import HybridBlock, constant, does_just
from d2l.nn.attention import DotProductAttention, MultiHeadAttention, own_and_earlier
from d2l.nn.dense import Dense
from d2l.nn.encoder_decoder import Decoder
from d2l.nn.transformer import AddNorm, PositionalEncoding, PositionWiseFFN, embed


class DecoderBlock(HybridBlock):
    """One layer of the Transformer's decoder, number i of those that share a state (section 10.3).

    Attention to the steps so far, attention to the encoder's outputs, and a network for each
    position, each followed by `AddNorm`.  X (batch, steps, num_hiddens) and state give an array of
    X's shape and the new state; the old one stays as it is.

    state is a list [enc_outputs, enc_valid_len, caches].  enc_outputs has shape
    (batch, enc_steps, ...); enc_valid_len is None, or of shape (batch,) or (batch, steps).  caches
    has an entry for each layer: None before the first step, then [[keys, values], [keys, values]],
    of all steps so far and of enc_outputs, each (batch, steps, num_hiddens).  So nothing of the
    past is computed again, as it is in the book, which keeps the inputs of the layer.  With other
    attention blocks in the place of attention1 or attention2, or hooks on them, the entry is as
    in the book.

    A step sees itself and those before it, those in the cache included, in train and predict mode.
    In the book's predict mode the steps of one X also see those after them; it gives one step at
    a time, where that is the same.

    Arguments as in `EncoderBlock`.
    """

    def __init__(self, num_hiddens, ffn_num_hiddens, num_heads, dropout, i, use_bias=False,
                 **kwargs):
        super().__init__(**kwargs)
        self.i = i
        self.attention1 = MultiHeadAttention(num_hiddens, num_heads, dropout, use_bias)
        self.addnorm1 = AddNorm(dropout)
        self.attention2 = MultiHeadAttention(num_hiddens, num_heads, dropout, use_bias)
        self.addnorm2 = AddNorm(dropout)
        self.ffn = PositionWiseFFN(ffn_num_hiddens, num_hiddens)
        self.addnorm3 = AddNorm(dropout)

    def hybrid_forward(self, F, X, state):
        enc_outputs, enc_valid_len, caches = state
        past = caches[self.i]
        if isinstance(past, (list, tuple)) or past is None and self._can_project():
            attend = self._attend_to_projected
        else:
            attend = self._attend_to_inputs
        Y, cache = attend(F, X, enc_outputs, enc_valid_len, past)
        caches = [*caches[:self.i], cache, *caches[self.i + 1:]]
        return self.addnorm3(Y, self.ffn(Y)), [enc_outputs, enc_valid_len, caches]

    def _can_project(self):
        return all(does_just(block, MultiHeadAttention)
                   and does_just(block.attention, DotProductAttention)
                   for block in (self.attention1, self.attention2))

    def _attend_to_projected(self, F, X, enc_outputs, enc_valid_len, past):
        """Both attentions, each with its `AddNorm`, and the new entry of the caches."""
        query, *steps = self.attention1.project_all(X)
        if past is None:
            source = self.attention2.project(enc_outputs)
        else:
            before, source = past
            steps = [F.np.concatenate(pair, axis=1) for pair in zip(before, steps)]
        Y = self.addnorm1(X, self.attention1.attend(F, query, *steps, causal=True))
        query = self.attention2.W_q(Y)
        Y = self.addnorm2(Y, self.attention2.attend(F, query, *source, enc_valid_len))
        return Y, [steps, source]

    def _attend_to_inputs(self, F, X, enc_outputs, enc_valid_len, past):
        """The same by whatever blocks are there, as the book does it."""
        steps = X if past is None else F.np.concatenate([past, X], axis=1)
        Y = self.addnorm1(X, self.attention1(X, steps, steps, own_and_earlier(F, X, steps)))
        Y = self.addnorm2(Y, self.attention2(Y, enc_outputs, enc_outputs, enc_valid_len))
        return Y, steps


class TransformerDecoder(Decoder):
    """The Transformer's decoder: embedding, positions, num_layers blocks, scores (section 10.3).

    X holds tokens, (batch, steps), state is that of `DecoderBlock`.  The result is the scores of
    the tokens that follow, (batch, steps, vocab_size), and the new state, with which the next
    tokens are given: all at once or step by step is the same.

    For that, positions go on from call to call.  In the book they begin at 0 in each call, so that
    a model that was trained on whole sentences sees position 0 at every step of its translation;
    continue_positions=False does as the book does.
    """

    def __init__(self, vocab_size, num_hiddens, ffn_num_hiddens, num_heads, num_layers, dropout,
                 use_bias=False, continue_positions=True, **kwargs):
        super().__init__(**kwargs)
        self.num_hiddens, self.num_layers = num_hiddens, num_layers
        self._continue_positions = continue_positions
        self.embedding = nn.Embedding(vocab_size, num_hiddens)
        self.pos_encoding = PositionalEncoding(num_hiddens, dropout)
        self.blks = nn.HybridSequential()
        for i in range(num_layers):
            self.blks.add(DecoderBlock(num_hiddens, ffn_num_hiddens, num_heads, dropout, i,
                                       use_bias))
        self.dense = Dense(vocab_size, flatten=False)

    def init_state(self, enc_outputs, enc_valid_len=None, *args):
        """Return the state before the first step; further arguments have no influence."""
        return [enc_outputs, constant(enc_valid_len), [None] * self.num_layers]

    def hybrid_forward(self, F, X, state):
        past = _first_array(state[2])
        Y = embed(F, X, self.embedding, self.pos_encoding, self.num_hiddens ** 0.5,
                  past if self._continue_positions else None)
        for block in self.blks:
            Y, state = block(Y, state)
        return self.dense(Y), state


def _first_array(caches):
    """An array with as many steps as have been; None if there is none."""
    while isinstance(caches, (list, tuple)):
        caches = caches[0] if caches else None
    return caches
