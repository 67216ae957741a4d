"""What pyproject.toml promises, and the wheel: built, installed in a fresh venv, used outside."""
import ast
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

try:
    import tomllib
except ImportError:  # before Python 3.11; pytest brings tomli there
    import tomli as tomllib

import d2l

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = tomllib.loads((ROOT / 'pyproject.toml').read_text(encoding='utf-8'))
PROJECT = PYPROJECT['project']
EXTRAS = PROJECT['optional-dependencies']
NAME = 'd2l-gluon'
LIBRARIES = {'d2l/ops/libd2l_ops.so', 'd2l/ops/libd2l_blas.so'}


# --- Metadata -------------------------------------------------------------------------------------

def requirements(extra=None):
    """The requirements of an extra, of the extras it names, and of the package itself."""
    found = []
    for text in EXTRAS[extra] if extra else PROJECT['dependencies']:
        requirement = Requirement(text)
        if requirement.name == NAME:
            for name in requirement.extras:
                found += requirements(name)
        else:
            found.append(requirement)
    return found + (requirements() if extra else [])


def test_name_cannot_be_mistaken_for_the_books_own_package():
    assert PROJECT['name'] == d2l._compat.DISTRIBUTION == NAME


def test_version_is_read_without_importing():
    assert PROJECT['dynamic'] == ['version']
    assert PYPROJECT['tool']['setuptools']['dynamic']['version'] == {'attr': 'd2l.__version__'}
    tree = ast.parse((ROOT / 'd2l' / '__init__.py').read_text())
    values = [node.value for node in tree.body if isinstance(node, ast.Assign)
              and [target.id for target in node.targets] == ['__version__']]
    assert [ast.literal_eval(value) for value in values] == [d2l.__version__]


def test_every_extra_is_there():
    assert set(EXTRAS) == {'mxnet', 'mxnet-cu101', 'mxnet-cu112', 'mxnet-cu117', 'cv', 'nlp',
                           'book', 'notebook', 'onnx', 'viz', 'ring', 'mpi', 'horovod', 'test',
                           'dev'}


@pytest.mark.parametrize('extra', [None] + sorted(EXTRAS))
def test_never_two_mxnets(extra):
    """They fill the same folder mxnet/, so only its own extra may ask for one."""
    found = [str(r) for r in requirements(extra) if r.name.startswith('mxnet')]
    expected = [f'{extra}<2,>=1.9.1'] if (extra or '').startswith('mxnet') else []
    assert found == expected


@pytest.mark.parametrize('package, extra, inside, outside', [
    ('numpy', None, ['1.23.5', '1.26.4'], ['1.22.4', '2.0.0']),
    ('setuptools', None, ['80.10.2'], ['81.0.0']),
    ('gluoncv', 'cv', ['0.10.5'], ['0.11.0']),
    ('gluonnlp', 'nlp', ['0.10.0'], ['0.9.0']),
    ('onnx', 'onnx', ['1.16.2'], ['1.17.0', '1.12.0']),
])
def test_ranges(package, extra, inside, outside):
    requirement = next(r for r in requirements(extra) if r.name == package)
    assert all(requirement.specifier.contains(version) for version in inside)
    assert not any(requirement.specifier.contains(version) for version in outside)


def test_openblas_is_asked_for_where_it_has_wheels():
    found = [r for r in requirements('mxnet') if r.name == 'scipy-openblas32']
    assert [r.specifier.contains('0.3.34.481.3') for r in found] == [True]
    machine = {'sys_platform': 'linux', 'platform_machine': 'x86_64', 'extra': 'mxnet'}
    assert found[0].marker.evaluate(machine)
    assert not found[0].marker.evaluate(dict(machine, platform_machine='aarch64'))
    assert not found[0].marker.evaluate(dict(machine, sys_platform='darwin'))


@pytest.mark.parametrize('python, pandas, refused', [
    ('3.8', '1.5.3', '2.0.3'), ('3.11', '1.5.3', '2.2.3'), ('3.12', '2.2.3', '1.5.3')])
