import gc
import io
import os
import subprocess
import sys

import mxnet as mx
import numpy as onp
import pytest
from matplotlib import pyplot as plt
from mxnet import np

from d2l.utils import animator as animator_module
from d2l.utils.animator import Animator

NAN = float('nan')


class Stream(io.StringIO):
    def __init__(self, terminal):
        super().__init__()
        self.terminal = terminal

    def isatty(self):
        return self.terminal


class Clock:
    """Time that passes only when the test says so."""

    def __init__(self):
        self.now = 100.0

    def perf_counter(self):
        return self.now


@pytest.fixture(autouse=True)
def agg(monkeypatch):
    monkeypatch.delenv('D2L_PROGRESS', raising=False)
    plt.switch_backend('Agg')
    yield
    plt.close('all')


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(animator_module, 'time', clock)
    return clock


@pytest.fixture
def stderr(monkeypatch):
    """Return a function that puts a terminal or a log in the place of standard error."""
    def replace(terminal):
        stream = Stream(terminal)
        monkeypatch.setattr(sys, 'stderr', stream)
        monkeypatch.setenv('COLUMNS', '100')
        return stream
    return replace


def lines(animator):
    animator.fig.canvas.draw()
    return [[(float(x), float(y)) for x, y in zip(line.get_xdata(), line.get_ydata())]
            for line in animator.axes[0].lines]


def test_points_reach_the_figure_at_once():
    animator = Animator()
    fig = animator.fig
    assert animator.X is None and animator.Y is None
    animator.add(1, (2, None))
    animator.add(2, (3, 5))
    animator.add(3, [None, None])
    assert (animator.X, animator.Y) == ([[1, 2], [2]], [[2, 3], [5]])
    assert lines(animator) == [[(1, 2), (2, 3)], [(2, 5)]]
    assert animator.fig is fig


@pytest.mark.parametrize('x, y', [
    (1, 2), (np.array(1), np.array(2)), ([1], [2]), (onp.float32(1), (onp.float32(2),)),
    (np.array([1.0]), np.array([2.0])), (mx.nd.array([1]), mx.nd.array([2])),
    (1, [np.array(2.0)]), (True, onp.array([[2]]).ravel())], ids=repr)
def test_numbers_of_every_kind(x, y):
    animator = Animator()
    animator.add(x, y)
    assert lines(animator) == [[(1, 2)]]
    assert type(animator.Y[0][0]) is float


def test_an_x_for_each_line():
    animator = Animator()
    animator.add([1, None, 3], np.array([4, 5, 6]))
    assert lines(animator) == [[(1, 4)], [], [(3, 6)]]


def test_any_number_of_lines():
    animator = Animator(legend=[f'line {i}' for i in range(9)])
    for x in range(3):
        animator.add(x, range_of(9))
    assert [len(line) for line in lines(animator)] == [3] * 9
    styles = {(line.get_color(), line.get_linestyle()) for line in animator.axes[0].lines}
    assert len(styles) == 9
    assert len(animator.axes[0].get_legend().get_texts()) == 9


def range_of(n):
    return [float(i) for i in range(n)]


@pytest.mark.parametrize('x, y, message', [
    (1, (1,), 'each of the 2 lines, got 1 and 1'), (1, (1, 2, 3), 'got 3 and 3'),
    ([1, 2, 3], (1, 2), 'got 3 and 2'), ([1], (1, 2), 'got 1 and 2')])
def test_the_number_of_lines_is_fixed(x, y, message):
    animator = Animator()
    animator.add(1, (1, 2))
    with pytest.raises(ValueError, match='Animator.add: .*' + message):
        animator.add(x, y)
    assert lines(animator) == [[(1, 1)], [(1, 2)]]


@pytest.mark.parametrize('nrows, ncols', [(1, 1), (1, 3), (3, 1), (2, 2)])
def test_a_grid_of_axes(nrows, ncols):
    animator = Animator(nrows=nrows, ncols=ncols)
    assert type(animator.axes) is list
    assert animator.axes == animator.fig.axes
    assert len(animator.axes) == nrows * ncols
    animator.add(1, 2)
    assert [len(axes.lines) for axes in animator.axes] == [1] + [0] * (nrows * ncols - 1)


