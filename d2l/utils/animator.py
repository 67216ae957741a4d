"""Learning curves that grow while a model trains: a figure in a notebook, a line in a terminal."""
import functools
import os
import shutil
import sys
import time
import weakref

from matplotlib import pyplot as plt

from d2l.utils.notebook import display, notebook_shell
from d2l.utils.plotting import _FORMATS, add_line, set_axes, use_svg_display

# A notebook's figure is drawn at most five times a second, and drawing takes at most a tenth of
# the time.
_DRAW_INTERVAL = 0.2
_DRAW_SHARE = 0.1
_LINE_INTERVAL = 0.1
_LOG_INTERVAL = 10.0
_BAR_WIDTH = 10


class Animator:
    """Lines that are extended point by point and shown while they grow (section 3.6).

    In a notebook the figure is displayed once and then updated in place, a few times a second.
    The last points appear at the latest when the cell ends.

    Elsewhere the newest values stand in a line on standard error, after a bar when xlim says
    where the x axis ends.  On a terminal the line is rewritten in place; in a log it is printed
    at most every ten seconds and once at the end.  The environment variable D2L_PROGRESS=0 turns
    it off, D2L_PROGRESS=1 rewrites it in place on anything.  The figure is complete at any time:
    ``animator.save(path)`` writes it.

    ``fig`` is the figure and ``axes`` the list of its nrows * ncols axes, row by row.  Lines go to
    ``axes[0]``, the others are free for the caller.  ``X`` and ``Y`` hold the points of each line
    and are None before the first.  The other arguments are those of `d2l.utils.plotting.plot`.
    """

    def __init__(self, xlabel=None, ylabel=None, legend=None, xlim=None, ylim=None,
                 xscale='linear', yscale='linear', fmts=_FORMATS, nrows=1, ncols=1,
                 figsize=(3.5, 2.5)):
        use_svg_display()
        self.fig, axes = plt.subplots(nrows, ncols, figsize=figsize, squeeze=False)
        self.axes = list(axes.flatten())
        self.config_axes = functools.partial(set_axes, self.axes[0], xlabel, ylabel, xlim, ylim,
                                             xscale, yscale, legend)
        self.X, self.Y, self.fmts = None, None, fmts
        self._lines = []
        if notebook_shell() is None:
            self._view = _TextView(xlabel, ylabel, legend, xlim)
            # The last line is owed even if nobody calls close.
            weakref.finalize(self, self._view.close)
        else:
            self._view = _NotebookView(self.fig)

    def add(self, x, y):
        """Append a point to each line and show it.

        y is a number or one number for each line, x a number for all lines or one for each.
        Numbers may be arrays of one element.  None leaves a line as it is.  The first call
        decides how many lines there are; ValueError is raised when a later one disagrees.
        """
        ys = _values(y)
        xs = _values(x)
        if not isinstance(x, (list, tuple)) and len(xs) == 1:
            xs = xs * len(ys)
        lines = len(ys) if self.X is None else len(self.X)
        if not len(xs) == len(ys) == lines:
            raise ValueError('Animator.add: x and y must have a value for each of the '
                             f'{lines} lines, got {len(xs)} and {len(ys)}')
        if self.X is None:
            self.X, self.Y = [[] for _ in ys], [[] for _ in ys]
        for i, point in enumerate(zip(xs, ys)):
            if None not in point:
                self.X[i].append(point[0])
                self.Y[i].append(point[1])
        self._extend(list(zip(xs, ys)))
        self._view.show(xs, self.Y)

    def close(self):
        """Show the last points now and end the progress line, at the end of a loop."""
        self._view.close()

    def save(self, path, **kwargs):
        """Write the figure to a file; its ending decides the format (png, svg, pdf, ...).

        Keyword arguments go to matplotlib's savefig.
        """
        self.fig.savefig(path, **dict({'bbox_inches': 'tight'}, **kwargs))

    def _extend(self, points):
        """Let the figure follow X and Y at a cost that does not grow with their length."""
        axes = self.axes[0]
        present = list(axes.lines)
        if any(line not in present for line in self._lines):
            self._lines = []
        if not self._lines:
            self._lines = [add_line(axes, x, y, self.fmts, i)
                           for i, (x, y) in enumerate(zip(self.X, self.Y))]
            self.config_axes()
            return
        for line, x, y in zip(self._lines, self.X, self.Y):
            line.set_data(x, y)
        drawn = [point for point in points if None not in point]
        if drawn:
            axes.update_datalim(drawn)
            axes.autoscale_view()


# Views whose newest points are not on screen.  They must outlive their animator: a function may
# have returned before its cell ends.
_waiting = []


