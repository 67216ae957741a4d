"""Operators: the Python face of the kernels in src/operators, one file an operator."""
from d2l.ops._library import LibraryError, available, composed, info, load
from d2l.ops._random import random_seed

load()

from d2l.ops.add_norm import add_norm  # noqa: E402
from d2l.ops.attention import attention  # noqa: E402
from d2l.ops.dropout import dropout  # noqa: E402
from d2l.ops.layer_norm import layer_norm  # noqa: E402
from d2l.ops.masked_softmax import masked_softmax  # noqa: E402

__all__ = ['LibraryError', 'add_norm', 'attention', 'available', 'composed', 'dropout', 'info',
           'layer_norm', 'load', 'masked_softmax', 'random_seed']