def test_the_other_axes_stay_with_the_caller():
    animator = Animator(ncols=2)
    animator.axes[1].imshow([[1, 2], [3, 4]])
    animator.add(1, 2)
    assert len(animator.axes[1].get_images()) == 1


def test_limits_follow_the_points_where_they_are_free():
    animator = Animator('epoch', 'loss', xlim=[0, 10], yscale='log')
    for x in range(1, 6):
        animator.add(x, 10.0 ** x)
    axes = animator.axes[0]
    assert axes.get_xlim() == (0, 10)
    low, high = axes.get_ylim()
    assert low < 10 and 1e5 < high < 1e6
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_yscale()) == ('epoch', 'loss', 'log')
    # The same as if all had been drawn at once.
    expected = plt.figure().gca()
    expected.plot(animator.X[0], animator.Y[0])
    expected.set_yscale('log')
    assert axes.get_ylim() == expected.get_ylim()


def test_not_a_number_does_not_hide_the_rest():
    animator = Animator()
    for x, y in enumerate([1.0, NAN, float('inf'), 3.0]):
        animator.add(x, y)
    low, high = animator.axes[0].get_ylim()
    assert 0 < low < 1 and 3 < high < 4


def test_axes_that_the_caller_cleared():
    animator = Animator(xlabel='epoch')
    animator.add(1, 2)
    animator.axes[0].cla()
    animator.add(2, 3)
    assert lines(animator) == [[(1, 2), (2, 3)]]
    assert animator.axes[0].get_xlabel() == 'epoch'


def test_adding_draws_nothing_and_keeps_one_line(monkeypatch):
    animator = Animator(legend=['a', 'b'])
    animator.add(0, (1, 2))
    line = animator.axes[0].lines[0]
    monkeypatch.setattr(animator.fig.canvas, 'draw', None)
    monkeypatch.setattr(animator.axes[0], 'cla', None)
    for x in range(1, 50):
        animator.add(x, (1, 2))
    assert animator.axes[0].lines[0] is line
    assert len(animator.axes[0].lines) == 2


def test_save(tmp_path):
    animator = Animator(xlabel='epoch', legend=['loss'])
    animator.add(1, 2)
    animator.add(2, 1)
    animator.save(tmp_path / 'curve.png', dpi=50)
    animator.save(str(tmp_path / 'curve.svg'))
    assert (tmp_path / 'curve.png').read_bytes().startswith(b'\x89PNG')
    assert '<svg' in (tmp_path / 'curve.svg').read_text(encoding='utf-8')


def test_a_terminal_shows_one_line(stderr, clock):
    stream = stderr(terminal=True)
    animator = Animator(xlabel='epoch', xlim=[0, 4], legend=['train loss', 'test acc'])
    clock.now += 60
    animator.add(1, (2345.678, None))
    clock.now += 60
    animator.add(2, (0.25, 0.5))
    animator.close()
    assert stream.getvalue().split('\r') == [
        '', 'epoch 1/4 |##--------|  train loss 2.35e+03  01:00<03:00',
        'epoch 2/4 |#####-----|  train loss 0.250, test acc 0.500  02:00<02:00\n']


def test_a_shorter_line_wipes_out_the_longer_one(stderr, clock):
    stream = stderr(terminal=True)
    animator = Animator(ylabel='loss')
    animator.add(1000, -12345.0)
    clock.now += 3601
    animator.add(2, 1)
    assert stream.getvalue() == ('\rx 1000  loss -1.23e+04  00:00'
                                 '\rx 2  loss 1.000  1:00:01     ')


