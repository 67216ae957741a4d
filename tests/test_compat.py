"""Both sides of every condition in d2l/_compat.py, mostly in fresh processes with a small MXNet.

test_numpy_names.py has NumPy's removed names, test_compat_machine.py threads and BLAS.
"""
import importlib.util
import shutil
import sys

import pytest

from d2l import _compat
from tests.stand_in import NUMPY_LACKS_BOOL, ROOT, STAND_IN, Site


@pytest.fixture
def site(tmp_path):
    return Site(tmp_path).write(STAND_IN)


@pytest.fixture
def bare(tmp_path):
    """Without MXNet and, run with -S, without site-packages."""
    return Site(tmp_path)


# --- prepare --------------------------------------------------------------------------------------

def test_import_d2l_imports_neither_numpy_nor_mxnet(site):
    out, _ = site.run('''
        import sys, os
        before = dict(os.environ)
        import d2l
        print([name for name in ('numpy', 'mxnet', 'ctypes', 'importlib.metadata')
               if name in sys.modules], dict(os.environ) == before)
    ''', '-S')
    assert out == '[] True'


def test_prepare_twice_puts_one_finder(site):
    out, _ = site.run('''
        import sys, d2l
        d2l._compat.prepare()
        print([getattr(f, 'is_d2l_compat', False) for f in sys.meta_path].count(True))
    ''')
    assert out == '1'


def test_module_alone_does_its_work(site):
    """Without the package around it, as a program that only wants MXNet to start might use it."""
    out, _ = site.run(f'''
        import importlib.util, sys
        spec = importlib.util.spec_from_file_location('alone', {str(ROOT / 'd2l/_compat.py')!r})
        alone = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(alone)
        alone.prepare()
        import mxnet
        print(mxnet.util.bool_type, 'd2l' in sys.modules, alone.report()['mxnet_imported'])
    ''', path=())
    assert out == "<class 'bool'> False after d2l"


def test_report_is_a_copy_and_says_what_was_done(site):
    out, _ = site.run('''
        import d2l, mxnet
        report = d2l._compat.report()
        report['threads'].clear()
        again = d2l._compat.report()
        print(again['enabled'], again['prepared'], again['mxnet_imported'],
              sorted(again['threads']))
    ''')
    assert out == "True True after d2l ['set_by', 'usable_cores', 'value', 'variable']"


def test_switch_turns_everything_off(site):
    out, _ = site.run('''
        import os, sys
        before = dict(os.environ)
        import d2l
        try:
            import mxnet
            error = None
        except (AttributeError, ImportError) as e:
            error = str(e)
        print(d2l._compat.report()['enabled'], dict(os.environ) == before,
              any(getattr(f, 'is_d2l_compat', False) for f in sys.meta_path),
              error is not None)
    ''', D2L_COMPAT='0')
    assert out == f'False True False {NUMPY_LACKS_BOOL}'


# --- Too late -------------------------------------------------------------------------------------

LATE = '''
    import numpy
    for name in ('bool', 'int', 'float'):
        setattr(numpy, name, getattr(__builtins__, name))
    import mxnet
    {more}
    import d2l
    print(d2l._compat.report()['mxnet_imported'])
'''
MANY_CORES = 'import os; os.sched_getaffinity = lambda pid: set(range(1000, 1008))'


def test_warns_if_mxnet_came_first(site):
    out, err = site.run(LATE.format(more=MANY_CORES))
    assert out == 'before d2l'
    assert 'mxnet was imported before d2l' in err and 'threads' in err and 'BLAS' not in err


def test_says_nothing_if_nothing_is_lost(site):
    out, err = site.run(LATE.format(more=MANY_CORES), OMP_NUM_THREADS='4')
    assert out == 'before d2l' and err == ''


@pytest.mark.skipif(not NUMPY_LACKS_BOOL, reason='this NumPy has numpy.bool')
def test_import_works_after_one_that_failed(site):
    """What people do: import mxnet fails on numpy.bool, so they try again with d2l."""
    out, err = site.run(f'''
        try:
            import mxnet
        except (AttributeError, ImportError) as error:
            print('failed')
        {MANY_CORES}
        import d2l
        import mxnet, mxnet.contrib
        print(mxnet.util.bool_type, mxnet.contrib.int_type, mxnet.base.later())
    ''')
    assert out.splitlines() == ['failed', "<class 'bool'> <class 'int'> <class 'bool'>"]
    assert 'mxnet was imported before d2l' in err


