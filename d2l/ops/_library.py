"""Loads the operator library into MXNet, once.

The library is ``libd2l_ops.so`` beside this file, or what ``D2L_OPS_LIBRARY`` names.
``D2L_OPS=0`` leaves it out: the operators are then composed from MXNet's own.
"""
import contextlib
import ctypes
import json
import logging
import os
import threading

from mxnet import base as _base

from d2l import __version__  # noqa: F401  (importing d2l prepares the process for MXNet)
from d2l.ops import _native
from d2l.utils._native import library_path

_log = logging.getLogger('d2l')
_MXNET_VERSION = '1.9.1'
_REORDER = '_ZN5mxnet7NDArray5Chunk15Reorder2DefaultEv'
# DirectFunctions of src/operators/mxnet/direct.h.  The first one takes a string as GCC before 5
# made them; a build of MXNet with another one lacks it.
_DIRECT = ('_ZN4nnvm2Op10GetAttrMapERKSs', 'MXNDArrayGetData',
           '_ZNK5mxnet7NDArray5Chunk8IsMKLDNNEv', '_ZNK5mxnet7NDArray15Reorder2DefaultEv',
           '_ZN5mxnet7NDArrayD1Ev')


class LibraryError(ImportError):
    """The operator library is there but cannot be used."""


class Library:
    """The loaded library: operator handles for MXNet and the plain C interface.

    Attributes: path; isa, the instruction set in use; build, what the build noted
    (compiler, targets, cuda); handles, name -> MXNet's operator handle; required, name -> how many
    of the first inputs every call must have; direct, names of the operators whose kernels MXNet
    calls without the detour of its interface for extensions.
    """

    def __init__(self, path):
        self.path = path
        try:
            self.c = ctypes.CDLL(path)
            self.c.d2l_build_info.restype = ctypes.c_char_p
            self.c.d2l_active_target.restype = ctypes.c_char_p
            self.c.d2l_op_name.restype = ctypes.c_char_p
            self.c.d2l_op_target.restype = ctypes.c_char_p
        except (OSError, AttributeError) as error:
            raise LibraryError('the operator library {} cannot be loaded: {}. Build it anew '
                               '(make build, or pip install again), or set D2L_OPS=0 to do '
                               'without it'.format(path, error)) from error
        self.build = json.loads(self.c.d2l_build_info().decode())
        message = ctypes.create_string_buffer(512)
        target = self.c.d2l_active_target(message, len(message))
        if target is None:
            raise LibraryError(message.value.decode())
        self.isa = target.decode()
        _check_mxnet_version()
        try:
            _base.check_call(_base._LIB.MXLoadLib(path.encode(), _base.mx_uint(0)))
        except _base.MXNetError as error:
            raise LibraryError('MXNet refuses the operator library {}: {}'.format(
                path, str(error).strip().splitlines()[-1])) from error
        self.c.d2l_set_reorder(_address(_REORDER))
        self.c.d2l_set_push(_address('MXEnginePushSyncND'))
        self.c.d2l_set_grad_state(_address('MXNDArrayGetGradState'),
                                  _address('MXNDArraySetGradState'))
        self.c.d2l_update_new.restype = ctypes.c_void_p
        self.c.d2l_update_free.argtypes = [ctypes.c_void_p]
        self.handles = {name: _handle('_npx_d2l_' + name) for name in self.targets()}
        self.direct = self._go_directly()
        self.required = {self.c.d2l_op_name(i).decode(): _native.tensors(self.c, i)[1]
                         for i in range(sum(map(len, self.targets().values())))}

    def _go_directly(self):
        """Put the CPU's kernels where MXNet calls its own; the names of those that are there."""
        functions = (ctypes.c_void_p * len(_DIRECT))(*map(_address, _DIRECT))
        indices = range(sum(map(len, self.targets().values())))
        names = [self.c.d2l_op_name(i).decode() for i in indices
                 if self.c.d2l_op_target(i).decode() == self.isa and not self.c.d2l_op_updates(i)]
        self.c.d2l_direct_count.restype = ctypes.c_int64
        return [name for name in names if self.c.d2l_direct_install(
            functions, name.encode(), *(ctypes.c_void_p(_handle(prefix + name))
                                        for prefix in ('_npx_d2l_', '_backward__npx_d2l_'))) == 0]

    def targets(self):
        """Operator name -> targets it was built for, such as ['v2', 'v3', 'v4', 'cuda']."""
        found, i = {}, 0
        while self.c.d2l_op_name(i) is not None:
            found.setdefault(self.c.d2l_op_name(i).decode(), []).append(
                self.c.d2l_op_target(i).decode())
            i += 1
        return found

    def handle(self, name):
        """MXNet's handle of an operator."""
        try:
            return self.handles[name]
        except KeyError:
            raise LibraryError('the library {} has no operator {} (it has {}); build it anew: '
                               'make build'.format(self.path, name,
                                                   ', '.join(sorted(self.handles)))) from None

    def runs_on(self, device_type):
        """Whether arrays on 'cpu' or 'gpu' can be handed to the kernels."""
        return device_type != 'gpu' or self.build['cuda'] is not None


