"""Boxes over pictures: the numbers, colours and texts that matplotlib is given."""
import mxnet as mx
import numpy as onp
import pytest
from matplotlib import colors as mpl_colors
from matplotlib import pyplot as plt
from mxnet import np, npx

from d2l.utils.boxes import bbox_to_rect, show_bboxes

BOXES = [[60, 45, 378, 516], [400, 112, 655, 493]]


@pytest.fixture
def axes():
    figure, axes = plt.subplots()
    axes.imshow(onp.zeros((561, 728, 3), 'uint8'))
    yield axes
    plt.close(figure)


def drawn(axes):
    """[(left, top, right, bottom), ...] of the patches."""
    return [[*rect.get_xy(), rect.get_x() + rect.get_width(), rect.get_y() + rect.get_height()]
            for rect in axes.patches]


def edge_colors(axes):
    return [mpl_colors.to_rgb(rect.get_edgecolor()) for rect in axes.patches]


@pytest.mark.parametrize('make', [list, tuple, onp.array, np.array])
def test_a_box_becomes_a_rectangle(make):
    rect = bbox_to_rect(make(BOXES[0]), 'blue')
    assert rect.get_xy() == (60, 45)
    assert (rect.get_width(), rect.get_height()) == (318, 471)
    assert not rect.get_fill() and rect.get_linewidth() == 2
    assert mpl_colors.to_rgb(rect.get_edgecolor()) == (0, 0, 1)


@pytest.mark.parametrize('make', [
    list, onp.array, np.array, lambda boxes: [np.array(box) for box in boxes],
    lambda boxes: [np.array(boxes[0]), tuple(boxes[1])], iter])
def test_boxes_of_every_kind(axes, make):
    show_bboxes(axes, make(BOXES))
    assert drawn(axes) == BOXES


def test_legacy_arrays(axes):
    npx.reset_np()
    try:
        show_bboxes(axes, mx.nd.array(BOXES))
        show_bboxes(axes, [mx.nd.array(BOXES[0])])
    finally:
        npx.set_np()
    assert drawn(axes) == BOXES + BOXES[:1]


def test_colours_in_turn(axes):
    show_bboxes(axes, onp.tile(BOXES[0], (7, 1)))
    assert edge_colors(axes) == [mpl_colors.to_rgb(color) for color in 'bgrmkbg']


@pytest.mark.parametrize('colors, expected', [
    ('w', ['w', 'w']), (['r', 'y', 'k'], ['r', 'y']), ('orange', ['orange'] * 2),
    ((0.5, 0.25, 0.0), [(0.5, 0.25, 0.0)] * 2), (('c', 'm'), ['c', 'm'])])
def test_given_colours(axes, colors, expected):
    show_bboxes(axes, BOXES, colors=colors)
    assert edge_colors(axes) == [mpl_colors.to_rgb(color) for color in expected]


def test_labels(axes):
    """White on the colour of the box at its corner; black on white; fewer labels than boxes."""
    show_bboxes(axes, np.array(BOXES), ['dog=0.9'])
    show_bboxes(axes, [np.array(BOXES[1])], '0.87', 'w')
    show_bboxes(axes, BOXES[:1], 7, '#ffffff')
    assert [text.get_text() for text in axes.texts] == ['dog=0.9', '0.87', '7']
    assert [text.get_position() for text in axes.texts] == [(60, 45), (400, 112), (60, 45)]
    assert [text.get_color() for text in axes.texts] == ['w', 'k', 'k']
    grounds = [mpl_colors.to_rgb(text.get_bbox_patch().get_facecolor()) for text in axes.texts]
    assert grounds == [(0, 0, 1), (1, 1, 1), (1, 1, 1)]


def test_the_axes_keep_their_limits(axes):
    before = axes.get_xlim(), axes.get_ylim()
    show_bboxes(axes, [[-500, -500, 5000, 5000]], ['all'])
    axes.figure.canvas.draw()
    assert (axes.get_xlim(), axes.get_ylim()) == before


def test_no_boxes(axes):
    for none in ([], onp.zeros((0, 4)), np.zeros((0, 4))):
        show_bboxes(axes, none, ['a'])
    assert not axes.patches and not axes.texts


@pytest.mark.parametrize('boxes, fragment', [
    (onp.zeros(4), r'must have shape \(n, 4\), got \(4,\)'),
    (onp.zeros((1, 2, 4)), r'\(1, 2, 4\)'), (onp.zeros((2, 5)), r'\(2, 5\)'),
    ([BOXES[0], [1, 2, 3]], r'bboxes\[1\] must have shape \(4,\), got \(3,\)'),
    ([1, 2, 3, 4], r'bboxes\[0\] .* got \(\)')])
def test_wrong_boxes_draw_nothing(axes, boxes, fragment):
    with pytest.raises(ValueError, match='show_bboxes: .*' + fragment):
        show_bboxes(axes, boxes)
    assert not axes.patches


def test_other_errors(axes):
    with pytest.raises(ValueError, match=r'bbox_to_rect: bbox must .* got \(2, 2\)'):
        bbox_to_rect([[1, 2], [3, 4]], 'b')
    with pytest.raises(ValueError, match='show_bboxes: colors must'):
        show_bboxes(axes, BOXES, colors=[])
