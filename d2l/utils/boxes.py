"""Bounding boxes drawn over a picture."""
import numpy
from matplotlib import colors as mpl_colors
from matplotlib.patches import Rectangle

from d2l.utils import interop

_COLORS = ('b', 'g', 'r', 'm', 'k')


def bbox_to_rect(bbox, color):
    """The outline of a box as a matplotlib ``Rectangle`` in data coordinates.

    ``bbox`` holds the left, top, right and bottom edge: four numbers, or an MXNet or NumPy array
    of shape (4,).  Raises ``ValueError`` for another shape.  Book section 13.3.
    """
    corners = numpy.asarray(interop.to_numpy(bbox), dtype='float64')
    if corners.shape != (4,):
        raise ValueError(f'bbox_to_rect: bbox must have shape (4,), got {corners.shape}')
    left, top, right, bottom = corners.tolist()
    return Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor=color,
                     linewidth=2)


def show_bboxes(axes, bboxes, labels=None, colors=None):
    """Draw boxes into matplotlib axes, each with its label at the upper left corner.

    ``bboxes`` is an MXNet or NumPy array of shape (n, 4) or a sequence of n boxes, each as
    `bbox_to_rect` takes it; the corners are in the data coordinates of the axes, whose limits
    stay.  ``labels`` is one text or a sequence; boxes beyond its end have none.  ``colors`` is
    one matplotlib colour or a sequence, used in turn; by default blue, green, red, magenta and
    black.  A label is white on its box's colour, and black on white.

    Raises ``ValueError`` for boxes of another shape and for an empty ``colors``; nothing is
    drawn then.  Book section 13.4.
    """
    corners = _corners(bboxes)
    labels = [] if labels is None else _as_list(labels)
    colors = _COLORS if colors is None else _as_list(colors)
    if not len(colors):
        raise ValueError('show_bboxes: colors must have at least one colour, got none')
    for i, bbox in enumerate(corners):
        color = colors[i % len(colors)]
        rect = bbox_to_rect(bbox, color)
        axes.add_patch(rect)
        if i < len(labels):
            axes.text(*rect.get_xy(), str(labels[i]), va='center', ha='center', fontsize=9,
                      color='k' if _is_white(color) else 'w', bbox={'facecolor': color, 'lw': 0})


def _corners(bboxes):
    """The boxes as a NumPy array of shape (n, 4)."""
    if not hasattr(bboxes, 'ndim'):
        # One array after the other: a list may mix MXNet arrays, NumPy arrays and lists.
        bboxes = [numpy.asarray(interop.to_numpy(bbox)) for bbox in bboxes]
        wrong = [(i, bbox.shape) for i, bbox in enumerate(bboxes) if bbox.shape != (4,)]
        if wrong:
            raise ValueError('show_bboxes: bboxes[{}] must have shape (4,), got {}'
                             .format(*wrong[0]))
        return numpy.array(bboxes).reshape(-1, 4)
    corners = numpy.asarray(interop.to_numpy(bboxes))
    if corners.ndim != 2 or corners.shape[1] != 4:
        raise ValueError(f'show_bboxes: bboxes must have shape (n, 4), got {corners.shape}')
    return corners


def _as_list(value):
    """One text, number or RGB tuple becomes a list of itself."""
    if isinstance(value, str) or not hasattr(value, '__len__') or _is_rgb(value):
        return [value]
    return value


def _is_rgb(value):
    return isinstance(value, tuple) and len(value) in (3, 4) \
        and all(isinstance(part, (int, float)) for part in value)


def _is_white(color):
    return mpl_colors.to_rgb(color) == (1.0, 1.0, 1.0)
