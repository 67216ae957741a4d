"""The NumPy names that MXNet reads and NumPy has removed since, for MXNet's modules alone.

Who may see them?  Only MXNet and its kin, for code elsewhere that asks hasattr(numpy, 'bool')
must get the true answer.  Three ways were weighed:
  * names put into numpy during the import and taken out again: wrong for other threads that
    import or run meanwhile, and for modules of MXNet that are imported, or import NumPy, later;
  * a stand-in as sys.modules['numpy'] during the import: everything that MXNet pulls in keeps it;
  * a stand-in that only these modules get from their import statements.
The third is what happens here.  Python looks up __import__ in the builtins of the module that
executes the statement, so a module with builtins of its own has an import of its own: at any
time, in any thread, inside functions too, and nothing global changes.  The stand-in holds
NumPy's own objects, so isinstance, pickle and identity of classes are untouched.  The price:
a test that replaces builtins.open, say, is not noticed by MXNet's modules.

``_compat.py`` loads this file when MXNet is really imported.
"""
import builtins
import sys
from types import SimpleNamespace


def builtins_with(numpy, names):
    """The builtins of a module for which NumPy has ``names`` (name -> value) besides its own."""
    # An exact module with a full dict, not a class with __getattr__: attribute access from MXNet's
    # hot paths stays as fast as on NumPy itself.  __getattr__ serves what NumPy loads lazily.
    stand_in = type(sys)('numpy')
    stand_in.__dict__.update(vars(numpy), **names)
    stand_in.__getattr__ = lambda name: getattr(numpy, name)

    def scoped_import(name, globals=None, locals=None, fromlist=(), level=0):
        if name == 'numpy':
            # Importlib would ask NumPy itself for `from numpy import bool`, and NumPy would warn.
            fromlist = [wanted for wanted in fromlist or () if wanted not in names]
        module = builtins.__import__(name, globals, locals, fromlist, level)
        return stand_in if module is numpy else module

    return dict(vars(builtins), __import__=scoped_import)


def removed_names(numpy):
    """name -> value of what MXNet, gluoncv and gluonnlp read and this NumPy lacks."""
    version = tuple(int(part) for part in numpy.__version__.split('.')[:2])
    if version < (1, 24):
        return {}
    names = {'bool': bool, 'int': int, 'float': float, 'complex': complex, 'object': object,
             'str': str}
    names.update((name, _financial) for name in ('mirr', 'npv', 'pmt', 'ppmt', 'pv', 'rate'))
    if version < (2, 0):
        return names
    gone = {'Inf': numpy.inf, 'PINF': numpy.inf, 'NINF': -numpy.inf, 'NaN': numpy.nan,
            'NAN': numpy.nan, 'PZERO': 0.0, 'NZERO': -0.0, 'alltrue': numpy.all,
            'sometrue': numpy.any, 'product': numpy.prod, 'round_': numpy.round,
            'row_stack': numpy.vstack, 'msort': lambda a: numpy.sort(a, axis=0),
            'in1d': lambda ar1, ar2, **kwargs: numpy.isin(numpy.ravel(ar1), ar2, **kwargs),
            'trapz': getattr(numpy, 'trapezoid', None),
            'compat': SimpleNamespace(basestring=str)}
    names.update((name, value) for name, value in gone.items() if name not in vars(numpy))
    return names


def _financial(*args, **kwargs):
    raise RuntimeError('NumPy 1.20 has removed its financial functions: see numpy_financial')


# Modules that hand operator attributes to the C library as str(value).
_ATTRIBUTE_MODULES = ('mxnet._ctypes.ndarray', 'mxnet._ctypes.symbol', 'mxnet.symbol.symbol',
                      'mxnet.io.io')


def mend(module):
    """Two habits of MXNet that newer NumPy breaks, mended in the module that has them."""
    import numpy
    if module.__name__ in _ATTRIBUTE_MODULES and repr(numpy.int64(2)) != '2':
        module.str = attribute_str(numpy)
    if module.__name__ == 'mxnet.recordio' and not hasattr(numpy.ndarray, 'tostring'):
        for function in (module.pack, module.pack_img):
            names = function.__code__.co_names
            function.__code__ = function.__code__.replace(
                co_names=tuple('tobytes' if name == 'tostring' else name for name in names))


def attribute_str(numpy):
    """A ``str`` that writes (numpy.int64(2), 3) as '(2, 3)', which the C library can read.

    NumPy 2 writes '(np.int64(2), 3)'.  Its ``set_printoptions(legacy='1.25')`` would cure that,
    for everybody's arrays; this cures it for MXNet's attributes only.
    """
    def text(value):
        if type(value) is tuple:
            return f'({", ".join(map(text, value))}{"," if len(value) == 1 else ""})'
        if type(value) is list:
            return f'[{", ".join(map(text, value))}]'
        if isinstance(value, numpy.generic) and not isinstance(value, (str, bytes)):
            return str(value)
        return repr(value)

    class Meta(type):
        def __instancecheck__(cls, value):
            return isinstance(value, str)

        def __call__(cls, *args):
            if args and type(args[0]) in (tuple, list):
                return text(args[0])
            return str(*args)

    return Meta('str', (str,), {})