def test_a_narrow_terminal_loses_the_clock_first(stderr, monkeypatch):
    stream = stderr(terminal=True)
    for columns, expected in [('40', 'x 1  first 1.000, second 2.000  00:00'),
                              ('37', 'x 1  first 1.000, second 2.000'),
                              ('12', 'x 1  first ')]:
        monkeypatch.setenv('COLUMNS', columns)
        Animator(legend=['first', 'second']).add(1, (1, 2))
        assert stream.getvalue().split('\r')[-1].rstrip('\n') == expected


def test_a_terminal_is_not_flooded_and_gets_the_last_point(stderr, clock):
    stream = stderr(terminal=True)
    animator = Animator()
    for x in range(100):
        clock.now += 0.01
        animator.add(x, x)
    animator.close()
    shown = stream.getvalue().split('\r')[1:]
    assert 5 <= len(shown) <= 12
    assert shown[-1] == 'x 99  y 99.000  00:01\n'
    assert '\x1b' not in stream.getvalue()


def test_a_log_gets_a_line_now_and_then_and_the_last_one(stderr, clock):
    stream = stderr(terminal=False)
    animator = Animator(xlabel='epoch', xlim=[0, 35])
    for x in range(1, 36):
        clock.now += 1
        animator.add(x, (x, 2 * x))
    animator.close()
    animator.close()
    assert stream.getvalue().splitlines() == [
        'epoch 10/35 |##--------|  y[0] 10.000, y[1] 20.000  00:10<00:25',
        'epoch 20/35 |#####-----|  y[0] 20.000, y[1] 40.000  00:20<00:15',
        'epoch 30/35 |########--|  y[0] 30.000, y[1] 60.000  00:30<00:05',
        'epoch 35/35 |##########|  y[0] 35.000, y[1] 70.000  00:35<00:00']


def test_the_last_line_comes_without_close(stderr):
    stream = stderr(terminal=False)
    animator = Animator()
    animator.add(1, 2)
    assert stream.getvalue() == ''
    del animator
    gc.collect()
    assert stream.getvalue().startswith('x 1  y 2.000')


def test_an_animator_without_points_says_nothing(stderr):
    stream = stderr(terminal=True)
    Animator(xlim=[0, 1]).close()
    assert stream.getvalue() == ''


def test_an_axis_without_length_has_no_bar(stderr):
    stream = stderr(terminal=False)
    with pytest.warns(UserWarning, match='identical'):
        animator = Animator(xlim=[1, 1])
        animator.add(1, 2)
    animator.close()
    assert stream.getvalue().startswith('x 1  y 2.000')


@pytest.mark.parametrize('setting, terminal, expected', [
    ('0', True, ''), ('0', False, ''), ('1', False, '\rx 1  y 2.000  00:00\n'),
    ('', True, '\rx 1  y 2.000  00:00\n')])
def test_progress_by_environment(stderr, monkeypatch, setting, terminal, expected):
    stream = stderr(terminal)
    monkeypatch.setenv('D2L_PROGRESS', setting)
    animator = Animator()
    animator.add(1, 2)
    animator.close()
    assert stream.getvalue() == expected


def test_progress_by_a_wrong_environment(monkeypatch):
    monkeypatch.setenv('D2L_PROGRESS', 'yes')
    with pytest.raises(ValueError, match="D2L_PROGRESS must be 0 or 1, got 'yes'"):
        Animator()


def test_without_standard_error(monkeypatch):
    monkeypatch.setattr(sys, 'stderr', None)
    animator = Animator()
    animator.add(1, 2)
    animator.close()


SCRIPT = '''
from d2l.utils.animator import Animator
animator = Animator(xlabel='epoch')
for i in range(5):
    animator.add(i, i)
print('done')
'''