def test_pandas_of_the_book_has_wheels(python, pandas, refused):
    active = [r for r in requirements('book')
              if r.name == 'pandas' and (r.marker is None or r.marker.evaluate(
                  {'python_version': python, 'extra': 'book'}))]
    assert all(r.specifier.contains(pandas) for r in active)
    assert not all(r.specifier.contains(refused) for r in active)


@pytest.mark.parametrize('python, numpy', [('3.8', '1.23.5'), ('3.11', '1.23.5'),
                                           ('3.12', '1.26.4')])
def test_mxnet_alone_can_be_imported_with_the_books_numpy(python, numpy):
    """Some sections never import d2l, which would give MXNet the names that NumPy 1.24 removed."""
    active = [r for r in requirements('book')
              if r.name == 'numpy' and (r.marker is None or r.marker.evaluate(
                  {'python_version': python, 'extra': 'book'}))]
    assert all(r.specifier.contains(numpy) for r in active)
    assert all(r.specifier.contains('1.24.0') for r in active) == (python == '3.12')


def test_python_versions():
    allowed = SpecifierSet(PROJECT['requires-python'])
    assert [v for v in ('3.7', '3.8', '3.9', '3.10', '3.11', '3.12', '3.13') if v in allowed] == [
        '3.8', '3.9', '3.10', '3.11', '3.12']


def test_license():
    text = (ROOT / 'LICENSE').read_text()
    assert 'Apache License' in text and 'Version 2.0' in text and 'END OF TERMS' in text
    assert PROJECT['license'] == {'text': 'Apache-2.0'}


def test_console_script():
    from d2l import cli
    assert PROJECT['scripts'] == {'d2l': 'd2l.cli:main'} and callable(cli.main)


# --- The wheel ------------------------------------------------------------------------------------

def without_paths():
    """The environment without what points at the source tree or at another library."""
    return {name: value for name, value in os.environ.items()
            if name not in ('PYTHONPATH', 'PYTHONHOME') and not name.startswith('D2L_')}


