import sys
import types

import mxnet as mx
import numpy as onp
import pytest
from matplotlib import pyplot as plt
from mxnet import np, npx

from d2l.utils import notebook
from d2l.utils.plotting import annotate, plot, set_axes, set_figsize, show_images, use_svg_display

# The lists of parameters below hold arrays, which are made before any fixture runs.
npx.set_np()


@pytest.fixture(autouse=True)
def new_figure():
    plt.switch_backend('Agg')
    with plt.rc_context():
        yield
    plt.close('all')


def drawn():
    """Return the data of the lines of the current axes, and check that they can be drawn."""
    plt.gcf().canvas.draw()
    return [(line.get_xdata().tolist(), line.get_ydata().tolist()) for line in plt.gca().lines]


class Pandas:
    """What plot uses of a pandas Series."""

    def to_numpy(self):
        return onp.array([1.0, 2.0, 3.0])


@pytest.mark.parametrize('X', [
    [1, 2, 3], (1.0, 2.0, 3.0), range(1, 4), (i for i in (1, 2, 3)), onp.array([1, 2, 3]),
    onp.array([[1], [2], [3]]), np.array([1, 2, 3]), np.array([[1], [2], [3]]),
    np.array([[1, 2, 3]]), mx.nd.array([1, 2, 3]), [[1, 2, 3]], [np.array([1, 2, 3])],
    [onp.array([[1], [2], [3]])], [np.array(1.0), onp.float32(2), 3],
    [[np.array(1.0), np.array(2.0), 3]], Pandas()], ids=lambda X: type(X).__name__)
def test_one_series(X):
    plot(X)
    assert drawn() == [([0, 1, 2], [1, 2, 3])]


@pytest.mark.parametrize('X', [3, 3.0, np.array(3), onp.float64(3), [3], np.array([3])])
def test_a_single_number(X):
    plot(X)
    assert drawn() == [([0], [3])]
    plot(X, X)
    assert drawn() == [([3], [3])]


@pytest.mark.parametrize('X', [[], (), np.zeros((0,)), onp.zeros(0), np.zeros((0, 3)), [[]]])
def test_nothing_leaves_the_axes_empty(X):
    plot([1, 2])
    plot(X, xlabel='x')
    assert all(data == ([], []) for data in drawn())
    assert plt.gca().get_xlabel() == 'x'


@pytest.mark.parametrize('x, ys', [
    ([0, 1], [[2, 3], [4, 5]]),
    (np.array([0, 1]), [np.array([2, 3]), [4, 5]]),
    ([[0, 1], [0, 1]], np.array([[2, 3], [4, 5]])),
    ([onp.array([0, 1])] * 2, onp.array([[2, 3], [4, 5]])),
    (mx.nd.array([0, 1]), mx.nd.array([[2, 3], [4, 5]])),
    ([], [[2, 3], [4, 5]]), ([[], [0, 1]], [[2, 3], [4, 5]])])
def test_several_series(x, ys):
    plot(x, ys)
    assert drawn() == [([0, 1], [2, 3]), ([0, 1], [4, 5])]
    plot(ys)
    assert drawn() == [([0, 1], [2, 3]), ([0, 1], [4, 5])]


def test_series_of_different_lengths():
    plot([[0, 1, 2], [5]], [[1, 2, 3], [4]])
    assert drawn() == [([0, 1, 2], [1, 2, 3]), ([5], [4])]


def test_before_set_np():
    npx.reset_np()
    try:
        x = np.arange(0, 3, 1)
        plot(x, [x ** 2, 2 * x])
        assert drawn() == [([0, 1, 2], [0, 1, 4]), ([0, 1, 2], [0, 2, 4])]
        # There are no 0-d arrays here: a number has shape (1,).
        plot([x[0], x[1], x[2]])
        assert drawn() == [([0, 1, 2], [0, 1, 2])]
    finally:
        npx.set_np()


def test_an_array_is_read_in_one_piece(monkeypatch):
    """matplotlib would take it apart, element by element."""
    reads, asnumpy = [], np.ndarray.asnumpy
    monkeypatch.setattr(np.ndarray, 'asnumpy', lambda self: reads.append(1) or asnumpy(self))
    plot(np.arange(50), [np.arange(50), np.ones(50)])
    assert len(drawn()) == 2 and len(reads) == 3


