"""Hybridizable blocks."""
from d2l.nn.layer_norm import LayerNorm

__all__ = ['LayerNorm']
