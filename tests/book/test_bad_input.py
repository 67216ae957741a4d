"""Bad arguments: each gets an error that names it, from every function that takes it.

``GOOD`` has good arguments for each function of the book that takes one of the arguments in
``BAD``; the tests put a bad value in the place of one of them.
"""
import ast
import json
import os
import pathlib
import re

import mxnet as mx
import pytest
from mxnet import gluon, np
from mxnet.gluon import nn, rnn

from d2l import mxnet as d2l
from d2l.utils import hub

BOOK = json.loads((pathlib.Path(__file__).parent / 'api.json').read_text(encoding='utf-8'))

# argument -> values that no function takes.
BAD = {
    'num_epochs': [0, -1, 1.5], 'steps': [-1, 1.5], 'log_interval': [0, 1.5], 'eval_step': [0, 1.5],
    'batch_size': [0, -1, 2.5], 'num_steps': [0, 2.5], 'max_len': [0, 2.5],
    'num_examples': [0, 2.5], 'n': [0, 2.5], 'max_window_size': [0, 2.5], 'edge_size': [0, 2.5],
    'num_noise_words': [-1, 2.5], 'K': [-1, 2.5], 'num_users': [0, 1.5], 'num_items': [0, 1.5],
    'height': [0, 2.5], 'width': [0, 2.5], 'crop_size': [0, (4,), (0, 4)], 'resize': [0, (4,)],
    'min_threshold': [0, 2.5], 'num_feat': [0, 2.5], 'max_tokens': [2.5],
    'data_iter': [[]], 'train_iter': [[]], 'test_iter': [[]],
    'token': ['chars', None], 'split_mode': ['newest'], 'feedback': ['some'],
    'test_ratio': [2, 'half'], 'valid_ratio': [2, 'half'],
    'devices': [[]], 'theta': [-1], 'num_preds': [-1], 'i': [-1],
    'name': ['no-such-data'], 'embedding_name': ['no-such-data'],
    'fname': ['missing'], 'filename': ['missing'], 'data_dir': ['missing'], 'voc_dir': ['missing'],
    'data_path': ['missing']}
# Arguments of other names and senses under the names above.
OTHER = {('evaluate_ranking', 'test_iter'), ('train_ranking', 'test_iter'),
         ('Accumulator', 'n'), ('corr2d', 'K'),
         ('_get_nsp_data_from_paragraph', 'max_len'), ('BERTEncoder', 'max_len'),
         ('BERTModel', 'max_len'), ('PositionalEncoding', 'max_len')}
# A divisor may be a fraction, and a list may be cut to nothing.
INSTEAD = {('sgd', 'batch_size'): [0, -1], ('truncate_pad', 'num_steps'): [-1, 2.5]}
# A path is named by itself, and so is a name of the hub.
BY_VALUE = {'name', 'embedding_name', 'fname', 'filename', 'data_dir', 'voc_dir', 'data_path'}


def net_and_trainer(outputs=2):
    net = nn.Dense(outputs)
    net.initialize()
    return {'net': net, 'trainer': gluon.Trainer(net.collect_params(), 'sgd', {})}


def pairs(*shape):
    return d2l.load_array((np.ones((4,) + (shape or (3,))), np.zeros(4)), 2)


def classifier():
    return {'net': net_and_trainer()['net'], 'train_iter': pairs(), 'test_iter': pairs(),
            'loss': gluon.loss.SoftmaxCrossEntropyLoss(), 'num_epochs': 1}


def language_model():
    vocab = d2l.Vocab(list('time traveller'))
    model = d2l.RNNModel(rnn.RNN(2), len(vocab))
    model.initialize()
    return {'model': model, 'vocab': vocab, 'device': mx.cpu(),
            'train_iter': [(np.ones((2, 3)), np.ones((2, 3)))]}


def translator():
    vocab = d2l.Vocab(['go'], reserved_tokens=['<pad>', '<bos>', '<eos>'])
    model = d2l.EncoderDecoder(d2l.Seq2SeqEncoder(5, 2, 2, 1), d2l.Seq2SeqDecoder(5, 2, 2, 1))
    model.initialize()
    batch = [np.ones((2, 4)), np.array([3, 4]), np.ones((2, 4)), np.array([3, 4])]
    return {'model': model, 'data_iter': [batch], 'device': mx.cpu(), 'vocab': vocab}


