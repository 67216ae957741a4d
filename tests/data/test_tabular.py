import mxnet as mx
import numpy as onp
import pytest

from d2l.data.tabular import get_data_ch11
from d2l.utils.hub import download


@pytest.fixture
def table(hub_data):
    hub_data()
    with open(download('airfoil'), encoding='utf-8') as f:
        return onp.array([[float(value) for value in line.split('\t')] for line in f])


@pytest.mark.parametrize('batch_size, n, rows', [(10, 1500, 1500), (7, 20, 20), (400, 9999, 1503)])
def test_rows(table, batch_size, n, rows):
    expected = ((table - table.mean(axis=0)) / table.std(axis=0))[:n]
    loader, features = get_data_ch11(batch_size, n)
    assert features == 5 and len(loader) == -(-rows // batch_size)
    batches = list(loader)
    X, y = batches[0]
    assert X.shape == (batch_size, 5) and y.shape == (batch_size,)
    assert X.dtype == y.dtype == 'float32'
    got = onp.concatenate([onp.c_[X.asnumpy(), y.asnumpy()] for X, y in batches])
    assert got.shape == (rows, 6)
    assert not onp.allclose(got, expected)  # shuffled
    onp.testing.assert_allclose(got[onp.lexsort(got.T)],
                                expected[onp.lexsort(expected.astype('float32').T)], atol=1e-5)


def test_order_is_that_of_the_seed(table):
    orders = []
    for seed in (1, 1, 2):
        mx.random.seed(seed)
        orders.append(next(iter(get_data_ch11()[0]))[1].asnumpy().tolist())
    assert orders[0] == orders[1] != orders[2]


@pytest.mark.parametrize('arguments, message', [((0, 5), 'batch_size must be at least 1'),
                                                ((5, 0), 'n must be at least 1')])
def test_bad_input(arguments, message):
    with pytest.raises(ValueError, match=message):
        get_data_ch11(*arguments)


def test_a_table_of_another_shape(tmp_path, monkeypatch):
    from d2l.data import tabular
    path = tmp_path / 'table.dat'
    monkeypatch.setattr(tabular, 'download', lambda name: str(path))
    for text in ('1\t2\n3\t4\n', '1\t2\t3\t4\t5\tsix\n' * 2):
        path.write_text(text, encoding='utf-8')
        with pytest.raises(ValueError, match='get_data_ch11: .* must hold rows of six numbers'):
            get_data_ch11()
