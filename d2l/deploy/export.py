"""Export a hybridizable net and load it where its Python code is not."""
import json
import os
import warnings

import mxnet as mx
from mxnet import autograd, gluon

from d2l import ops


def export_model(net, prefix, *inputs):
    """Write ``prefix-symbol.json`` and ``prefix-0000.params``; return both names.

    net is a HybridBlock, inputs are example arrays (only their shapes and dtypes matter); it is
    hybridized if it is not yet, and keeps its parameters.  The folder is made if needed, and
    both files get their names only when they are complete.

    Raises TypeError for a net that cannot be hybridized and ValueError without inputs.
    """
    if not isinstance(net, gluon.HybridBlock):
        raise TypeError('export_model: net must be a HybridBlock, got {}; plain Blocks have no '
                        'graph to export'.format(type(net).__name__))
    if not inputs:
        raise ValueError('export_model: at least one example input is needed to trace the net')
    if not net._active:
        net.hybridize()
    with autograd.predict_mode():
        net(*inputs)
    mx.npx.waitall()
    folder, name = os.path.split(os.path.abspath(prefix))
    os.makedirs(folder, exist_ok=True)
    fresh = os.path.join(folder, '.{}.{}'.format(name, os.getpid()))
    names = []
    try:
        net.export(fresh)
        for suffix in ('-0000.params', '-symbol.json'):
            names.append(os.path.join(folder, name + suffix))
            os.replace(fresh + suffix, names[-1])
    finally:
        for suffix in ('-0000.params', '-symbol.json'):
            if os.path.exists(fresh + suffix):
                os.remove(fresh + suffix)
    return names[1], names[0]


def load_model(prefix, ctx=None):
    """Load what ``export_model`` (or a block's own ``export``) wrote: a SymbolBlock.

    prefix as there; ctx is the device, by default the CPU.  The names of the inputs are read
    from the file, in the order in which the net took them.

    Raises FileNotFoundError if a file is missing, ValueError for one that is no exported net,
    and ``d2l.ops.LibraryError`` if the net needs d2l's operators and they are not built.
    """
    symbol_file, params_file = prefix + '-symbol.json', prefix + '-0000.params'
    for name in (symbol_file, params_file):
        if not os.path.isfile(name):
            raise FileNotFoundError('load_model: {} is not there; prefix must be what was given '
                                    'to export_model, got {!r}'.format(name, prefix))
    with open(symbol_file, encoding='utf-8') as f:
        text = f.read()
    try:
        nodes = json.loads(text)['nodes']
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError('load_model: {} is no exported net'.format(symbol_file)) from error
    _check_operators(symbol_file, nodes)
    known = {key.split(':', 1)[-1] for key in mx.nd.load(params_file)}
    inputs = [n['name'] for n in nodes if n['op'] == 'null' and n['name'] not in known]
    with warnings.catch_warnings():
        # SymbolBlock asks each input for its dtype, which nothing has told it yet.
        warnings.filterwarnings('ignore', 'Cannot decide type', UserWarning)
        return gluon.SymbolBlock.imports(symbol_file, sorted(inputs, key=_input_order),
                                         params_file, ctx=ctx or mx.cpu())


def _input_order(name):
    """data, or data0, data1, ..., data10."""
    digits = name[len('data'):] if name.startswith('data') else ''
    return (int(digits) if digits.isdigit() else 0, name)


def _check_operators(symbol_file, nodes):
    needed = {n['op'][len('_npx_d2l_'):] for n in nodes if n['op'].startswith('_npx_d2l_')}
    missing = sorted(needed - set(ops.available()))
    if missing:
        raise ops.LibraryError(
            'load_model: {} needs the operators {}, which are not loaded: {}'.format(
                symbol_file, ', '.join(missing),
                ops.info()['error'] or 'the library {} is not there'.format(ops.info()['path'])))
