"""BERT (section 14.8; Devlin et al., 2018): the encoder and the two pretraining tasks.

Constructors, parameters and their names in saved files are those of the book, so that its
pretrained models can be loaded.
"""
from mxnet.gluon import nn
from mxnet.ndarray import NDArray

from d2l import ops
from d2l.nn._block import HybridBlock, constant, does_just, parameter_of_child
from d2l.nn.dense import Dense
from d2l.nn.layer_norm import LayerNorm
from d2l.nn.transformer import EncoderBlock


class BERTEncoder(HybridBlock):
    """Token, segment and learned position embeddings, then num_layers Transformer blocks.

    tokens and segments (0 or 1) have shape (batch, steps), steps at most max_len; valid_lens is
    None, or of shape (batch,) or (batch, steps).  The result has shape
    (batch, steps, num_hiddens).  The three embeddings are one pass of d2l's kernel.  Raises
    ValueError for more steps than max_len.
    """

    def __init__(self, vocab_size, num_hiddens, ffn_num_hiddens, num_heads, num_layers, dropout,
                 max_len=1000, **kwargs):
        super().__init__(**kwargs)
        self._max_len = max_len
        self.token_embedding = nn.Embedding(vocab_size, num_hiddens)
        self.segment_embedding = nn.Embedding(2, num_hiddens)
        self.blks = nn.HybridSequential()
        for _ in range(num_layers):
            self.blks.add(EncoderBlock(num_hiddens, ffn_num_hiddens, num_heads, dropout, True))
        self.pos_embedding = self.params.get('pos_embedding', shape=(1, max_len, num_hiddens))

    def forward(self, tokens, segments, valid_lens=None):
        if isinstance(tokens, NDArray) and tokens.shape[1] > self._max_len:
            raise ValueError(f'BERTEncoder: tokens must have at most {self._max_len} steps '
                             f'(max_len), got the shape {tokens.shape}')
        return super().forward(tokens, segments, valid_lens)

    def hybrid_forward(self, F, tokens, segments, valid_lens=None, pos_embedding=None):
        if all(does_just(block, nn.Embedding)
               for block in (self.token_embedding, self.segment_embedding)):
            weight, segment_weight = (parameter_of_child(block.weight, tokens) for block in (
                self.token_embedding, self.segment_embedding))
            X = ops.embedding(weight, tokens, pos_embedding, segment_weight, segments)
        else:
            X = self.token_embedding(tokens) + self.segment_embedding(segments)
            X = X + F.np.take(pos_embedding, F.npx.arange_like(tokens, axis=1), axis=1)
        valid_lens = constant(valid_lens)
        for block in self.blks:
            X = block(X, valid_lens)
        return X


class MaskLM(nn.HybridBlock):
    """Predict the tokens at some positions (section 14.8).

    X (batch, steps, num_hiddens) and pred_positions (batch, n) give scores
    (batch, n, vocab_size).
    """

    def __init__(self, vocab_size, num_hiddens, **kwargs):
        super().__init__(**kwargs)
        self.mlp = nn.HybridSequential()
        self.mlp.add(Dense(num_hiddens, flatten=False, activation='relu'), LayerNorm(),
                     Dense(vocab_size, flatten=False))

    def hybrid_forward(self, F, X, pred_positions):
        rows = F.np.expand_dims(F.npx.arange_like(pred_positions, axis=0), 1)
        rows = rows.astype('int32') + F.np.zeros_like(pred_positions).astype('int32')
        index = F.np.stack([rows, pred_positions.astype('int32')], axis=0)
        return self.mlp(F.npx.gather_nd(X, index))


class NextSentencePred(nn.HybridBlock):
    """Whether the second sentence follows the first: (batch, ...) to scores (batch, 2)."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.output = Dense(2)

    def hybrid_forward(self, F, X):
        return self.output(X)


class BERTModel(HybridBlock):
    """BERT with its pretraining tasks (section 14.8).

    tokens, segments (batch, steps), valid_lens and pred_positions (batch, n) as in `BERTEncoder`
    and `MaskLM`, the latter two may be None.  Returns the encoded tokens
    (batch, steps, num_hiddens), the scores of the masked tokens (batch, n, vocab_size) or None
    without pred_positions, and those of the next sentence (batch, 2).
    """

    def __init__(self, vocab_size, num_hiddens, ffn_num_hiddens, num_heads, num_layers, dropout,
                 max_len=1000, **kwargs):
        super().__init__(**kwargs)
        self.encoder = BERTEncoder(vocab_size, num_hiddens, ffn_num_hiddens, num_heads, num_layers,
                                   dropout, max_len)
        self.hidden = Dense(num_hiddens, activation='tanh')
        self.mlm = MaskLM(vocab_size, num_hiddens)
        self.nsp = NextSentencePred()

    def forward(self, tokens, segments, valid_lens=None, pred_positions=None):
        outputs = super().forward(tokens, segments, valid_lens, pred_positions)
        if pred_positions is None:
            # A graph cannot return None.
            outputs = outputs[0], None, outputs[1]
        return tuple(outputs)

    def hybrid_forward(self, F, tokens, segments, valid_lens=None, pred_positions=None):
        encoded_X = self.encoder(tokens, segments, valid_lens)
        first = F.np.squeeze(F.npx.slice(encoded_X, (None, 0, None), (None, 1, None)), axis=1)
        nsp_Y_hat = self.nsp(self.hidden(first))
        if pred_positions is None:
            return encoded_X, nsp_Y_hat
        return encoded_X, self.mlm(encoded_X, pred_positions), nsp_Y_hat
