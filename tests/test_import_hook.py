"""src/import_hook.py: `import mxnet` alone imports d2l first, in fresh processes."""
import runpy

import pytest

from tests.stand_in import NUMPY_LACKS_BOOL, ROOT, STAND_IN, Site

LINE = runpy.run_path(str(ROOT / 'setup.py'), run_name='setup')['import_hook']()


@pytest.fixture
def site(tmp_path):
    return Site(tmp_path).write(STAND_IN)


def test_it_is_one_line_for_a_pth_file():
    assert LINE.startswith('import ') and LINE.count('\n') == 1 and LINE.endswith('\n')


def test_mxnet_alone_is_prepared_and_nothing_is_imported_before(site):
    out, err = site.run(LINE + '''
import sys
import json
print('d2l' in sys.modules, 'numpy' in sys.modules)
import mxnet, mxnet.contrib
print(sys.modules['d2l']._compat.report()['mxnet_imported'], mxnet.util.bool_type)
''')
    assert out.splitlines() == ['False False', "after d2l <class 'bool'>"] and err == ''


def test_d2l_first_by_itself_is_as_before(site):
    out, err = site.run(LINE + '''
import sys, d2l, mxnet
print([type(finder).__name__ for finder in sys.meta_path].count('_Finder'), mxnet.util.bool_type)
print(d2l._compat.report()['threads']['set_by'])  # 'user' if MXNet's import were prepared twice
''')
    assert out.splitlines() == ["1 <class 'bool'>", 'd2l'] and err == ''


@pytest.mark.skipif(not NUMPY_LACKS_BOOL, reason='this NumPy has numpy.bool')
@pytest.mark.parametrize('files, variables', [
    ({}, {'D2L_COMPAT': '0'}), ({'d2l.py': 'raise ImportError'}, {})], ids=['off', 'without d2l'])
def test_where_d2l_does_nothing_mxnet_fails_as_ever(site, files, variables):
    out, _ = site.write(files).run(LINE + '''
try:
    import mxnet
except (AttributeError, ImportError) as error:
    print(type(error).__name__)
''', **variables)
    assert out in ('AttributeError', 'ImportError')


def test_mxnet_that_is_missing(tmp_path):
    code = LINE + '''
try:
    exec(statement, {'__name__': module})
except ImportError as error:
    print(type(error).__name__, error)
'''
    bare = Site(tmp_path)
    out, _ = bare.run("statement, module = 'import mxnet', 'my_program'\n" + code, '-S')
    assert out == "ModuleNotFoundError No module named 'mxnet'"
    out, _ = bare.run("statement, module = 'import mxnet', 'd2l.nn.attention'\n" + code, '-S')
    assert 'd2l needs MXNet 1.9.1, which is not installed' in out