# --- A missing, broken or wrong MXNet -------------------------------------------------------------

MISSING = '''
    import d2l
    try:
        exec('{statement}', {{'__name__': '{module}'}})
    except ImportError as error:
        print(type(error).__name__, error.name, error)
'''


@pytest.mark.parametrize('statement', [
    'import mxnet', 'from mxnet import np', 'import mxnet.gluon',
    'import importlib; importlib.import_module("mxnet")'])
def test_missing_mxnet_for_d2l(bare, statement):
    out, _ = bare.run(MISSING.format(statement=statement, module='d2l.nn.attention'), '-S')
    assert out.startswith('ModuleNotFoundError mxnet d2l needs MXNet 1.9.1')
    assert 'pip install mxnet==1.9.1' in out and 'mxnet-cu112==1.9.1' in out


def test_missing_mxnet_for_others_is_pythons_own_message(bare):
    out, _ = bare.run(MISSING.format(statement='import mxnet', module='my_program'), '-S')
    assert out == "ModuleNotFoundError mxnet No module named 'mxnet'"
    out, _ = bare.run(MISSING.format(
        statement='import importlib.util; print(importlib.util.find_spec("mxnet"))',
        module='d2l.nn.attention'), '-S')
    assert out == 'None'


def test_missing_mxnet_for_gluoncv_is_pythons_own_message(bare):
    """Its import goes through a function of d2l, which is not what asked for MXNet."""
    bare.write({'numpy.py': "__version__ = '1.26.4'", 'gluoncv.py': 'import numpy, mxnet'})
    out, _ = bare.run(MISSING.format(statement='import gluoncv', module='my_program'), '-S')
    assert out == "ModuleNotFoundError mxnet No module named 'mxnet'"


def test_folder_left_over_from_an_uninstalled_mxnet(bare):
    bare.write({'mxnet/libmxnet.so': ''})
    out, _ = bare.run(MISSING.format(statement='import mxnet', module='d2l.nn.attention'), '-S')
    assert out.startswith('ImportError mxnet MXNet is broken') and str(bare.folder) in out
    assert bare.run(MISSING.format(statement='import mxnet', module='mine'), '-S')[0] == ''


def test_folder_of_d2l_on_the_path(bare):
    """`python d2l/cli.py` puts d2l/ on sys.path, where mxnet.py is d2l's own."""
    copy = bare.folder / 'd2l'
    copy.mkdir()
    for name in ('__init__.py', '_compat.py'):
        shutil.copy(str(ROOT / 'd2l' / name), str(copy))
    (copy / 'mxnet.py').write_text('')
    code = MISSING.format(statement='import mxnet', module='my_program')
    out, _ = bare.run(code, '-S', path=(copy,))
    assert out.startswith('ImportError mxnet') and 'python -m d2l' in out
    assert bare.run(code, '-S', path=())[0] == "ModuleNotFoundError mxnet No module named 'mxnet'"
    probe = 'import importlib.util; print(importlib.util.find_spec("mxnet") is None)'
    out, _ = bare.run(MISSING.format(statement=probe, module='my_program'), '-S', path=(copy,))
    assert out == 'False'


@pytest.mark.parametrize('version, warns', [('1.9.1', False), ('1.6.0', True)])
def test_version_of_mxnet(site, version, warns):
    site.write({'mxnet/__init__.py': f'from . import base\n__version__ = {version!r}'})
    _, err = site.run('import d2l, mxnet')
    assert (f'found MXNet {version}' in err) == warns


@pytest.mark.parametrize('names, warns', [
    (['mxnet-1.9.1'], False), ([], False),
    (['mxnet-1.9.1', 'mxnet_model_server-1.0', 'mxnet_to_coreml-0.1'], False),
    (['mxnet-1.9.1', 'mxnet_cu112-1.9.1'], True), (['mxnet_mkl-1.6.0', 'mxnet-1.9.1'], True),
])
def test_two_mxnets_over_each_other(site, names, warns):
    for name in names:
        (site.folder / (name + '.dist-info')).mkdir()
    _, err = site.run('import d2l, mxnet')
    assert ('distributions of MXNet share' in err) == warns
    if warns:
        assert 'pip uninstall -y mxnet mxnet-' in err


def test_distributions_carry_name_and_version(tmp_path):
    for name in ('mxnet_cu117-1.9.1', 'MXNet-1.9.1', 'numpy-1.26.4'):
        (tmp_path / (name + '.dist-info')).mkdir()
    assert _compat.mxnet_distributions(str(tmp_path)) == ['MXNet 1.9.1', 'mxnet-cu117 1.9.1']
    assert _compat.mxnet_distributions(str(tmp_path / 'absent')) == []


