"""Every test runs in NumPy mode, single-threaded BLAS and OpenMP unless it says otherwise."""
import os
from pathlib import Path

os.environ.setdefault('OMP_NUM_THREADS', '1')
os.environ.setdefault('MPLBACKEND', 'Agg')
os.environ.setdefault('D2L_OFFLINE', '1')

# isort: off
import pytest  # noqa: E402

import d2l  # noqa: E402, F401  (before mxnet)
from mxnet import npx  # noqa: E402
# isort: on

SHARED_DATA = Path(__file__).resolve().parents[2] / 'shared' / 'data'


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
