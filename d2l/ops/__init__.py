"""Operators: the Python face of the kernels in src/operators, one file an operator."""
from d2l.ops._library import LibraryError, available, composed, info, load
from d2l.ops._random import random_seed

load()

from d2l.ops.activation import activation  # noqa: E402
from d2l.ops.add_norm import add_norm  # noqa: E402
from d2l.ops.additive_attention import additive_attention  # noqa: E402
from d2l.ops.attention import attention  # noqa: E402
from d2l.ops.batch_dot import batch_dot  # noqa: E402
from d2l.ops.bias_activation import bias_activation  # noqa: E402
from d2l.ops.conv2d import conv2d  # noqa: E402
from d2l.ops.dense import dense  # noqa: E402
from d2l.ops.dropout import dropout  # noqa: E402
from d2l.ops.embedding import embedding  # noqa: E402
from d2l.ops.global_norm_clip import global_norm_clip  # noqa: E402
from d2l.ops.layer_norm import layer_norm  # noqa: E402
from d2l.ops.masked_softmax import masked_softmax  # noqa: E402
from d2l.ops.masked_softmax_ce import masked_softmax_ce  # noqa: E402
from d2l.ops.multi_adam import multi_adam, multi_adamw  # noqa: E402
from d2l.ops.multi_dense import multi_dense  # noqa: E402
from d2l.ops.multi_lamb import multi_lamb  # noqa: E402
from d2l.ops.multi_sgd import multi_sgd  # noqa: E402
from d2l.ops.positional_encoding import positional_encoding  # noqa: E402

__all__ = ['LibraryError', 'activation', 'add_norm', 'additive_attention', 'attention', 'available',
           'batch_dot', 'bias_activation', 'composed', 'conv2d', 'dense', 'dropout', 'embedding',
           'global_norm_clip', 'info', 'layer_norm', 'load', 'masked_softmax', 'masked_softmax_ce',
           'multi_adam', 'multi_adamw', 'multi_dense', 'multi_lamb', 'multi_sgd',
           'positional_encoding', 'random_seed']