def ratings():
    return d2l.pd.DataFrame([[1, 1, 5, 7], [1, 2, 4, 8], [2, 1, 3, 9]])


def ranker():
    class Net(nn.Block):
        def __init__(self):
            super().__init__()
            self.P = nn.Embedding(2, 1)

        def forward(self, user, item):
            return self.P(user) * item.reshape(-1, 1)
    net = Net()
    net.initialize()
    trainer = gluon.Trainer(net.collect_params(), 'sgd', {})
    return {'net': net, 'trainer': trainer, 'num_users': 2, 'num_items': 3, 'devices': [mx.cpu()],
            'candidates': {0: [0], 1: [1]}}


def bert():
    net = d2l.BERTModel(9, 2, 2, 1, 1, 0.1, max_len=4)
    net.initialize()
    batch = [np.zeros((2, 4)), np.zeros((2, 4)), np.array([3., 4]), np.ones((2, 1)),
             np.ones((2, 1)), np.ones((2, 1)), np.zeros(2)]
    return {'train_iter': [batch], 'net': net, 'loss': gluon.loss.SoftmaxCELoss(), 'vocab_size': 9}


def only(source, *names, **more):
    """Some of the arguments of one of the functions above, and more."""
    return dict({name: source[name] for name in names}, **more)


def param():
    X = np.ones(2)
    X.attach_grad()
    return [X]


def write(name, text):
    pathlib.Path(name).parent.mkdir(exist_ok=True)
    pathlib.Path(name).write_text(text, encoding='utf-8')
    return name