class _NotebookView:
    """Displays a figure once in each cell and from then on updates it in place."""

    def __init__(self, fig):
        self.fig = fig
        self.handle = None
        # The numbers of the cell that shows the figure and of the cell that added points last.
        self.cell = self.newest_cell = None
        self.next_draw = 0.0
        # Otherwise the notebook would show every open figure once more at the end of a cell.
        plt.close(fig)

    def show(self, xs, Y):
        shell = notebook_shell()
        # Asked for now: at the end of a cell some versions of IPython are one ahead.
        self.newest_cell = shell.execution_count
        if time.perf_counter() >= self.next_draw:
            self.draw()
        elif self not in _waiting:
            shell.events.register('post_run_cell', _draw_waiting)
            _waiting.append(self)

    def close(self):
        if self in _waiting:
            self.draw()

    def draw(self):
        start = time.perf_counter()
        if self.handle is None or self.cell != self.newest_cell:
            self.handle = display.display(self.fig, display_id=True)
            self.cell = self.newest_cell
        else:
            self.handle.update(self.fig)
        end = time.perf_counter()
        self.next_draw = end + max(_DRAW_INTERVAL, (end - start) * (1 / _DRAW_SHARE - 1))
        if self in _waiting:
            _waiting.remove(self)


def _draw_waiting(result=None):
    """Draw what is not on screen yet; the notebook calls it at the end of each cell."""
    while _waiting:
        _waiting.pop().draw()


class _TextView:
    """Writes the newest values to standard error, in place on a terminal, now and then in a log."""

    def __init__(self, xlabel, ylabel, legend, xlim):
        setting = os.environ.get('D2L_PROGRESS', '')
        if setting not in ('', '0', '1'):
            raise ValueError(f'D2L_PROGRESS must be 0 or 1, got {setting!r}')
        self.silent = setting == '0' or sys.stderr is None
        self.live = not self.silent and (setting == '1' or sys.stderr.isatty())
        self.xlabel = xlabel or 'x'
        self.ylabel = ylabel or 'y'
        self.names = [legend] if isinstance(legend, str) else list(legend or ())
        self.xlim = None if xlim is None else [float(x) for x in xlim]
        self.start = time.perf_counter()
        self.next_line = self.start if self.live else self.start + _LOG_INTERVAL
        self.newest = None
        self.width = 0

    def show(self, xs, Y):
        if self.silent:
            return
        self.newest = (xs, Y)
        if time.perf_counter() >= self.next_line:
            self.write()

    def close(self):
        if self.newest is not None:
            self.write()
        if self.width:
            sys.stderr.write('\n')
            sys.stderr.flush()
            self.width = 0

    def write(self):
        *parts, clock = self.parts(*self.newest)
        text = '  '.join([*parts, clock])
        self.newest = None
        if self.live:
            columns = shutil.get_terminal_size().columns - 1
            if len(text) > columns:
                text = '  '.join(parts)[:columns]
            # Spaces wipe out what a longer line left behind.
            sys.stderr.write('\r' + text.ljust(self.width))
            self.width = len(text)
        else:
            sys.stderr.write(text + '\n')
        sys.stderr.flush()
        self.next_line = time.perf_counter() + (_LINE_INTERVAL if self.live else _LOG_INTERVAL)

    def parts(self, xs, Y):
        """Return the pieces of the line; the last one, the clock, can be left out."""
        x = max((x for x in xs if x is not None), default=0.0)
        elapsed = time.perf_counter() - self.start
        head, clock = f'{self.xlabel} {_short(x)}', _minutes(elapsed)
        if self.xlim and self.xlim[0] < self.xlim[1]:
            low, high = self.xlim
            done = min(max((x - low) / (high - low), 0.0), 1.0)
            bar = '#' * int(done * _BAR_WIDTH)
            head += f'/{_short(high)} |{bar.ljust(_BAR_WIDTH, "-")}|'
            if done > 0:
                clock += '<' + _minutes(elapsed * (1 - done) / done)
        values = [f'{self.name(i, len(Y))} {_three_digits(y[-1])}' for i, y in enumerate(Y) if y]
        return head, ', '.join(values), clock

    def name(self, i, lines):
        if i < len(self.names):
            return self.names[i]
        return self.ylabel if lines == 1 else f'{self.ylabel}[{i}]'


def _values(v):
    """Return the floats in a number, an array, or a list of them in which None may stand."""
    if isinstance(v, (list, tuple)):
        return [None if item is None else float(item) for item in v]
    if getattr(v, 'ndim', 0):
        return [float(item) for item in v]
    return [None if v is None else float(v)]


def _short(x):
    """Write 3 as 3 and 3.25 as 3.25, and no digits that nobody reads."""
    return f'{x:.2f}'.rstrip('0').rstrip('.')


def _three_digits(y):
    """Write 0.25 as 0.250: the width stays the same while the value changes."""
    return f'{y:.3f}' if y == 0 or 0.001 <= abs(y) < 1000 else f'{y:.2e}'


def _minutes(seconds):
    """Write a duration as minutes:seconds or hours:minutes:seconds."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f'{hours}:{minutes:02d}:{seconds:02d}'
    return f'{minutes:02d}:{seconds:02d}'
