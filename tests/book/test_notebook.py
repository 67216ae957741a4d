"""The animator and the loops in a real notebook: one figure, updated in place, up to date."""
import os
import pathlib

import pytest

nbformat = pytest.importorskip('nbformat')
preprocessors = pytest.importorskip('nbconvert.preprocessors')
pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).resolve().parents[2]

CELLS = {
    'setup': '''
from d2l import mxnet as d2l
from mxnet import np, npx
from mxnet.gluon import nn
from IPython.display import DisplayHandle
npx.set_np()
# Text stays text in SVG, so that the test can read the figures.
d2l.plt.rcParams['svg.fonttype'] = 'none'
updates = []
update = DisplayHandle.update
DisplayHandle.update = lambda self, *args, **kwargs: (updates.append(self),
                                                      update(self, *args, **kwargs))[1]
''',
    'loop in a function': '''
def train():
    animator = d2l.Animator(xlabel='epoch', legend=['train loss', 'test loss'])
    for i in range(200):
        animator.axes[0].set_title(f'point {i} of the function')
        animator.add(i, (1 / (i + 1), None))
train()
''',
    'two animators': '''
first, second = d2l.Animator(xlabel='first'), d2l.Animator(xlabel='second', nrows=2, ncols=2)
for i in range(30):
    for animator in (first, second):
        animator.axes[0].set_title(f'point {i}')
        animator.add(i, [i] * 6)
''',
    'an old animator': '''
first.axes[0].set_title('in another cell')
first.add(31, [31] * 6)
''',
    'interrupted': '''
animator = d2l.Animator()
for i in range(30):
    animator.axes[0].set_title(f'point {i} before the error')
    animator.add(i, i)
    if i == 20:
        raise KeyError('stop')
''',
    'train_ch6': '''
net = nn.HybridSequential()
net.add(nn.Conv2D(2, 3), nn.Dense(3))
net.hybridize()
X, y = np.random.normal(size=(64, 1, 8, 8)), np.arange(64) % 3
data = d2l.load_array((X, y), 4)
d2l.train_ch6(net, data, data, 3, 0.1)
''',
    'plot': '''
d2l.plot(np.arange(3), [np.arange(3)] * 5, xlabel='only once')
''',
    'count': 'print(len(updates))',
    'chapter 8': '''
from mxnet import gluon, init
from mxnet.gluon import rnn
device = d2l.try_gpu()
train_iter, vocab = d2l.load_data_time_machine(16, 8, max_tokens=400)
d2l.train_ch8(d2l.RNNModel(rnn.GRU(8), len(vocab)), train_iter, vocab, 1, 2, device)
''',
    'chapter 10': '''
src_vocab, tgt_vocab, train_iter = d2l.load_data_nmt(batch_size=32, num_steps=6, num_examples=64)
model = d2l.EncoderDecoder(d2l.Seq2SeqEncoder(len(src_vocab), 8, 8, 1),
                           d2l.Seq2SeqDecoder(len(tgt_vocab), 8, 8, 1))
d2l.train_s2s_ch9(model, train_iter, 0.01, 2, device)
''',
    'chapter 11': '''
f = lambda x1, x2: x1 ** 2 + 2 * x2 ** 2
d2l.show_trace_2d(f, d2l.train_2d(lambda x1, x2, s1, s2: (0.8 * x1, 0.6 * x2, 0, 0), steps=5))
''',
    'chapter 13': '''
d2l.show_images([np.zeros((8, 8, 3), dtype='uint8')] * 2, 1, 2, titles=['first', 'second'])
fig = d2l.plt.gcf()
d2l.show_bboxes(fig.axes[0], np.array([[1, 1, 4, 4]]), ['a box'], 'w')
''',
    'chapter 14': '''
embed = nn.Embedding(3, 2)
embed.initialize()
animator = d2l.Animator(xlabel='epoch', ylabel='loss', xlim=[1, 2], legend=['word2vec'])
for epoch in range(2):
    animator.add(epoch + 1, (embed(np.array([epoch])).sum(),))
embed(np.array([1]))
''',
    'chapter 15': '''
X, y = np.random.normal(size=(32, 2)), np.arange(32) % 2
net = nn.Sequential()
net.add(nn.Dense(2))
net.initialize(init.Xavier())
trainer = gluon.Trainer(net.collect_params(), 'adam', {'learning_rate': 0.01})
loss = gluon.loss.SoftmaxCrossEntropyLoss()
data_iter = d2l.load_array((X, y), 8)
d2l.train_ch13(net, data_iter, data_iter, loss, trainer, 2, d2l.try_all_gpus())
''',
    'chapter 16': '''
class Factors(nn.Block):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.P, self.Q = nn.Embedding(4, 2), nn.Embedding(4, 2)
    def forward(self, user, item):
        return (self.P(user) * self.Q(item)).sum(axis=1)
net = Factors()
net.initialize()
trainer = gluon.Trainer(net.collect_params(), 'adam', {'learning_rate': 0.01})
users = np.arange(8) % 4
data_iter = d2l.load_array((users, users, users), 4)
d2l.train_recsys_rating(net, data_iter, data_iter, gluon.loss.L2Loss(), trainer, 2)
''',
    'chapter 17': '''
animator = d2l.Animator(xlabel='epoch', ylabel='loss', nrows=2, figsize=(5, 5),
                        legend=['discriminator', 'generator'])
animator.fig.subplots_adjust(hspace=0.3)
for epoch in range(3):
    animator.axes[1].cla()
    animator.axes[1].scatter(X[:, 0], X[:, 1])
    animator.axes[1].legend(['generated'])
    animator.add(epoch, (1, 2))
''',
}

