"""Line plots and grids of pictures, in a notebook, in a script and without a screen."""
import functools
import inspect
import itertools

import numpy
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from mxnet.ndarray import NDArray
from mxnet.util import is_np_shape

from d2l.utils import interop
from d2l.utils.notebook import set_matplotlib_formats

_FORMATS = ('-', 'm--', 'g-.', 'r:')


def _with_use_line_collection(stem):
    """Return ``stem`` with an argument that section 18.6 passes and matplotlib 3.8 dropped.

    matplotlib draws the lines as one collection since then, whether it is asked to or not.
    """
    @functools.wraps(stem)
    def with_use_line_collection(*args, use_line_collection=True, **kwargs):
        return stem(*args, **kwargs)
    return with_use_line_collection


if 'use_line_collection' not in inspect.signature(Axes.stem).parameters:
    Axes.stem = _with_use_line_collection(Axes.stem)
    plt.stem = _with_use_line_collection(plt.stem)


def use_svg_display():
    """Show figures as SVG in a notebook; do nothing elsewhere (section 2.4)."""
    set_matplotlib_formats('svg')


def set_figsize(figsize=(3.5, 2.5)):
    """Set the size in inches of figures made from now on (section 2.4)."""
    use_svg_display()
    plt.rcParams['figure.figsize'] = figsize


def set_axes(axes, xlabel, ylabel, xlim, ylim, xscale, yscale, legend):
    """Set labels, scales, limits and legend of matplotlib axes, and show the grid (section 2.4).

    None leaves a label or limit out; a legend that is None or empty is not drawn.
    """
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.set_xscale(xscale)
    axes.set_yscale(yscale)
    # Setting even None would end the automatic limits.
    if xlim is not None:
        axes.set_xlim(xlim)
    if ylim is not None:
        axes.set_ylim(ylim)
    if legend is not None and len(legend):
        axes.legend([legend] if isinstance(legend, str) else legend)
    axes.grid(True)


def plot(X, Y=None, xlabel=None, ylabel=None, legend=None, xlim=None, ylim=None,
         xscale='linear', yscale='linear', fmts=_FORMATS, figsize=(3.5, 2.5), axes=None):
    """Draw one or several lines into the current axes (section 2.4).

    X and Y are each one series or several.  One series is a sequence of numbers or an array of
    shape (n,) or (n, 1); several are a list of such series or the rows of an array of shape
    (lines, n).  Arrays are MXNet's, NumPy's or pandas'.  A single number is a series of one
    point.  With X alone the values are drawn against their index, and so is every series of Y
    whose X is empty.  One X serves any number of Y.

    There may be more lines than formats in fmts: the styles then start again in new colours.
    Without values the axes stay empty.  Raises ValueError when X and Y do not fit together.
    """
    pairs = _pair(X, Y)
    set_figsize(figsize)
    if axes is None:
        axes = plt.gca()
    axes.cla()
    for i, (x, y) in enumerate(pairs):
        add_line(axes, x, y, fmts, i)
    set_axes(axes, xlabel, ylabel, xlim, ylim, xscale, yscale, legend)


def add_line(axes, x, y, fmts, i):
    """Draw the i-th line of a plot in its format and return it; an empty x means the index."""
    line, = axes.plot(*((x, y) if len(x) else (y,)), fmts[i % len(fmts)])
    if i >= len(fmts):
        # The same format a second time: another colour keeps the lines apart.
        line.set_color(f'C{(i - len(fmts) + 1) % 10}')
    return line


def annotate(text, xy, xytext):
    """Write text at xytext into the current axes, with an arrow from it to xy (section 11.1).

    Both are points (x, y) in the units of the axes.
    """
    plt.gca().annotate(text, xy=tuple(map(float, xy)), xytext=tuple(map(float, xytext)),
                       arrowprops={'arrowstyle': '->'})