GOOD = {
    'sgd': lambda: {'params': param(), 'lr': 1, 'batch_size': 1},
    'synthetic_data': lambda: {'w': np.ones(2), 'b': 1, 'num_examples': 2},
    'load_array': lambda: {'data_arrays': (np.ones(4),), 'batch_size': 2},
    'load_data_fashion_mnist': lambda: {'batch_size': 2},
    'evaluate_accuracy': lambda: only(net_and_trainer(), 'net', data_iter=pairs()),
    'predict_ch3': lambda: only(net_and_trainer(), 'net', test_iter=pairs(4, 4), n=2),
    'train_ch3': lambda: dict(classifier(), updater=lambda batch_size: None),
    'train_epoch_ch3': lambda: only(classifier(), 'net', 'train_iter', 'loss',
                                    updater=lambda batch_size: None),
    'evaluate_loss': lambda: only(classifier(), 'net', 'loss', data_iter=pairs()),
    'download': lambda: {'name': 'airfoil'},
    'download_extract': lambda: {'name': 'fra-eng'},
    'try_gpu': lambda: {'i': 0},
    'evaluate_accuracy_gpu': lambda: only(net_and_trainer(), 'net', data_iter=pairs()),
    'train_ch6': lambda: only(classifier(), 'net', 'train_iter', 'test_iter', 'num_epochs', lr=1),
    'load_corpus_time_machine': lambda: {'max_tokens': 9},
    'tokenize': lambda: {'lines': ['a b'], 'token': 'word'},
    'load_data_time_machine': lambda: {'batch_size': 2, 'num_steps': 3, 'max_tokens': 9},
    'SeqDataLoader': lambda: {'batch_size': 2, 'num_steps': 3, 'use_random_iter': False,
                              'max_tokens': 9},
    'seq_data_iter_random': lambda: {'corpus': list(range(9)), 'batch_size': 2, 'num_steps': 3},
    'seq_data_iter_sequential': lambda: {'corpus': list(range(9)), 'batch_size': 2,
                                         'num_steps': 3},
    'grad_clipping': lambda: only(net_and_trainer(), theta=1, model=nn.Dense(1)),
    'predict_ch8': lambda: only(language_model(), 'model', 'vocab', 'device', prefix='ti',
                                num_preds=1),
    'train_ch8': lambda: dict(language_model(), lr=1, num_epochs=1),
    'train_epoch_ch8': lambda: only(language_model(), 'model', 'train_iter', 'device',
                                    loss=gluon.loss.SoftmaxCELoss(), use_random_iter=False,
                                    updater=lambda batch_size: None),
    'build_array': lambda: {'lines': [['go']], 'vocab': translator()['vocab'], 'num_steps': 4,
                            'is_source': True},
    'load_data_nmt': lambda: {'batch_size': 2, 'num_steps': 4, 'num_examples': 10},
    'tokenize_nmt': lambda: {'text': 'go\tva\n', 'num_examples': 1},
    'truncate_pad': lambda: {'line': [1], 'num_steps': 2, 'padding_token': 0},
    'predict_s2s_ch9': lambda: only(translator(), 'model', 'device', src_sentence='go',
                                    src_vocab=translator()['vocab'],
                                    tgt_vocab=translator()['vocab'], num_steps=2),
    'train_s2s_ch9': lambda: only(translator(), 'model', 'data_iter', 'device', lr=1,
                                  num_epochs=1),
    'train_2d': lambda: {'trainer': lambda *args: args, 'steps': 1},
    'get_data_ch11': lambda: {'batch_size': 2, 'n': 4},
    'train_ch11': lambda: {'trainer_fn': lambda *args: None, 'states': None, 'hyperparams': {},
                           'data_iter': pairs(), 'feature_dim': 3, 'num_epochs': 1},
    'train_concise_ch11': lambda: {'tr_name': 'sgd', 'hyperparams': {}, 'data_iter': pairs(),
                                   'num_epochs': 1},
    'split_batch': lambda: {'X': np.ones(2), 'y': np.ones(2), 'devices': [mx.cpu()]},
    'split_batch_multi_inputs': lambda: {'X': [np.ones(2)], 'y': np.ones(2),
                                         'devices': [mx.cpu()]},
    'evaluate_accuracy_gpus': lambda: only(net_and_trainer(), 'net', data_iter=pairs()),
    'train_batch_ch13': lambda: dict(net_and_trainer(), features=np.ones((2, 3)),
                                     labels=np.zeros(2), loss=gluon.loss.SoftmaxCELoss(),
                                     devices=[mx.cpu()]),
    'train_ch13': lambda: dict(classifier(), **net_and_trainer(), devices=[mx.cpu()]),
    'load_data_bananas': lambda: {'batch_size': 2, 'edge_size': 8},
    'load_data_voc': lambda: {'batch_size': 2, 'crop_size': (8, 8)},
    'read_voc_images': lambda: {'voc_dir': hub.download_extract('voc2012', 'VOCdevkit/VOC2012')},
    'VOCSegDataset': lambda: {'is_train': True, 'crop_size': (8, 8), 'voc_dir':
                              hub.download_extract('voc2012', 'VOCdevkit/VOC2012')},
    'voc_rand_crop': lambda: {'feature': np.ones((4, 4, 3)), 'label': np.ones((4, 4, 3)),
                              'height': 2, 'width': 2},
    'copyfile': lambda: {'filename': write('a.txt', 'a'), 'target_dir': 'copies'},
    'read_csv_labels': lambda: {'fname': write('labels.csv', 'id,label\n1,a\n')},
    'reorg_test': lambda: {'data_dir': os.path.dirname(os.path.dirname(write('test/1.png', '')))
                           or '.'},
    'reorg_train_valid': lambda: {'data_dir': os.path.dirname(
        os.path.dirname(write('train/1.png', ''))) or '.', 'labels': {'1': 'a'},
        'valid_ratio': 0.5},
    'get_centers_and_contexts': lambda: {'corpus': [[1, 2, 3]], 'max_window_size': 1},
    'get_negatives': lambda: {'all_contexts': [[1]], 'corpus': [[1, 2, 3]], 'K': 1},
    'load_data_ptb': lambda: {'batch_size': 2, 'max_window_size': 2, 'num_noise_words': 2},
    '_pad_bert_inputs': lambda: {'examples': [], 'max_len': 4, 'vocab': translator()['vocab']},
    '_read_wiki': lambda: {'data_dir': hub.download_extract('wikitext-2', 'wikitext-2')},
    'load_data_wiki': lambda: {'batch_size': 2, 'max_len': 32},
    '_WikiTextDataset': lambda: {'paragraphs': [['a b', 'c d']], 'max_len': 32},
    'train_bert': lambda: dict(bert(), devices=[mx.cpu()], log_interval=1, num_steps=1),
    'load_data_imdb': lambda: {'batch_size': 2, 'num_steps': 3},
    'read_imdb': lambda: {'data_dir': hub.download_extract('aclImdb', 'aclImdb'),
                          'is_train': True},
    'load_data_snli': lambda: {'batch_size': 2, 'num_steps': 3},
    'read_snli': lambda: {'data_dir': hub.download_extract('SNLI'), 'is_train': True},
    'SNLIDataset': lambda: {'dataset': (['a'], ['b'], [0]), 'num_steps': 3},
    'TokenEmbedding': lambda: {'embedding_name': 'glove.6b.50d'},
    'load_data_ml100k': lambda: {'data': ratings(), 'num_users': 2, 'num_items': 2,
                                 'feedback': 'explicit'},
    'split_data_ml100k': lambda: {'data': ratings(), 'num_users': 2, 'num_items': 2,
                                  'split_mode': 'random', 'test_ratio': 0.1},
    'split_and_load_ml100k': lambda: {'split_mode': 'random', 'feedback': 'explicit',
                                      'test_ratio': 0.5, 'batch_size': 2},
    'train_recsys_rating': lambda: dict(classifier(), **net_and_trainer(1),
                                        devices=[mx.cpu()]),
    'evaluate_ranking': lambda: only(ranker(), 'net', 'num_users', 'num_items', 'devices',
                                     'candidates', test_input={0: [1]}, seq=None),
    'train_ranking': lambda: dict(
        ranker(), train_iter=[[np.zeros(2), np.zeros(2), np.ones(2)]], test_iter={0: [1]},
        loss=d2l.BPRLoss(), test_seq_iter=None,
        num_epochs=1, evaluator=None, eval_step=1),
    'CTRDataset': lambda: {'data_path': write('ctr.txt', '1\ta\tb\n'), 'num_feat': 2,
                           'min_threshold': 1}}


