"""Files under the names and in the formats of ``DATA_HUB``, for tests and benchmarks.

Each module beside this one makes the files of one kind.  ``REAL`` maps a hub name to a function
(shared, folder) that writes the file into folder, made of real data of the shared data folder.
``SAMPLES`` maps a hub name to a function (folder) that makes one in the same format out of what
ships with the package, so that loaders and loops also run where the shared folder is absent.
"""
import importlib
import os
import pkgutil

SHARED = os.path.join(os.path.dirname(os.path.abspath(__file__)), *[os.pardir] * 3, 'shared',
                      'data')


def makers(table):
    """hub name -> function, of the table 'REAL' or 'SAMPLES', from all modules."""
    found = {}
    for info in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f'{__name__}.{info.name}')
        for name, function in getattr(module, table, {}).items():
            assert name not in found, f'two modules make {name}'
            found[name] = function
    return found


def build(name, folder, real=True, shared=SHARED):
    """Write the hub file of a name into folder, which is made if need be."""
    os.makedirs(folder, exist_ok=True)
    if real:
        makers('REAL')[name](str(shared), str(folder))
    else:
        makers('SAMPLES')[name](str(folder))
