import importlib
import sys
import types

import pytest

from d2l.utils import notebook


def test_no_kernel_in_a_script():
    assert notebook.notebook_shell() is None


@pytest.mark.parametrize('module', [
    None, types.SimpleNamespace(), types.SimpleNamespace(get_ipython=lambda: None),
    types.SimpleNamespace(get_ipython=lambda: types.SimpleNamespace())])
def test_no_kernel_without_ipython_or_in_a_terminal(monkeypatch, module):
    monkeypatch.setitem(sys.modules, 'IPython', module)
    assert notebook.notebook_shell() is None


def test_kernel(monkeypatch):
    shell = types.SimpleNamespace(kernel=object())
    monkeypatch.setitem(sys.modules, 'IPython', types.SimpleNamespace(get_ipython=lambda: shell))
    assert notebook.notebook_shell() is shell


def test_display_is_that_of_ipython():
    display = pytest.importorskip('IPython.display')
    assert notebook.display is display


def test_display_without_ipython_shows_nothing(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, 'IPython', None)
    try:
        display = importlib.reload(notebook).display
        display.display('a figure', display_id=True)
        display.clear_output(wait=True)
        assert capsys.readouterr() == ('', '')
    finally:
        monkeypatch.undo()
        importlib.reload(notebook)
