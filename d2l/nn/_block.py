"""What the blocks of d2l have beyond Gluon's: arguments that may be None, children of any kind."""
import logging

from mxnet import autograd, sym
from mxnet.gluon import nn
from mxnet.gluon.block import _flatten
from mxnet.ndarray import NDArray

from d2l.nn import _gluon

_logger = logging.getLogger('d2l')
_gluon.install()
_GRAPH = ('_cached_graph', '_cached_op', '_cached_op_args', '_in_format', '_out_format')


class HybridBlock(nn.HybridBlock):
    """A HybridBlock whose calls may differ in which arguments are None, hybridized or not.

    Gluon compiles the first call's structure and refuses others; here each structure gets a graph
    of its own, and so does each value of ``_kind()``.  ``export`` writes the graph of the last
    call.  What is returned may have None among its arrays, too.
    """

    def _kind(self):
        """What beside the arguments decides the graph; anything that can be a key."""
        return None

    def _call_cached_op(self, *args):
        structure = _structure(args), self._kind()
        if structure != self._structure:
            if self._structure is not None:
                self._graphs[self._structure] = [getattr(self, name, None) for name in _GRAPH]
            known = self._graphs.get(structure, [(), None, [], None, None])
            for name, value in zip(_GRAPH, known):
                setattr(self, name, value)
            self._structure = structure
        return _with_none(super()._call_cached_op(*args))

    def _get_graph(self, *args):
        trace = self.hybrid_forward
        self.hybrid_forward = lambda *args, **kwargs: _without_none(trace(*args, **kwargs))
        try:
            return super()._get_graph(*args)
        finally:
            del self.hybrid_forward

    def _clear_cached_op(self):
        super()._clear_cached_op()
        self._graphs, self._structure = {}, None

    def _infer_attrs(self, infer_fn, attr, *args):
        # Gluon's own demands that the graph has all parameters; without an optional argument it
        # need not.
        inputs, out = self._get_graph(*args)
        arrays = [array for array in _flatten(args, 'input')[0] if array is not None]
        known = {node.name: getattr(array, attr) for node, array in zip(inputs, arrays)}
        arguments, _, states = getattr(out, infer_fn)(**known)
        found = dict(zip(out.list_arguments(), arguments))
        found.update(zip(out.list_auxiliary_states(), states))
        for parameter in self.collect_params().values():
            if parameter.name in found:
                setattr(parameter, attr, found[parameter.name])


class OpenBlock(HybridBlock):
    """A HybridBlock that also takes plain Blocks as children, and subclasses with ``forward``.

    Without such parts it hybridizes like any other.  With them, ``hybridize()`` compiles what can
    be compiled inside and logs what cannot.
    """

    def register_child(self, block, name=None):
        if isinstance(block, nn.HybridBlock):
            super().register_child(block, name)
        else:
            nn.Block.register_child(self, block, name)
            self._clear_cached_op()

    def hybridize(self, active=True, **kwargs):
        """Compile this block; where plain Blocks or a plain ``forward`` forbid it, its parts."""
        obstacles = self._obstacles() if active else []
        if not obstacles:
            super().hybridize(active, **kwargs)
            return
        super().hybridize(False)
        _logger.warning('hybridize: %s is not compiled as a whole, since %s; those of its blocks '
                        'that can be compiled are', type(self).__name__, ', '.join(obstacles))
        for child in self._children.values():
            child.hybridize(active, **kwargs)

    def _obstacles(self):
        """What keeps this block from being compiled, in words."""
        found = []
        if _overrides_forward(type(self)):
            found.append('its forward() is plain Python (hybrid_forward() would be compiled)')
        for name, child in self._children.items():
            if not isinstance(child, nn.HybridBlock):
                found.append(f'{name} is a plain {type(child).__name__}')
            elif isinstance(child, OpenBlock) and child._obstacles():
                found.append(f'{name} cannot be')
        return found


def does_just(block, cls):
    """Whether a block does what cls does and no more, so that an operator may stand in for it.

    No subclass or other block in its place, as a reader may set, and nothing hooked to it, as
    ``summary`` does.
    """
    return type(block) is cls and not block._forward_hooks and not block._forward_pre_hooks


def parameter_of_child(parameter, like):
    """What ``hybrid_forward`` would get for a parameter of its own; like is one of its arrays."""
    return parameter.data(like.ctx) if isinstance(like, NDArray) else parameter.var()


def constant(array):
    """An array, or None, through which no gradient goes.

    MXNet runs an operator apart from the rest of a graph's fixed sequence (static_alloc,
    static_shape) where it reads an argument of the graph; what is made of the argument is read as
    anything else.  And no gradients are added up that nobody asked for.
    """
    if array is None:
        return None
    if isinstance(array, NDArray):
        return array.detach() if autograd.is_recording() else array
    return sym.stop_gradient(array.as_nd_ndarray()).as_np_ndarray()


def _overrides_forward(cls):
    """Whether ``forward`` was overridden without ``hybrid_forward``, which tracing needs."""
    for base in cls.__mro__:
        if 'hybrid_forward' in vars(base):
            return False
        if 'forward' in vars(base):
            return True
    return False


# A graph has no output that is None.  Gluon puts the outputs of a call into lists as they were when
# the block was traced; these two lists, which take no output, stand there for None.
_NONE = [[]]


def _without_none(outputs):
    if isinstance(outputs, (list, tuple)):
        return [_without_none(item) for item in outputs]
    return _NONE if outputs is None else outputs


def _with_none(outputs):
    if not isinstance(outputs, list):
        return outputs
    if len(outputs) == 1 and isinstance(outputs[0], list) and not outputs[0]:
        return None
    return [_with_none(item) for item in outputs]


def _structure(args):
    """Where the arguments, which may be nested lists, are None; trailing ones do not count."""
    formats = list(_flatten(args, 'input')[1])
    while formats and formats[-1] == -1:
        formats.pop()
    return repr(formats)
