"""Operators: the Python face of the kernels in src/operators, one file an operator."""
from d2l.ops._library import LibraryError, available, composed, info, load

load()

from d2l.ops.global_norm_clip import global_norm_clip  # noqa: E402
from d2l.ops.layer_norm import layer_norm  # noqa: E402
from d2l.ops.masked_softmax import masked_softmax  # noqa: E402
from d2l.ops.multi_adam import multi_adam, multi_adamw  # noqa: E402
from d2l.ops.multi_lamb import multi_lamb  # noqa: E402
from d2l.ops.multi_sgd import multi_sgd  # noqa: E402

__all__ = ['LibraryError', 'available', 'composed', 'global_norm_clip', 'info', 'layer_norm',
           'load', 'masked_softmax', 'multi_adam', 'multi_adamw', 'multi_lamb', 'multi_sgd']
