"""Hybridizable blocks."""
from d2l.nn.attention import (
    DotProductAttention,
    MLPAttention,
    MultiHeadAttention,
    masked_softmax,
    transpose_output,
    transpose_qkv,
)
from d2l.nn.bert import BERTEncoder, BERTModel, MaskLM, NextSentencePred
from d2l.nn.conv import Residual, corr2d
from d2l.nn.encoder_decoder import Decoder, Encoder, EncoderDecoder
from d2l.nn.layer_norm import LayerNorm
from d2l.nn.transformer import (
    AddNorm,
    EncoderBlock,
    PositionalEncoding,
    PositionWiseFFN,
    TransformerEncoder,
)

__all__ = ['AddNorm', 'BERTEncoder', 'BERTModel', 'Decoder', 'DotProductAttention', 'Encoder',
           'EncoderBlock', 'EncoderDecoder', 'LayerNorm', 'MLPAttention', 'MaskLM',
           'MultiHeadAttention', 'NextSentencePred', 'PositionWiseFFN', 'PositionalEncoding',
           'Residual', 'TransformerEncoder', 'corr2d', 'masked_softmax', 'transpose_output',
           'transpose_qkv']