def test_text_and_dates_are_values():
    plot(['a', 'b'], [1, 2])
    assert drawn() == [(['a', 'b'], [1, 2])]
    days = onp.array(['2020-01-01', '2020-01-02'], dtype='datetime64[D]')
    plot(days, [1, 2])
    assert plt.gca().lines[0].get_xdata().tolist() == days.tolist()


def test_any_number_of_lines_that_differ():
    plot([0, 1], [[i, i] for i in range(9)])
    lines = plt.gca().lines
    assert [line.get_ydata()[0] for line in lines] == list(range(9))
    styles = [(line.get_color(), line.get_linestyle()) for line in lines]
    assert len(set(styles)) == 9
    assert styles[1:4] == [('m', '--'), ('g', '-.'), ('r', ':')]
    assert [style for _, style in styles] == ['-', '--', '-.', ':', '-', '--', '-.', ':', '-']


def test_fmts_of_the_caller():
    plot([0, 1], [[1, 2], [2, 3], [3, 4]], fmts=['bo', 'k+'])
    assert [line.get_marker() for line in plt.gca().lines] == ['o', '+', 'o']


@pytest.mark.parametrize('X, Y, message', [
    ([[1, 2], [3, 4]], [[1, 2]], r'X must be one series or as many as Y, got 2 of X and 1 of Y'),
    ([1, 2], [1, 2, 3], r'series 0 must have as many x as y, got 2 and 3'),
    ([1, 2], [[1, 2], [1]], r'series 1 must have as many x as y, got 2 and 1'),
    ([1, [2, 3]], None, r'X must be numbers or series, got a mixture'),
    ([1, 2], [1, np.array([2, 3])], r'Y must be numbers or series, got a mixture'),
    (np.zeros((2, 3, 4)), None, r'each series of X must have shape \(n,\), got \(2, 3, 4\)'),
    ([onp.zeros((2, 3))], None, r'each series of X must have shape \(n,\), got \(2, 3\)')])
def test_what_does_not_fit(X, Y, message):
    with pytest.raises(ValueError, match='plot: .*' + message):
        plot(X, Y)


def test_axes_of_the_plot():
    plot([1, 10], [1, 100], 'x', 'f(x)', ['f'], [1, 20], [1, 200], 'log', 'log', figsize=(4, 2))
    axes = plt.gca()
    assert (axes.get_xlabel(), axes.get_ylabel()) == ('x', 'f(x)')
    assert (axes.get_xlim(), axes.get_ylim()) == ((1, 20), (1, 200))
    assert (axes.get_xscale(), axes.get_yscale()) == ('log', 'log')
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ['f']
    assert plt.gcf().get_size_inches().tolist() == [4, 2]


def test_plot_starts_over_in_given_axes():
    _, (left, right) = plt.subplots(1, 2)
    plot([1, 2], axes=left)
    plot([3, 4], axes=left)
    assert [line.get_ydata().tolist() for line in left.lines] == [[3, 4]]
    assert len(right.lines) == 0


def test_set_axes_shows_the_grid_every_time():
    axes = plt.gca()
    for _ in range(2):
        set_axes(axes, 'x', 'y', None, None, 'linear', 'linear', None)
        assert all(line.get_visible() for line in axes.get_xgridlines())
    assert axes.get_legend() is None


def test_set_axes_takes_mxnet_limits_and_one_name():
    axes = plt.gca()
    axes.plot([1, 2])
    set_axes(axes, None, None, [np.array(1.0), np.array(2.0)], np.array([0, 5]), 'linear',
             'linear', 'loss')
    assert (axes.get_xlim(), axes.get_ylim()) == ((1, 2), (0, 5))
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ['loss']


def test_set_figsize():
    set_figsize((5, 6))
    assert plt.figure().get_size_inches().tolist() == [5, 6]
    set_figsize()
    assert plt.figure().get_size_inches().tolist() == [3.5, 2.5]


