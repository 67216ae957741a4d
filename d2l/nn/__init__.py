"""Hybridizable blocks."""
from d2l.nn.attention import masked_softmax
from d2l.nn.conv import Residual, corr2d
from d2l.nn.layer_norm import LayerNorm

__all__ = ['LayerNorm', 'Residual', 'corr2d', 'masked_softmax']