def _check_mxnet_version():
    import mxnet
    if mxnet.__version__ != _MXNET_VERSION:
        raise LibraryError("d2l's operators need MXNet {}, this is {}".format(
            _MXNET_VERSION, mxnet.__version__))


def _address(symbol):
    """A function of MXNet; null if this build does not have it."""
    return ctypes.cast(getattr(_base._LIB, symbol, None), ctypes.c_void_p)


def _handle(op_name):
    handle = ctypes.c_void_p()
    _base.check_call(_base._LIB.NNGetOpHandle(op_name.encode(), ctypes.byref(handle)))
    return handle.value


class _State:
    lock = threading.Lock()
    tried = False
    library = None
    error = None
    warned = False


_composed = threading.local()


def load():
    """Load the library if that has not been tried yet; keep the exception if it fails."""
    with _State.lock:
        if _State.tried or os.environ.get('D2L_OPS') == '0':
            return
        _State.tried = True
        path = library_path()
        if not os.path.exists(path):
            return
        try:
            _State.library = Library(path)
        except LibraryError as error:
            _State.error = error
            _log.warning('%s', error)


def library():
    """The library to run kernels with, or None where the composed operators are to run.

    Raises LibraryError if a library is there but broken.
    """
    if getattr(_composed, 'on', False):
        return None
    if _State.library is not None:
        return _State.library
    if _State.error is not None:
        raise _State.error
    if os.environ.get('D2L_OPS') != '0' and not _State.warned:
        _State.warned = True
        _log.warning("d2l's operator library %s is not there: slower operators, composed from "
                     "MXNet's own, are used. Build it with `make build` (needs g++).",
                     library_path())
    return None


@contextlib.contextmanager
def composed():
    """Within this scope (of this thread) operators are composed from MXNet's own.

    For comparisons: tests and benchmarks run an operator both ways with it.
    """
    before = getattr(_composed, 'on', False)
    _composed.on = True
    try:
        yield
    finally:
        _composed.on = before


def available():
    """Names of the operators that run as kernels; empty without a library."""
    return sorted(_State.library.handles) if _State.library is not None else []


def info():
    """What there is to know about the library, for ``d2l env`` and bug reports.

    A dict with path, loaded, error (text or None), isa (in use), isas (built), operators
    (name -> targets), cuda (None, or its version and architectures) and build.
    """
    found = _State.library
    return {
        'path': found.path if found else library_path(),
        'loaded': found is not None,
        'error': str(_State.error) if _State.error else None,
        'isa': found.isa if found else None,
        'isas': found.build['targets'] if found else [],
        'operators': found.targets() if found else {},
        'cuda': found.build['cuda'] if found else None,
        'build': found.build if found else {},
    }