def show_images(imgs, num_rows, num_cols, titles=None, scale=1.5):
    """Show pictures in a grid and return its axes, a flat array (section 3.5).

    imgs holds MXNet or NumPy arrays, PIL images or nested lists, each of shape (height, width),
    (height, width, 1), (height, width, 3) or (height, width, 4); it may be one array of them.
    The first num_rows * num_cols are shown; cells without a picture stay blank.  titles may be
    shorter than imgs.  scale is the width and height of a cell in inches.

    Raises ValueError for a picture of another shape.
    """
    if isinstance(imgs, NDArray):
        imgs = imgs[:num_rows * num_cols].asnumpy()
    pictures = [_as_picture(img, i)
                for i, img in enumerate(itertools.islice(imgs, num_rows * num_cols))]
    titles = [] if titles is None else titles
    # The constrained layout leaves room for titles of several lines.
    _, axes = plt.subplots(num_rows, num_cols, squeeze=False, layout='constrained',
                           figsize=(num_cols * scale, num_rows * scale))
    axes = axes.flatten()
    for i, ax in enumerate(axes):
        if i >= len(pictures):
            ax.axis('off')
            continue
        ax.imshow(pictures[i])
        ax.get_xaxis().set_visible(False)
        ax.get_yaxis().set_visible(False)
        if i < len(titles):
            ax.set_title(titles[i])
    return axes


def _as_picture(img, i):
    """Return the i-th picture as a NumPy array that imshow takes."""
    img = numpy.asarray(interop.to_numpy(img))
    if img.ndim == 3 and img.shape[2] == 1:
        img = img[:, :, 0]
    if img.ndim != 2 and (img.ndim != 3 or img.shape[2] not in (3, 4)):
        hint = '; move the channels last' if img.ndim == 3 and img.shape[0] in (1, 3, 4) else ''
        raise ValueError(f'show_images: imgs[{i}] must have shape (height, width) or (height, '
                         f'width, channels) with 1, 3 or 4 channels, got {img.shape}{hint}')
    return img


def _pair(X, Y):
    """Return the list of (x, y) that plot draws; x is empty where the index is meant."""
    if Y is None:
        return [((), y) for y in _series(X, 'X')]
    xs, ys = _series(X, 'X'), _series(Y, 'Y')
    if len(xs) == 1:
        xs = xs * len(ys)
    if len(xs) != len(ys):
        raise ValueError('plot: X must be one series or as many as Y, '
                         f'got {len(xs)} of X and {len(ys)} of Y')
    for i, (x, y) in enumerate(zip(xs, ys)):
        if len(x) not in (0, len(y)):
            raise ValueError(f'plot: series {i} must have as many x as y, '
                             f'got {len(x)} and {len(y)}')
    return list(zip(xs, ys))


def _series(values, name):
    """Split what plot was given into a list of one-dimensional NumPy arrays."""
    if hasattr(values, 'to_numpy'):
        values = values.to_numpy()
    if not hasattr(values, 'ndim'):
        values = list(values) if _is_vector(values) else [values]
        vectors = [_is_vector(item) for item in values]
        if any(vectors):
            if not all(vectors):
                raise ValueError(f'plot: {name} must be numbers or series, got a mixture')
            return [_one_series(item, name) for item in values]
        values = numpy.asarray(values)
    if values.ndim == 2 and values.shape[1] != 1:
        return list(values)
    return [_one_series(values, name)]


def _one_series(values, name):
    """Return one series of shape (n,)."""
    values = numpy.asarray(values if hasattr(values, 'ndim') else list(values))
    if values.ndim > 2 or (values.ndim == 2 and 1 not in values.shape):
        raise ValueError(f'plot: each series of {name} must have shape (n,), got {values.shape}')
    return values.reshape(-1)


def _is_vector(item):
    """Tell a series from a single value; text is a single value."""
    if isinstance(item, NDArray) and item.shape == (1,):
        # Before npx.set_np() MXNet has no 0-d arrays, and a single value has this shape.
        return is_np_shape()
    if hasattr(item, 'ndim'):
        return item.ndim > 0
    return not isinstance(item, (str, bytes)) and hasattr(item, '__iter__')
