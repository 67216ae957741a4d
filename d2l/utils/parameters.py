"""The parameters of a net, found fast enough for every step."""
from mxnet import gluon


def parameters_of(net):
    """Return the list of a Block's parameters, those of its children included, each once.

    It is list(net.collect_params().values()), which takes longer than the step of a small net: for
    each block on the way it makes an ordered dictionary and looks through all attributes.
    """
    found, blocks, theirs = {}, [net], gluon.Block.collect_params
    while blocks:
        block = blocks.pop()
        if type(block).collect_params is not theirs:
            found.update(block.collect_params().items())
            continue
        if block._params._params:
            found.update(block._params._params)
        if block._children:
            blocks += reversed(block._children.values())
    return list(found.values())