def build(folder, *command):
    """Runs a build of the source tree that leaves nothing in it but the operators' objects."""
    config = folder / 'build.cfg'
    config.write_text(f'[build]\nbuild_base = {folder}/build\n[egg_info]\negg_base = {folder}\n')
    environ = dict(without_paths(), DIST_EXTRA_CONFIG=str(config))
    done = subprocess.run([sys.executable, *command], cwd=str(ROOT), env=environ, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert done.returncode == 0, done.stdout


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
    if shutil.which(os.environ.get('CXX', 'g++')) is None:
        pytest.skip('no compiler')
    folder = tmp_path_factory.mktemp('wheel')
    build(folder, '-m', 'pip', 'wheel', '--no-deps', '--no-build-isolation', '--wheel-dir',
          str(folder / 'out'), '.')
    found = list((folder / 'out').iterdir())
    assert len(found) == 1, found
    return found[0]


@pytest.mark.slow
def test_wheel_is_for_linux_and_any_python_3(wheel):
    assert wheel.name == f'd2l_gluon-{d2l.__version__}-py3-none-linux_x86_64.whl'


@pytest.mark.slow
def test_wheel_carries_the_package_and_nothing_else(wheel):
    carried = {name for name in zipfile.ZipFile(str(wheel)).namelist() if '.dist-info/' not in name}
    package = ROOT / 'd2l'
    expected = {str(path.relative_to(ROOT)) for path in package.rglob('*.py')}
    expected |= {str(path.relative_to(ROOT)) for path in (package / 'samples').rglob('*')
                 if path.is_file() and '__pycache__' not in path.parts}
    assert carried == expected | LIBRARIES | {'d2l_gluon.pth'}


@pytest.mark.slow
def test_wheel_metadata(wheel):
    archive = zipfile.ZipFile(str(wheel))
    names = archive.namelist()
    metadata = archive.read(next(n for n in names if n.endswith('/METADATA'))).decode()
    assert f'Name: {NAME}\n' in metadata and f'Version: {d2l.__version__}\n' in metadata
    assert 'd2l = d2l.cli:main' in archive.read(
        next(n for n in names if n.endswith('/entry_points.txt'))).decode()
    assert any(n.endswith('/LICENSE') for n in names)


@pytest.fixture(scope='module')
def venv(wheel, tmp_path_factory):
    """A fresh environment with the wheel; what d2l needs comes from the one that runs the tests."""
    folder = tmp_path_factory.mktemp('venv') / 'venv'
    subprocess.check_call([sys.executable, '-m', 'venv', '--without-pip', str(folder)])
    python = folder / 'bin' / 'python'
    subprocess.check_call([sys.executable, '-m', 'pip', '--python', str(python), 'install',
                           '--quiet', '--no-deps', '--no-index', str(wheel)], env=without_paths())
    site = subprocess.check_output([str(python), '-c', 'import sysconfig; '
                                    'print(sysconfig.get_path("purelib"))'], text=True).strip()
    (Path(site) / 'tests.pth').write_text(
        f'import site; site.addsitedir({sysconfig.get_path("purelib")!r})\n')
    return folder


def run_in(venv, *command, **variables):
    environ = dict(without_paths(), OMP_NUM_THREADS='1', **variables)
    # A kernel that the machine's owner forces is a problem that `d2l env` reports.
    environ.pop('OPENBLAS_CORETYPE', None)
    done = subprocess.run([str(venv / 'bin' / command[0]), *command[1:]], cwd=str(venv), text=True,
                          env=environ, capture_output=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_installed_command_finds_everything(venv):
    facts = json.loads(run_in(venv, 'd2l', 'env', '--json'))
    assert facts['d2l']['location'].startswith(str(venv))
    assert facts['d2l']['distribution'] == f'{NAME} {d2l.__version__}'
    assert facts['mxnet']['version'] == '1.9.1'
    assert facts['operators']['loaded'] and facts['operators']['path'].startswith(str(venv))
    assert 'layer_norm' in facts['operators']['operators']
    assert 'time_machine' in facts['data']['samples']
    assert facts['problems'] == []
    assert json.loads(run_in(venv, 'python', '-m', 'd2l', 'env', '--json'))['d2l'] == facts['d2l']


@pytest.mark.slow
def test_mxnet_works_where_d2l_is_installed_and_never_named(venv):
    code = 'from mxnet import np; import sys; print(float(np.ones(3).sum()), "d2l" in sys.modules)'
    assert run_in(venv, 'python', '-c', code).split() == ['3.0', 'True']
    assert run_in(venv, 'python', '-c', 'import sys; print("d2l" in sys.modules)') == 'False\n'


@pytest.mark.slow
def test_installed_package_computes_and_finds_its_samples(venv):
    out = run_in(venv, 'python', '-c', '''
import d2l
from d2l import ops
from d2l.utils import hub
from mxnet import np, npx
npx.set_np()
x = np.random.normal(size=(4, 8))
ones, zeros = np.ones((8,)), np.zeros((8,))
fast = ops.layer_norm(x, ones, zeros)
with ops.composed():
    slow = ops.layer_norm(x, ones, zeros)
print(float(abs(fast - slow).max()) < 1e-5)
with open(hub.download('time_machine', 'cache')) as file:
    print(file.readline().startswith('The Time Machine'))
''', D2L_OFFLINE='1')
    assert out.split() == ['True', 'True']


@pytest.mark.slow
def test_source_distribution_builds_anywhere(tmp_path):
    """It has the sources of the operators and the samples, and no binary."""
    out = tmp_path / 'out'
    build(tmp_path, '-c',
          f'from setuptools.build_meta import build_sdist; build_sdist({str(out)!r})')
    with tarfile.open(str(next(out.glob('*.tar.gz')))) as archive:
        names = {name.partition('/')[2] for name in archive.getnames()}
    sources = {str(path.relative_to(ROOT)) for path in (ROOT / 'src').rglob('*') if path.is_file()}
    assert sources and sources <= names
    assert {'setup.py', 'pyproject.toml', 'LICENSE', 'd2l/samples/index.json'} <= names
    assert not [name for name in names if name.endswith(('.so', '.o', '.pyc'))]