def test_a_script(tmp_path):
    env = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
    done = subprocess.run([sys.executable, '-c', SCRIPT], cwd=str(tmp_path), env=env,
                          capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stdout == 'done\n'
    assert done.stderr.startswith('epoch 4  y 4.000')
    assert len(done.stderr.splitlines()) == 1


class FakeShell:
    """What the animator uses of a notebook's shell."""

    def __init__(self, counts_late):
        self.counts_late = counts_late
        self.kernel = self.events = self
        self.execution_count = 1
        self.callbacks = []

    def register(self, event, callback):
        assert event == 'post_run_cell'
        if callback not in self.callbacks:
            self.callbacks.append(callback)

    def end_cell(self):
        self.execution_count += not self.counts_late
        for callback in list(self.callbacks):
            callback(None)
        self.execution_count += self.counts_late


class FakeDisplay:
    """IPython's display that keeps what it was given."""

    def __init__(self):
        self.shown = []

    def display(self, fig, display_id):
        assert display_id is True
        self.shown.append(('new', self.points(fig)))
        return self

    def update(self, fig):
        self.shown.append(('update', self.points(fig)))

    @staticmethod
    def points(fig):
        return len(fig.axes[0].lines[0].get_xdata())


@pytest.fixture(params=[True, False], ids=['counts late', 'counts early'])
def shell(monkeypatch, clock, request):
    shell, display = FakeShell(request.param), FakeDisplay()
    monkeypatch.setattr(animator_module, 'notebook_shell', lambda: shell)
    monkeypatch.setattr(animator_module, 'display', display)
    shell.shown = display.shown
    return shell


def test_a_notebook_is_updated_a_few_times_a_second(shell, clock):
    animator = Animator()
    assert plt.get_fignums() == []
    for x in range(100):
        animator.add(x, x)
        clock.now += 0.01
    assert shell.shown[0] == ('new', 1)
    assert 4 <= len(shell.shown) <= 6
    shell.end_cell()
    assert shell.shown[-1] == ('update', 100)
    shown = len(shell.shown)
    shell.end_cell()
    animator.close()
    assert len(shell.shown) == shown


def test_a_notebook_gets_the_last_point_of_a_function(shell):
    def train():
        animator = Animator()
        for x in range(10):
            animator.add(x, x)
    train()
    gc.collect()
    shell.end_cell()
    assert shell.shown == [('new', 1), ('update', 10)]


def test_close_shows_the_last_point_before_the_cell_ends(shell):
    animator = Animator()
    for x in range(10):
        animator.add(x, x)
    animator.close()
    animator.close()
    shell.end_cell()
    assert shell.shown == [('new', 1), ('update', 10)]


def test_slow_drawing_is_rarer(shell, clock, monkeypatch):
    def slow(self, fig):
        clock.now += 1
        shell.shown.append('slow')
    monkeypatch.setattr(FakeDisplay, 'update', slow)
    animator = Animator()
    for x in range(2000):
        animator.add(x, x)
        clock.now += 0.01
    # 20 seconds of training: each second of drawing is followed by nine without.
    assert shell.shown.count('slow') in (2, 3)


def test_each_cell_has_its_own_figure(shell, clock):
    animator = Animator()
    animator.add(1, 1)
    shell.end_cell()
    clock.now += 10
    animator.add(2, 2)
    clock.now += 10
    animator.add(3, 3)
    assert shell.shown == [('new', 1), ('new', 2), ('update', 3)]


def test_a_new_cell_soon_after_the_last_one(shell):
    animator = Animator()
    animator.add(1, 1)
    shell.end_cell()
    animator.add(2, 2)
    shell.end_cell()
    assert shell.shown == [('new', 1), ('new', 2)]


def test_adding_costs_the_same_after_many_points():
    """Not a timing: the work of one call, counted in the function calls that Python makes."""
    def calls_of_one_add(animator, x):
        count = 0

        def tracer(frame, event, arg):
            nonlocal count
            count += event == 'call'
        sys.setprofile(tracer)
        try:
            animator.add(x, (1.0, 2.0))
        finally:
            sys.setprofile(None)
        return count

    animator = Animator()
    for x in range(10):
        animator.add(x, (1.0, 2.0))
    before = calls_of_one_add(animator, 10)
    for x in range(11, 2000):
        animator.add(x, (1.0, 2.0))
    assert calls_of_one_add(animator, 2000) <= before + 10