# What the figure of a chapter's cell shows, and what is printed, if anything.
CHAPTERS = {'chapter 8': ('perplexity', 'perplexity '), 'chapter 10': ('epoch', 'loss '),
            'chapter 11': ('x1', 'epoch 5, x1 '), 'chapter 13': ('a box', ''),
            'chapter 14': ('word2vec', ''), 'chapter 15': ('test acc', 'loss '),
            'chapter 16': ('test RMSE', 'train loss '), 'chapter 17': ('generated', '')}


@pytest.fixture(scope='module')
def cells(tmp_path_factory):
    notebook = nbformat.v4.new_notebook()
    notebook.cells = [nbformat.v4.new_code_cell(source) for source in CELLS.values()]
    folder = tmp_path_factory.mktemp('notebook')
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('PYTHONPATH', str(ROOT), prepend=os.pathsep)
        patch.setenv('IPYTHONDIR', str(folder))
        patch.delenv('MPLBACKEND', raising=False)
        run = preprocessors.ExecutePreprocessor(timeout=300, kernel_name='python3',
                                                allow_errors=True)
        run.preprocess(notebook, {'metadata': {'path': str(folder)}})
    assert notebook.cells[0].outputs == []
    return {name: cell.outputs for name, cell in zip(CELLS, notebook.cells)}


def figures(outputs):
    """Return the SVG figures, and check that no other kind of picture or text came with them."""
    shown = [output for output in outputs if output.output_type == 'display_data']
    for output in shown:
        assert set(output.data) <= {'image/svg+xml', 'text/plain'}
    return [output.data['image/svg+xml'] for output in shown]


def test_one_figure_with_the_last_point(cells):
    outputs = cells['loop in a function']
    svg, = figures(outputs)
    assert 'point 199 of the function' in svg
    assert 'test loss' in svg
    assert len(outputs) == 1


def test_two_figures_in_one_cell(cells):
    first, second = figures(cells['two animators'])
    assert len(cells['two animators']) == 2
    assert 'first' in first and 'point 29' in first
    assert 'second' in second and 'point 29' in second


def test_a_new_cell_shows_the_figure_again(cells):
    svg, = figures(cells['an old animator'])
    assert 'in another cell' in svg
    assert 'in another cell' not in figures(cells['two animators'])[0]


def test_an_error_shows_the_last_point(cells):
    svg, = figures(cells['interrupted'])
    assert 'point 20 before the error' in svg
    assert [o.output_type for o in cells['interrupted']].count('error') == 1


def test_train_ch6(cells):
    outputs = cells['train_ch6']
    svg, = figures(outputs)
    assert 'train acc' in svg
    text, = [output.text for output in outputs if output.output_type == 'stream']
    assert text.startswith('loss ') and 'examples/sec on cpu(0)' in text
    assert len(outputs) == 2


def test_plot_is_shown_once(cells):
    svg, = figures(cells['plot'])
    assert 'only once' in svg


def test_drawing_is_rare(cells):
    # 200 + 60 + 1 + 21 + 36 points were added.
    assert int(cells['count'][0].text) < 150


@pytest.mark.parametrize('chapter', CHAPTERS)
def test_a_cell_of_a_chapter(cells, chapter):
    outputs, (label, text) = cells[chapter], CHAPTERS[chapter]
    assert [output for output in outputs if output.output_type == 'error'] == []
    svg, = figures(outputs)
    assert label in svg
    printed = ''.join(output.text for output in outputs
                      if output.output_type == 'stream' and output.name == 'stdout')
    assert printed.startswith(text) and (text or not printed)
    assert '\x1b' not in printed and 'Figure(' not in printed