@pytest.mark.parametrize('other, warns', [('d2l-1.0.3.dist-info', True),
                                          ('d2l_gluon-0.1.0.dist-info', False)])
def test_the_books_own_package_in_the_same_place(bare, other, warns):
    (bare.folder / 'd2l').mkdir()
    (bare.folder / other).mkdir()
    for name in ('__init__.py', '_compat.py'):
        shutil.copy(str(ROOT / 'd2l' / name), str(bare.folder / 'd2l'))
    _, err = bare.run('import d2l', '-S', path=())
    assert ('d2l 1.0.3 is installed in the same place as d2l-gluon' in err) == warns
    assert ('pip uninstall -y d2l d2l-gluon' in err) == warns


@pytest.mark.parametrize('python, there, fails', [
    ((3, 11, 9), False, False), ((3, 12, 1), True, False), ((3, 12, 1), False, True)])
def test_distutils(monkeypatch, python, there, fails):
    monkeypatch.setattr(sys, 'version_info', python)
    monkeypatch.setitem(sys.modules, 'setuptools', None)
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: object() if there else None)
    if not fails:
        _compat._require_distutils()
        return
    with pytest.raises(ModuleNotFoundError, match='setuptools<81') as caught:
        _compat._require_distutils()
    assert caught.value.name == 'distutils'


def test_distutils_that_only_importing_setuptools_supplies(monkeypatch, tmp_path):
    (tmp_path / 'setuptools.py').write_text('')
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, 'setuptools', raising=False)
    monkeypatch.setattr(sys, 'version_info', (3, 12, 1))
    monkeypatch.setattr(importlib.util, 'find_spec',
                        lambda name: object() if 'setuptools' in sys.modules else None)
    _compat._require_distutils()
    sys.modules.pop('setuptools')


# --- The real MXNet -------------------------------------------------------------------------------

def test_real_mxnet(bare):
    """One process: import, train, every part of MXNet that is imported late, threads, a fork."""
    out, _ = bare.run('''
        import os
        import numpy
        names = set(vars(numpy))
        import d2l
        import mxnet as mx
        from mxnet import autograd, gluon, np, npx
        import mxnet.test_utils, mxnet.contrib.quantization, mxnet.gluon.contrib.nn
        import mxnet.gluon.contrib.estimator, mxnet.contrib.text
        npx.set_np()

        net = gluon.nn.HybridSequential()
        net.add(gluon.nn.Dense(8, activation='relu'), gluon.nn.Dense(numpy.int64(1)))
        net.initialize()
        net.hybridize(static_alloc=True)
        trainer = gluon.Trainer(net.collect_params(), 'adam')
        data = gluon.data.ArrayDataset(numpy.ones((8, 4), 'float32'), numpy.ones((8, 1), 'float32'))
        for X, y in gluon.data.DataLoader(data, 4, num_workers=1):
            with autograd.record():
                l = gluon.loss.L2Loss()(net(X.as_in_ctx(mx.cpu())), y)
            l.backward()
            trainer.step(4)
        print(l.shape, np.zeros((numpy.int64(2), 3)).shape,
              mx.nd.reshape(mx.nd.ones((6,)), shape=(numpy.int64(2), -1)).shape)

        added = set(vars(numpy)) - names
        print(added.isdisjoint(d2l._compat.report()['numpy']['names']),
              'MXNET_OMP_MAX_THREADS' in os.environ,
              os.environ['MXNET_EXEC_INPLACE_GRAD_SUM_CAP'],
              d2l._compat.report()['blas']['core'] == d2l._compat.loaded_openblas_core())

        def helpers():
            """OpenMP's helper threads, seen as the tasks that a product of matrices adds."""
            mx.nd.ones((1,)).wait_to_read()
            before = len(os.listdir('/proc/self/task'))
            a = mx.nd.ones((512, 512))
            mx.nd.dot(a, a).wait_to_read()
            return len(os.listdir('/proc/self/task')) - before
        print(d2l._compat.usable_cores(), flush=True)
        if os.fork() == 0:
            print('child', helpers(), flush=True)
            os._exit(0)
        os.wait()
    ''')
    lines = out.splitlines()
    assert lines[0] == '(4,) (2, 3) (2, 3)'
    assert lines[1] == 'True False 100000 True'
    assert lines[3] == 'child 0'
