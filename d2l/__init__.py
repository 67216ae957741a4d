"""d2l: hybridizable blocks, fast operators and the book's API for MXNet and Gluon.

``from d2l import mxnet as d2l`` gives every name of *Dive into Deep Learning* (MXNet edition).
This module imports neither MXNet nor NumPy.  It only prepares the process for them, so that
the first ``import mxnet`` that follows works on a current NumPy and uses the whole processor.
"""
from d2l import _compat

__version__ = '0.1.0'

_compat.prepare()
