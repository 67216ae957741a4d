"""Every test runs in NumPy mode, single-threaded BLAS and OpenMP unless it says otherwise."""
import os
from pathlib import Path

os.environ.setdefault('OMP_NUM_THREADS', '1')
os.environ.setdefault('MPLBACKEND', 'Agg')
os.environ.setdefault('D2L_OFFLINE', '1')

# isort: off
import pytest  # noqa: E402

import d2l  # noqa: E402, F401  (before mxnet)
from d2l.utils import _search  # noqa: E402
from mxnet import npx  # noqa: E402
from tests import hub_files  # noqa: E402
# isort: on

SHARED_DATA = Path(__file__).resolve().parents[2] / 'shared' / 'data'


# Files of few tests that take minutes: begun last, they would leave the other process idle.
LONGEST = ('test_sanitized.py', 'test_random_calls.py', 'test_faults.py', 'test_cuda_build.py',
           'test_emulated.py', 'test_benchmarks.py')


def pytest_configure(config):
    # Newer versions of xdist begin with the files that have most tests.
    if hasattr(config.option, 'loadscopereorder'):
        config.option.loadscopereorder = False


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.fspath.basename not in LONGEST)


@pytest.fixture(autouse=True)
def numpy_mode():
    npx.set_np()
    yield


@pytest.fixture
def shared_data():
    """The folder of real data sets beside the checkout; the test skips where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip('the shared data folder {} is not there'.format(SHARED_DATA))
    return SHARED_DATA


@pytest.fixture(scope='session')
def _hub_folders(tmp_path_factory):
    """(hub name, real) -> the folder that its file was made in: once in a run of the tests."""
    folders = {}

    def folder(name, real):
        if (name, real) not in folders:
            path = tmp_path_factory.mktemp('hub')
            hub_files.build(name, path, real)
            folders[name, real] = str(path)
        return folders[name, real]
    return folder


@pytest.fixture
def hub_data(request, monkeypatch, tmp_path, _hub_folders):
    """Call it with names of DATA_HUB: loaders then find these files, and no others.

    They are real ones from the shared data folder (the test skips where that is absent); with
    real=False they are made of the samples in the package.  The working directory is a fresh
    one, so that the default cache, ../data, is, too.
    """
    (tmp_path / 'work').mkdir()
    monkeypatch.chdir(tmp_path / 'work')
    monkeypatch.setenv('D2L_OFFLINE', '1')
    monkeypatch.setattr(_search, 'SYSTEM_FOLDERS', ())
    monkeypatch.delenv('D2L_DATA', raising=False)

    def use(*names, real=True):
        if real:
            request.getfixturevalue('shared_data')
        folders = [_hub_folders(name, real) for name in names]
        monkeypatch.setenv('D2L_DATA', os.pathsep.join(folders))
    return use
