"""Click data against a plain loop over its lines."""
import collections
import re
import subprocess
import sys

import numpy as onp
import pytest
from mxnet import gluon, np

from d2l.data.arrays import load_array
from d2l.data.ctr import CTRDataset
from d2l.utils.hub import download_extract

BOTH = pytest.mark.parametrize('real', [True, False])


def read(path):
    with open(path, encoding='utf-8') as file:
        return [line.rstrip('\n').split('\t') for line in file]


def plain_mapper(path, min_threshold):
    """field -> {feature: number}, counted one by one."""
    counts = collections.defaultdict(collections.Counter)
    for row in read(path):
        for field, feature in enumerate(row[1:], 1):
            counts[field][feature] += 1
    return {field: {feature: number for number, feature in enumerate(sorted(
        feature for feature, count in counter.items() if count >= min_threshold))}
        for field, counter in counts.items()}


def plain_features(path, mapper):
    rows = []
    for row in read(path):
        numbers, offset = [], 0
        for field, feature in enumerate(row[1:], 1):
            numbers.append(offset + mapper[field].get(feature, len(mapper[field])))
            offset += len(mapper[field]) + 1
        rows.append(numbers)
    return rows


@pytest.fixture
def small(tmp_path):
    """Lines of three fields: '' is frequent in the second one, nothing is in the third."""
    path = tmp_path / 'small.csv'
    path.write_text('1\tb\t\tx\n0\ta\t\ty\n0\tb\tq\tz\n1\ta\t\tw\n0\tc\tr\t\n', encoding='utf-8')
    return str(path)


def small_set(path, **kwargs):
    return CTRDataset(path, **dict({'min_threshold': 2, 'num_feat': 3}, **kwargs))


def test_by_hand(small):
    data = small_set(small)
    assert data.feat_mapper == {1: {'a': 0, 'b': 1}, 2: {'': 0}, 3: {}}
    assert data.defaults == {1: 2, 2: 1, 3: 0}
    assert data.field_dims.asnumpy().tolist() == [3, 2, 1]
    assert data.offsets.asnumpy().tolist() == [0, 3, 5]
    assert data.offsets.dtype == data.field_dims.dtype == onp.int64
    assert int(sum(data.field_dims)) == 6
    assert data.data_path == small
    assert len(data) == 5
    rows = [(features.asnumpy().tolist(), labels) for features, labels in data]
    assert rows == [([1, 3, 5], [1]), ([0, 3, 5], [0]), ([1, 4, 5], [0]), ([0, 3, 5], [1]),
                    ([2, 4, 5], [0])]


def test_items(small):
    data = small_set(small)
    features, labels = data[0]
    assert isinstance(features, np.ndarray) and features.dtype == onp.int64
    assert type(labels) is list and labels[0].dtype == onp.float32
    for idx in (-1, onp.int64(4), 4):
        assert data[idx][0].asnumpy().tolist() == [2, 4, 5]
    for idx in (5, -6):
        with pytest.raises(IndexError):
            data[idx]
    with pytest.raises(TypeError):
        data['a']


@BOTH
def test_against_the_plain_loop(hub_data, real):
    hub_data('ctr', real=real)
    folder = download_extract('ctr')
    train, test = f'{folder}/train.csv', f'{folder}/test.csv'
    data = CTRDataset(train)
    assert data.feat_mapper == plain_mapper(train, 4)
    assert data.field_dims.asnumpy().tolist() == [len(data.feat_mapper[field]) + 1
                                                  for field in range(1, 35)]
    assert data.defaults == {field: len(data.feat_mapper[field]) for field in range(1, 35)}
    test_data = CTRDataset(test, data.feat_mapper, data.defaults)
    for path, half in ((train, data), (test, test_data)):
        X, y = half.arrays
        assert X.asnumpy().tolist() == plain_features(path, data.feat_mapper)
        assert y.asnumpy().tolist() == [[float(row[0])] for row in read(path)]
        assert X.dtype == onp.int64 and y.dtype == onp.float32
        assert len(half) == len(X) and (not real or len(X) == 1999)
        assert int(X.max()) < int(sum(data.field_dims))
    assert test_data.offsets.asnumpy().tolist() == data.offsets.asnumpy().tolist()
    assert test_data.feat_mapper is data.feat_mapper


@pytest.mark.parametrize('num_workers', [0, pytest.param(2, marks=pytest.mark.slow)])
def test_gluons_loader_and_whole_arrays_give_the_same(hub_data, num_workers):
    hub_data('ctr', real=False)
    data = CTRDataset(download_extract('ctr') + '/test.csv')
    batches = list(gluon.data.DataLoader(data, batch_size=64, num_workers=num_workers))
    whole = list(load_array(data.arrays, 64, is_train=False))
    assert len(batches) == len(whole) > 2
    for mine, expected in zip(whole, batches):
        for a, b in zip(mine, expected):
            assert a.dtype == b.dtype and a.shape == b.shape
            onp.testing.assert_array_equal(a.asnumpy(), b.asnumpy())
    assert whole[0][0].shape == (64, 34) and whole[0][1].shape == (64, 1)


