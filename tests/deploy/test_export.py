import json
import subprocess
import sys

import numpy as onp
import pytest
from mxnet import gluon, np
from mxnet.gluon import nn

from d2l import ops
from d2l.deploy import export_model, load_model
from d2l.models.vision import lenet

PREDICT = '''
import sys
import numpy as onp
import d2l
from mxnet import np, npx
from d2l.deploy import load_model
npx.set_np()
x = np.array(onp.load(sys.argv[2]))
onp.save(sys.argv[3], load_model(sys.argv[1])(x).asnumpy())
'''


def picture(n=3):
    return np.array(onp.random.RandomState(0).uniform(size=(n, 1, 28, 28)), dtype='float32')


def test_fresh_process_without_model_code(tmp_path):
    net = lenet(layer_norm=True)
    net.initialize()
    x = picture()
    names = export_model(net, str(tmp_path / 'sub' / 'lenet'), x)
    assert [n.split('/')[-1] for n in names] == ['lenet-symbol.json', 'lenet-0000.params']
    with open(names[0], encoding='utf-8') as f:
        assert '_npx_d2l_layer_norm' in {n['op'] for n in json.load(f)['nodes']}
    onp.save(str(tmp_path / 'x.npy'), x.asnumpy())
    subprocess.run([sys.executable, '-c', PREDICT, str(tmp_path / 'sub' / 'lenet'),
                    str(tmp_path / 'x.npy'), str(tmp_path / 'y.npy')], check=True)
    assert onp.array_equal(onp.load(str(tmp_path / 'y.npy')), net(x).asnumpy())
    assert sorted(p.name for p in (tmp_path / 'sub').iterdir()) == [
        'lenet-0000.params', 'lenet-symbol.json']


def test_inputs_keep_their_order(tmp_path):
    class Many(gluon.HybridBlock):
        def hybrid_forward(self, F, *xs):
            y = xs[0]
            for i, x in enumerate(xs[1:]):
                y = y + (i + 2) * x
            return y
    net = Many()
    net.initialize()
    xs = [np.array([float(10 ** (i % 7) + i)]) for i in range(12)]  # data10 sorts before data2
    export_model(net, str(tmp_path / 'many'), *xs)
    assert onp.array_equal(load_model(str(tmp_path / 'many'))(*xs).asnumpy(), net(*xs).asnumpy())


def test_export_leaves_the_net_as_it_was(tmp_path):
    net = lenet()
    net.initialize()
    before = net(picture()).asnumpy()
    export_model(net, str(tmp_path / 'a'), picture())
    assert onp.array_equal(net(picture()).asnumpy(), before)


def test_errors(tmp_path):
    plain = nn.Sequential()
    with pytest.raises(TypeError, match='net must be a HybridBlock, got Sequential'):
        export_model(plain, str(tmp_path / 'a'), picture())
    with pytest.raises(ValueError, match='at least one example input'):
        export_model(lenet(), str(tmp_path / 'a'))
    with pytest.raises(FileNotFoundError, match='a-symbol.json is not there'):
        load_model(str(tmp_path / 'a'))
    (tmp_path / 'b-symbol.json').write_text('[]')
    (tmp_path / 'b-0000.params').write_text('')
    with pytest.raises(ValueError, match='is no exported net'):
        load_model(str(tmp_path / 'b'))


def test_missing_operators_are_named(tmp_path, monkeypatch):
    net = lenet(layer_norm=True)
    net.initialize()
    export_model(net, str(tmp_path / 'a'), picture())
    monkeypatch.setattr(ops, 'available', lambda: [])
    needs = 'needs the operators activation, conv2d, layer_norm'
    with pytest.raises(ops.LibraryError, match=needs):
        load_model(str(tmp_path / 'a'))
