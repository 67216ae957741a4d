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
from d2l.nn.dropout import Dropout
from d2l.nn.encoder_decoder import Decoder, Encoder, EncoderDecoder, GreedySearch
from d2l.nn.layer_norm import LayerNorm
from d2l.nn.loss import BPRLoss, HingeLossbRec, MaskedSoftmaxCELoss
from d2l.nn.rnn import RNNModel
from d2l.nn.seq2seq import Seq2SeqDecoder, Seq2SeqEncoder
from d2l.nn.transformer import (
    AddNorm,
    EncoderBlock,
    PositionalEncoding,
    PositionWiseFFN,
    TransformerEncoder,
)
from d2l.nn.transformer_decoder import DecoderBlock, TransformerDecoder

__all__ = ['AddNorm', 'BERTEncoder', 'BERTModel', 'BPRLoss', 'Decoder', 'DecoderBlock',
           'DotProductAttention', 'Dropout', 'Encoder', 'EncoderBlock', 'EncoderDecoder',
           'GreedySearch', 'HingeLossbRec', 'LayerNorm', 'MLPAttention', 'MaskLM',
           'MaskedSoftmaxCELoss', 'MultiHeadAttention', 'NextSentencePred', 'PositionWiseFFN',
           'PositionalEncoding', 'RNNModel', 'Residual', 'Seq2SeqDecoder', 'Seq2SeqEncoder',
           'TransformerDecoder', 'TransformerEncoder', 'corr2d', 'masked_softmax',
           'transpose_output', 'transpose_qkv']