def parameters(name):
    """Return the names of a function's or a constructor's parameters in the book."""
    if name in BOOK['functions']:
        signature = BOOK['functions'][name]['signature']
    else:
        signature = BOOK['classes'][name]['methods'].get('__init__', '()')
    args = ast.parse(f'def f{signature}: pass').body[0].args
    return [arg.arg for arg in args.args]


CASES = [(name, argument) for name in [*BOOK['functions'], *BOOK['classes']]
         for argument in parameters(name) if argument in BAD and (name, argument) not in OTHER]
HUB = {'load_data_nmt': 'fra-eng', 'load_data_bananas': 'bananas', 'load_data_voc': 'voc2012',
       'read_voc_images': 'voc2012', 'VOCSegDataset': 'voc2012', 'load_data_ptb': 'ptb',
       '_read_wiki': 'wikitext-2', 'load_data_wiki': 'wikitext-2', 'load_data_imdb': 'aclImdb',
       'read_imdb': 'aclImdb', 'load_data_snli': 'SNLI', 'read_snli': 'SNLI',
       'split_and_load_ml100k': 'ml-100k', 'TokenEmbedding': 'glove.6b.50d'}


def call(name, arguments):
    result = getattr(d2l, name)(**arguments)
    if hasattr(result, '__next__'):
        list(result)
    mx.npx.waitall()


def files():
    return sorted(str(path) for path in pathlib.Path('..').rglob('*') if path.is_file())


def test_every_function_has_good_arguments():
    assert {name for name, _ in CASES} == set(GOOD)
    assert {argument for _, argument in CASES} == set(BAD)


@pytest.mark.parametrize('name', GOOD)
def test_good_arguments(name, hub_data):
    hub_data(*filter(None, [HUB.get(name)]), real=False)
    arguments = GOOD[name]()
    if name == 'train_ch3':
        pytest.raises(AssertionError, call, name, arguments)  # for an untrained net
    else:
        call(name, arguments)


@pytest.mark.parametrize('name, argument', CASES, ids=['-'.join(case) for case in CASES])
def test_bad_argument(name, argument, hub_data, capfd):
    hub_data(*filter(None, [HUB.get(name)]), real=False)
    for value in INSTEAD.get((name, argument), BAD[argument]):
        arguments = dict(GOOD[name](), **{argument: value})
        before = files()
        capfd.readouterr()
        with pytest.raises((ValueError, TypeError, OSError, hub.UnknownDataError)) as caught:
            call(name, arguments)
        message, wanted = str(caught.value), str(value) if argument in BY_VALUE else argument
        assert re.search(r'\b' + re.escape(wanted) + r'\b', message), message
        assert files() == before