def test_offsets_are_exact_beyond_float32(small):
    """float32 has no 2 ** 24 + 1."""
    class Many(dict):
        def __len__(self):
            return 2 ** 24
    mapper = {1: Many(a=0, b=1), 2: {'q': 0}, 3: {}}
    data = small_set(small, feat_mapper=mapper, defaults={1: 2, 2: 1, 3: 0})
    assert data.offsets.asnumpy().tolist() == [0, 2 ** 24 + 1, 2 ** 24 + 3]
    assert data[0][0].asnumpy().tolist() == [1, 2 ** 24 + 2, 2 ** 24 + 3]


@pytest.mark.slow
def test_numbers_do_not_depend_on_the_process(small):
    program = ('import d2l, sys\nfrom mxnet import npx\nnpx.set_np()\n'
               'from d2l.data.ctr import CTRDataset\n'
               'data = CTRDataset(sys.argv[1], min_threshold=1, num_feat=3)\n'
               'print(data.feat_mapper, data.arrays[0].asnumpy().tolist())')
    results = {subprocess.check_output([sys.executable, '-c', program, small],
                                       env={'PYTHONHASHSEED': seed, 'PATH': ''},
                                       stderr=subprocess.DEVNULL) for seed in '12'}
    assert len(results) == 1


def test_numbers_do_not_depend_on_the_order_of_the_lines(small, tmp_path):
    lines = open(small, encoding='utf-8').read().splitlines(True)
    other = tmp_path / 'other.csv'
    other.write_text(''.join(lines[::-1]), encoding='utf-8')
    assert small_set(small).feat_mapper == small_set(str(other)).feat_mapper


@pytest.mark.parametrize('text', ['\n1\ta\tb\tc\n\n0\ta\tb\tc\n\n', '1\ta\tb\tc\r\n0\ta\tb\tc',
                                  '1.0\ta\tb\tc\n0.0\ta\tb\tc\n'])
def test_other_ends_of_lines(tmp_path, text):
    path = tmp_path / 'lines.csv'
    path.write_bytes(text.encode())
    data = small_set(path)
    assert len(data) == 2
    assert data.feat_mapper == {1: {'a': 0}, 2: {'b': 0}, 3: {'c': 0}}
    assert data.arrays[1].asnumpy().tolist() == [[1], [0]]


def test_other_text_than_ascii(tmp_path):
    path = tmp_path / 'text.csv'
    # A line separator of Unicode and quotes are text.
    path.write_bytes('1\t"\u00e4\u2028\x85\t\u8a9e\tc\n'.encode() * 2)
    assert small_set(path).feat_mapper == {1: {'"\u00e4\u2028\x85': 0}, 2: {'\u8a9e': 0},
                                           3: {'c': 0}}


def test_features_are_utf8_everywhere(tmp_path, monkeypatch):
    path = tmp_path / 'text.csv'
    path.write_bytes('1\ta\t\xe9\tc\n'.encode() * 2)

    def ascii_open(*args, encoding=None, _open=open, **kwargs):
        return _open(*args, encoding=encoding or 'ascii', **kwargs)
    monkeypatch.setattr('builtins.open', ascii_open)
    assert small_set(path).feat_mapper[2] == {'\xe9': 0}


@pytest.mark.parametrize('text, message', [
    ('0\ta\tb\tc\n\n1\ta\tb\n', 'line 3 of .* must have a label and num_feat=3 features, got 3 c'),
    ('0\ta\tb\tc\td\n', 'line 1 of .* must have a label and num_feat=3 features, got 5 columns'),
    ('\n0\ta\tb\tc\n2\ta\tb\tc\n', "line 3 of .* must begin with the label 0 or 1, got '2'"),
    ('Label\ta\tb\tc\n', "line 1 of .* must begin with the label 0 or 1, got 'Label'"),
    ('', 'must have at least one line, got none'), ('\n\n', 'must have at least one line')])
def test_malformed_lines(tmp_path, text, message):
    path = tmp_path / 'bad.csv'
    path.write_text(text)
    with pytest.raises(ValueError, match='CTRDataset: ' + ('' if 'least' not in message else '.*')
                       + message):
        small_set(path)


@pytest.mark.parametrize('kwargs, message', [
    ({'num_feat': 0}, 'CTRDataset: num_feat must be at least 1, got 0'),
    ({'min_threshold': 0}, 'CTRDataset: min_threshold must be at least 1, got 0'),
    ({'feat_mapper': {}}, 'feat_mapper and defaults must be given together, got only feat_mapper'),
    ({'defaults': {}}, 'feat_mapper and defaults must be given together, got only defaults'),
    ({'feat_mapper': {1: {}}, 'defaults': {1: 0}},
     'must have the fields 1 to 3, got none for field 2'),
    ({'feat_mapper': {1: {}, 2: {'': 2}, 3: {}}, 'defaults': {1: 0, 2: 1, 3: 0}},
     'of field 2 must be numbers from 0 to 1, got 2')])
def test_wrong_arguments(small, kwargs, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        small_set(small, **kwargs)


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match='nowhere'):
        CTRDataset(str(tmp_path / 'nowhere.csv'))
