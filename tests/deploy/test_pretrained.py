"""The loader of section 15.7 on a small model in the format of the hub's files."""
import json
import zipfile

import numpy as onp
import pytest
from mxnet import np, npx

from d2l.deploy.pretrained import load_pretrained_model
from d2l.nn.bert import BERTModel
from d2l.utils.hub import DATA_HUB, resource

TOKENS = ['<unk>', '<pad>', '<mask>', '<cls>', '<sep>', 'time', 'traveller', 'h\xe9ros']
SIZES = (8, 12, 2, 2, 0.0, 16)


@pytest.fixture
def original(tmp_path, hub_data, monkeypatch):
    """A model, its files under D2L_DATA as bert.small.zip."""
    hub_data()
    bert = BERTModel(len(TOKENS), *SIZES)
    bert.initialize()
    bert(np.zeros((1, 3)), np.zeros((1, 3)), None, np.zeros((1, 1)))
    (tmp_path / 'hub').mkdir()
    bert.save_parameters(str(tmp_path / 'pretrained.params'))
    write(tmp_path, json.dumps(TOKENS), (tmp_path / 'pretrained.params').read_bytes())
    monkeypatch.setenv('D2L_DATA', str(tmp_path / 'hub'))
    return bert


def write(folder, vocab, params):
    with zipfile.ZipFile(folder / 'hub' / 'bert.small.zip', 'w') as archive:
        archive.writestr('bert.small/vocab.json', vocab)
        archive.writestr('bert.small/pretrained.params', params)


def test_entries():
    for name in ('bert.base', 'bert.small'):
        assert resource(name).filename == name + '.zip'
        assert DATA_HUB[name][0].startswith('https://')


@pytest.mark.parametrize('devices', [None, npx.cpu(), [npx.cpu(0), npx.cpu(1)]])
def test_load(original, devices):
    bert, vocab = load_pretrained_model('bert.small', *SIZES, devices)
    assert len(vocab) == 8 and vocab[['<cls>', 'h\xe9ros', 'nobody']] == [3, 7, 0]
    assert vocab.to_tokens(6) == 'traveller'
    arrays = np.array([[3, 5, 6, 4]]), np.zeros((1, 4)), np.array([4]), np.array([[1, 2]])
    for y, expected in zip(bert(*arrays), original(*arrays)):
        onp.testing.assert_array_equal(y.asnumpy(), expected.asnumpy())


def test_other_sizes(original):
    with pytest.raises(ValueError, match='pretrained.params does not fit a BERTModel of these'):
        load_pretrained_model('bert.small', 16, *SIZES[1:])


@pytest.mark.parametrize('vocab, params, fragment', [
    ('[', b'', 'vocab.json must be a JSON list'), ('["a"]', b'nothing', 'does not fit')])
def test_damaged_files(original, tmp_path, vocab, params, fragment):
    write(tmp_path, vocab, params)
    with pytest.raises(ValueError, match=fragment):
        load_pretrained_model('bert.small', *SIZES)
