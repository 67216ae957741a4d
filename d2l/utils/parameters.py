"""The parameters of a net, found fast enough for every step."""
from mxnet import gluon


def parameters_of(net):
    """Return the list of a Block's parameters, those of its children included, each once.

    It is list(net.collect_params().values()), which takes longer than the step of a small net: for
    each block on the way it makes an ordered dictionary and looks through all attributes.
    """
    found = {}
    _collect(net, found)
    return list(found.values())


def _collect(block, found):
    if type(block).collect_params is not gluon.Block.collect_params:
        found.update(block.collect_params().items())
        return
    found.update(block._params._params)
    for child in block._children.values():
        _collect(child, found)
