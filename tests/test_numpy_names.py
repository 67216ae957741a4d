"""MXNet's modules see the names that NumPy has removed, in fresh processes with a small MXNet."""
import sys
import types

import numpy
import pytest

from d2l import _numpy_names
from tests.stand_in import STAND_IN, Site


@pytest.fixture
def site(tmp_path):
    return Site(tmp_path).write(STAND_IN)


def test_mxnet_sees_the_removed_names_and_nobody_else(site):
    out, err = site.run('''
        import numpy
        before = dict(vars(numpy))
        import d2l, mxnet, mxnet.contrib, gluoncv, outsider
        u = mxnet.util
        print(u.bool_type is bool, u.from_import is bool, u.later() is float,
              mxnet.contrib.int_type is int, gluoncv.float_type is float)
        print(u.np.ndarray is numpy.ndarray, u.rnd is numpy.random, u.np.linalg is numpy.linalg,
              u.np.testing is numpy.testing)
        numpy.brought_later = 5
        print(u.np.brought_later)
        del numpy.brought_later
        new = set(vars(numpy)) - set(before)
        print(new.isdisjoint(d2l._compat.report()['numpy']['names']), outsider.np is numpy,
              outsider.has_bool == ('bool' in before))
    ''')
    lines = out.splitlines()
    assert lines[0] == 'True True True True True'
    assert lines[1] == 'True True True True'
    assert lines[2] == '5'
    assert lines[3] == 'True True True'
    assert 'Warning' not in err


def test_threads_that_import_and_look_meanwhile(site):
    """The user's numpy has none of the names at any time, whoever imports MXNet."""
    slow = {f'mxnet/part{i}.py': '''
        import time
        import numpy as np
        first = np.bool
        time.sleep(0.02)
        import numpy
        second = numpy.int
    ''' for i in range(4)}
    out, _ = site.write(slow).run('''
        import importlib, threading, numpy, d2l
        before = 'int' in vars(numpy)
        seen, failed, done = set(), [], threading.Event()
        def look():
            while not done.is_set():
                seen.add('int' in vars(numpy))
        def load(i):
            try:
                module = importlib.import_module(f'mxnet.part{i}')
                assert (module.first, module.second) == (bool, int)
            except BaseException as error:
                failed.append(error)
        watcher = threading.Thread(target=look)
        loaders = [threading.Thread(target=load, args=(i,)) for i in range(4)]
        for thread in [watcher] + loaders: thread.start()
        for thread in loaders: thread.join()
        done.set(); watcher.join()
        print(failed, seen == {before})
    ''')
    assert out == '[] True'


def test_modules_look_and_behave_like_any_other(site):
    out, _ = site.run('''
        import importlib, inspect, pickle, pkgutil, d2l, mxnet.contrib
        from importlib.machinery import SourceFileLoader
        print(type(mxnet.contrib.__loader__) is SourceFileLoader,
              'int_type' in inspect.getsource(mxnet.contrib),
              b'int_type' in pkgutil.get_data('mxnet', 'contrib.py'),
              importlib.reload(mxnet.contrib).int_type is int,
              importlib.reload(mxnet).base is mxnet.base,
              pickle.loads(pickle.dumps(mxnet.util.later)) is mxnet.util.later)
    ''')
    assert out == 'True True True True True True'


@pytest.mark.parametrize('version', ['1.23.5', '1.24.0', '1.26.4', '2.0.0', '2.4.0rc1'])
def test_names_for_each_numpy(version):
    fake = types.SimpleNamespace(**vars(numpy))
    fake.__version__ = version
    for name in ('bool', 'NINF', 'alltrue', 'in1d'):
        vars(fake).pop(name, None)
    names = _numpy_names.removed_names(fake)
    if version < '1.24':
        assert names == {}
        return
    assert names['bool'] is bool and names['float'] is float
    with pytest.raises(RuntimeError, match='numpy_financial'):
        names['npv'](0.1, [1])
    assert ('NINF' in names) == (version >= '2')
    if version >= '2':
        assert names['NINF'] == -numpy.inf and names['alltrue']([True, True])
        assert names['in1d']([[1], [2]], [2]).tolist() == [False, True]
        assert 'inf' not in names, 'a name that is there must stay what it is'


def test_every_name_that_mxnet_reads_is_there():
    """What an import of MXNet 1.9.1, gluoncv 0.10 or gluonnlp 0.10 asks a NumPy 2 for."""
    wanted = set('bool int float Inf NaN NAN PINF NINF PZERO NZERO alltrue sometrue product round_ '
                 'row_stack msort in1d trapz compat mirr npv pmt ppmt pv rate'.split())
    fake = types.SimpleNamespace(**vars(numpy))
    fake.__version__ = '2.4.0'
    for name in wanted:
        vars(fake).pop(name, None)
    names = _numpy_names.removed_names(fake)
    assert wanted <= set(names)
    assert names['compat'].basestring is str


def test_names_that_numpy_still_has_are_not_replaced():
    fake = types.SimpleNamespace(**vars(numpy))
    fake.__version__, fake.msort = '2.0.0', 'its own'
    assert 'msort' not in _numpy_names.removed_names(fake)


class Scalar:
    """A numpy.generic as NumPy 2 prints it."""

    def __init__(self, value):
        self.value = value

    def __str__(self):
        return str(self.value)

    def __repr__(self):
        return f'np.int64({self.value})'


def test_attributes_are_written_without_numpy_names():
    text = _numpy_names.attribute_str(types.SimpleNamespace(generic=Scalar))
    assert text((Scalar(2), 3)) == '(2, 3)'
    assert text((Scalar(2),)) == '(2,)'
    assert text([(Scalar(1), 2), []]) == '[(1, 2), []]'
    assert text(('a', None)) == str(('a', None))
    assert text(Scalar(5)) == '5' and text(1.5) == '1.5' and text() == ''
    assert type(text((Scalar(2),))) is str
    assert isinstance('x', text) and not isinstance(b'x', text)
    assert text.join(',', 'ab') == 'a,b'


@pytest.fixture
def numpy_with(monkeypatch):
    """Another NumPy."""
    def replace(int64, ndarray):
        fake = types.SimpleNamespace(int64=int64, ndarray=ndarray, generic=Scalar)
        monkeypatch.setitem(sys.modules, 'numpy', fake)
    return replace


@pytest.mark.parametrize('scalar, mended', [(Scalar, True), (int, False)])
def test_str_is_replaced_only_where_numpy_prints_its_names(numpy_with, scalar, mended):
    numpy_with(scalar, numpy.ndarray)
    for name, expected in (('mxnet._ctypes.ndarray', mended), ('mxnet.metric', False)):
        module = types.ModuleType(name)
        _numpy_names.mend(module)
        assert hasattr(module, 'str') == expected


@pytest.mark.parametrize('has_tostring', [True, False])
def test_recordio_without_tostring(numpy_with, has_tostring):
    class Array:
        def tobytes(self):
            return b'bytes'
    if has_tostring:
        Array.tostring = lambda self: b'string'
    numpy_with(int, Array)
    module = types.ModuleType('mxnet.recordio')
    module.pack = lambda header, s: header.tostring() + s
    module.pack_img = lambda header, img: module.pack(header, img.tostring())
    _numpy_names.mend(module)
    assert module.pack_img(Array(), Array()) == (b'string' if has_tostring else b'bytes') * 2
