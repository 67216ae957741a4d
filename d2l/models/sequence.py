"""Models of sequences."""
from d2l.nn.encoder_decoder import EncoderDecoder
from d2l.nn.transformer import TransformerEncoder
from d2l.nn.transformer_decoder import TransformerDecoder


def transformer(src_vocab_size, tgt_vocab_size, num_hiddens=32, ffn_num_hiddens=64, num_heads=4,
                num_layers=2, dropout=0.1, **kwargs):
    """The Transformer for translation (section 10.3; Vaswani et al., 2017): an EncoderDecoder.

    Call it with the source tokens (batch, steps), the target tokens that are known (batch, steps)
    and the valid lengths of the sources (batch,), which may be left out.  It returns the scores
    of the tokens that follow, (batch, steps, tgt_vocab_size), and the decoder's state.  The sizes
    are those of a few minutes' training on a processor; `d2l.train.translation` trains it.
    """
    sizes = num_hiddens, ffn_num_hiddens, num_heads, num_layers, dropout
    return EncoderDecoder(TransformerEncoder(src_vocab_size, *sizes),
                          TransformerDecoder(tgt_vocab_size, *sizes), **kwargs)