def loop(name, **changes):
    """The function of a training loop, with good arguments but for some."""
    return lambda: call(name, dict(GOOD[name](), **changes))


def crooked(*shape):
    """A loader's batch whose labels do not fit its examples."""
    return [[np.ones((4, 3)), np.zeros(shape)]]


# What is called, and what the error must name.
SHAPES = {
    'accuracy': (lambda: d2l.accuracy(np.ones((3, 2)), np.zeros(4)), 'y must .* (4,)'),
    'squared_loss': (lambda: d2l.squared_loss(np.ones(3), np.ones(4)), 'y must .* (4,)'),
    'corr2d': (lambda: d2l.corr2d(np.ones(3), np.ones((2, 2))), 'X and K must .* (3,)'),
    'corr2d, large': (lambda: d2l.corr2d(np.ones((3, 3)), np.ones((4, 2))), 'K must .* (4, 2)'),
    'load_array': (lambda: d2l.load_array((np.ones(3), np.ones(4)), 2), 'arrays must .* [3, 4]'),
    'synthetic_data': (lambda: d2l.synthetic_data(np.ones((2, 2)), 0, 3), 'w must .* (2, 2)'),
    'plot': (lambda: d2l.plot(np.ones(3), np.ones(4)), 'x as y, got 3 and 4'),
    'show_images': (lambda: d2l.show_images([np.ones((3, 5, 5))], 1, 1), 'imgs[0] must .* (3, 5'),
    'bbox_to_rect': (lambda: d2l.bbox_to_rect([1, 2, 3], 'b'), 'bbox must .* (3,)'),
    'show_bboxes': (lambda: d2l.show_bboxes(None, np.ones((2, 3))), 'bboxes must .* (2, 3)'),
    'voc_rand_crop': (lambda: d2l.voc_rand_crop(np.ones((4, 4, 3)), np.ones((3, 4)), 2, 2),
                      'label must .* (3, 4)'),
    'voc_label_indices': (lambda: d2l.voc_label_indices(np.ones((4, 4)), np.ones(9)),
                          'colormap must .* (4, 4)'),
    'split_batch': (lambda: d2l.split_batch(np.ones(3), np.ones(4), [mx.cpu()]),
                    'X and y must .* 3 and 4'),
    'split_batch_multi_inputs': (
        lambda: d2l.split_batch_multi_inputs([np.ones(3), np.ones(4)], np.ones(3), [mx.cpu()]),
        'X and y must .* [3, 4]'),
    'update_D': (lambda: d2l.update_D(np.ones((3, 2)), np.ones((4, 2)), None, None, None, None),
                 'X and Z must .* 3 and 4'),
    'seq_data_iter_random': (lambda: d2l.seq_data_iter_random(np.ones((2, 9)), 2, 2),
                             'corpus must .* (2, 9)'),
    'batchify': (lambda: d2l.batchify([(1, [2])]), 'data must '),
    'SNLIDataset': (lambda: d2l.SNLIDataset((['a'], ['b', 'c'], [0]), 3), 'dataset must .*1, 2'),
    'Accumulator': (lambda: d2l.Accumulator(2).add(1), 'expected 2 values'),
    'Accumulator, array': (lambda: d2l.Accumulator(1).add(np.ones(2)), 'value 0 must .* (2,)'),
    'load_data_ml100k': (lambda: d2l.load_data_ml100k(ratings().iloc[:, :2], 2, 2),
                         'data must .* 2 columns'),
    'split_data_ml100k': (lambda: d2l.split_data_ml100k(ratings().iloc[:, :3], 2, 2),
                          'data must .* 3 columns'),
    'evaluate_ranking': (loop('evaluate_ranking', seq=np.ones((3, 2))), 'seq must .* got 3'),
    'train_ranking': (loop('train_ranking', train_iter=[[np.zeros(2)]]), 'batch must .* got 1'),
    'train_recsys_rating': (loop('train_recsys_rating', train_iter=crooked(5)),
                            'equally long, got .* [4, 5]'),
    'train_ch13': (loop('train_ch13', train_iter=crooked(5)), 'X and y must .* 4 and 5'),
    'evaluate_accuracy': (loop('evaluate_accuracy', data_iter=crooked(5)), 'y must .* (5,)'),
    'evaluate_accuracy_gpu': (loop('evaluate_accuracy_gpu', data_iter=crooked(5)),
                              'y must .* (5,)'),
    'evaluate_accuracy_gpus': (loop('evaluate_accuracy_gpus', data_iter=crooked(5)),
                               'X and y must .* 4 and 5'),
    'train_ch11': (loop('train_ch11', data_iter=crooked(5)), 'y must .* (5,)'),
    'predict_ch3': (loop('predict_ch3', test_iter=[[np.ones((4, 3, 3, 3, 3)), np.zeros(4)]]),
                    'imgs[0] must '),
    'predict_snli': (lambda: d2l.predict_snli(net_and_trainer()['net'], d2l.Vocab(), 'a b', ['c']),
                     "premise must .* 'a b'"),
    'predict_sentiment': (lambda: d2l.predict_sentiment(None, d2l.Vocab(), ['a']),
                          'sentence must '),
    'tokenize': (lambda: d2l.tokenize('a b'), 'lines must '),
    'count_corpus': (lambda: d2l.count_corpus([['a'], 'b']), 'tokens must '),
    'Vocab': (lambda: d2l.Vocab(['a'], reserved_tokens='<pad>'), 'reserved_tokens must '),
    'to_tokens': (lambda: d2l.Vocab(['a']).to_tokens(np.array([0, 7])), 'indices must .* got 7'),
    'RandomGenerator': (lambda: d2l.RandomGenerator([0, 0]).draw(), 'sampling_weights'),
    'show_trace_2d': (lambda: d2l.show_trace_2d(None, []), 'results must '),
    'mkdir_if_not_exist': (lambda: d2l.mkdir_if_not_exist([]), 'path must ')}


