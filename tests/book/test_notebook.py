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
}


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