def test_use_svg_display(monkeypatch):
    formats = []
    module = types.SimpleNamespace(set_matplotlib_formats=formats.append)
    monkeypatch.setitem(sys.modules, 'matplotlib_inline.backend_inline', module)
    use_svg_display()
    assert formats == []
    monkeypatch.setattr(notebook, 'notebook_shell', lambda: object())
    use_svg_display()
    assert formats == ['svg']
    # IPython 9 has it no more; the book's own cell takes it from there.
    if notebook.display.set_matplotlib_formats is notebook.set_matplotlib_formats:
        notebook.display.set_matplotlib_formats('svg')
        assert formats == ['svg', 'svg']


@pytest.mark.parametrize('owner', [lambda: plt, plt.gca])
@pytest.mark.parametrize('use_line_collection', [True, False])
def test_stem_takes_the_argument_that_matplotlib_dropped(owner, use_line_collection):
    plt.figure()
    drawn = owner().stem([1, 2, 3], [4, 5, 6], use_line_collection=use_line_collection)
    onp.testing.assert_array_equal(drawn.markerline.get_ydata(), [4, 5, 6])


def images(axes):
    plt.gcf().canvas.draw()
    return [onp.asarray(ax.get_images()[0].get_array()) for ax in axes if ax.get_images()]


PICTURES = onp.arange(6 * 4 * 5, dtype='float32').reshape((6, 4, 5)) / 120


@pytest.mark.parametrize('imgs', [
    PICTURES, list(PICTURES), PICTURES[..., None], PICTURES.tolist(), np.array(PICTURES),
    list(np.array(PICTURES)), mx.nd.array(PICTURES), np.array(PICTURES[..., None]),
    (picture for picture in PICTURES)], ids=lambda imgs: type(imgs).__name__)
def test_show_images(imgs):
    axes = show_images(imgs, 2, 3, titles='abcdef', scale=2)
    assert axes.shape == (6,)
    onp.testing.assert_array_equal(images(axes), PICTURES)
    assert [ax.get_title() for ax in axes] == list('abcdef')
    assert not any(ax.get_xaxis().get_visible() or ax.get_yaxis().get_visible() for ax in axes)
    assert plt.gcf().get_size_inches().tolist() == [6, 4]


@pytest.mark.parametrize('rows, cols', [(1, 1), (1, 6), (6, 1), (2, 2)])
def test_grids_of_any_shape(rows, cols):
    axes = show_images(np.array(PICTURES), rows, cols)
    assert axes.shape == (rows * cols,)
    onp.testing.assert_array_equal(images(axes), PICTURES[:rows * cols])


def test_fewer_pictures_and_titles_than_cells():
    axes = show_images(list(PICTURES[:2]), 1, 4, titles=onp.array(['one']))
    assert len(images(axes)) == 2
    assert [ax.get_title() for ax in axes] == ['one', '', '', '']
    assert [ax.axison for ax in axes] == [True, True, False, False]


def test_colour_pictures():
    PIL = pytest.importorskip('PIL.Image')
    rgb = (onp.random.RandomState(0).uniform(size=(4, 5, 3)) * 255).astype('uint8')
    axes = show_images([PIL.fromarray(rgb), np.array(rgb, dtype='uint8'),
                        onp.concatenate([rgb, rgb[..., :1]], axis=2)], 1, 3)
    first, second, third = images(axes)
    onp.testing.assert_array_equal(first, rgb)
    onp.testing.assert_array_equal(second, rgb)
    assert third.shape == (4, 5, 4)


@pytest.mark.parametrize('img, message', [
    (np.zeros((3, 8, 9)), r'imgs\[1\] .* got \(3, 8, 9\); move the channels last'),
    (np.zeros((8, 9, 2)), r'imgs\[1\] .* got \(8, 9, 2\)$'),
    (np.zeros(8), r'imgs\[1\] .* got \(8,\)$')])
def test_pictures_of_another_shape(img, message):
    with pytest.raises(ValueError, match=message):
        show_images([PICTURES[0], img], 1, 2)
    assert plt.get_fignums() == []


@pytest.mark.parametrize('point', [tuple, onp.array, np.array])
def test_annotate(point):
    plot([0, 1, 2], [0, 1, 4])
    assert annotate('minimum', point((0.5, 0.25)), point((1.0, 2.0))) is None
    note, = plt.gca().texts
    plt.gcf().canvas.draw()
    assert note.get_text() == 'minimum'
    assert note.xy == (0.5, 0.25) and note.xyann == (1.0, 2.0)
    assert note.arrow_patch is not None