@pytest.mark.parametrize('name', SHAPES)
def test_arrays_that_do_not_fit(name):
    function, wanted = SHAPES[name]
    with pytest.raises((ValueError, TypeError, IndexError)) as caught:
        function()
    pattern = '.*'.join(map(re.escape, wanted.split('.*')))
    assert re.search(pattern, str(caught.value)), str(caught.value)


@pytest.mark.parametrize('name', ['train_ch3', 'train_ch6', 'train_epoch_ch3', 'train_ch8',
                                  'train_s2s_ch9', 'train_bert', 'train_concise_ch11'])
def test_batches_that_do_not_fit(name):
    """The operators of MXNet find these; nothing from inside the loop comes before them."""
    batches = {'train_ch8': [[np.ones((2, 3)), np.ones((2, 4))]],
               'train_s2s_ch9': [[np.ones((2, 4)), np.array([3, 4]), np.ones((3, 4)),
                                  np.array([3, 4, 4])]],
               'train_bert': [[*bert()['train_iter'][0][:6], np.zeros(3)]]}.get(name, crooked(5))
    argument = 'data_iter' if 'data_iter' in parameters(name) else 'train_iter'
    with pytest.raises((ValueError, mx.MXNetError)):
        loop(name, **{argument: batches})()


def test_fewer_examples_than_devices():
    """It is not an error: the last devices have nothing to do."""
    devices, X, y = [mx.cpu(i) for i in range(3)], np.ones((2, 3)), np.array([0, 1])
    net = nn.Dense(2, in_units=3)
    net.initialize(ctx=devices)
    for split_f, inputs in ((d2l.split_batch, X), (d2l.split_batch_multi_inputs, [X])):
        X_shards, y_shards = split_f(inputs, y, devices)
        assert len(X_shards) == len(y_shards) == 2
    trainer = gluon.Trainer(net.collect_params(), 'sgd', {'learning_rate': 1})
    d2l.train_ch13(net, [(X, y)], [(X, y)], gluon.loss.SoftmaxCELoss(), trainer, 1, devices)
    weights = [data.asnumpy() for data in net.weight.list_data()]
    assert (weights[0] == weights[1]).all() and (weights[0] == weights[2]).all()
    assert 0 <= d2l.evaluate_accuracy_gpus(net, [(X, y)]) <= 1
