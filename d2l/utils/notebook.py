"""Whether a notebook is listening, and what stands in for IPython where it is not installed."""
import sys
import types


def _show_nothing(*args, **kwargs):
    """Accept what IPython's function of the same place accepts, and show nothing."""


try:
    from IPython import display
except ImportError:
    display = types.SimpleNamespace(display=_show_nothing, clear_output=_show_nothing,
                                    update_display=_show_nothing)


def set_matplotlib_formats(*formats, **kwargs):
    """Choose the format of figures in a notebook, such as 'svg'; do nothing elsewhere.

    The arguments are those of the function of matplotlib_inline.
    """
    if notebook_shell() is not None:
        from matplotlib_inline.backend_inline import set_matplotlib_formats as in_notebook
        in_notebook(*formats, **kwargs)


if not hasattr(display, 'set_matplotlib_formats'):
    # Section 2.4 takes it from IPython.display, where it was until IPython 9.
    display.set_matplotlib_formats = set_matplotlib_formats


def notebook_shell():
    """Return the shell of the Jupyter kernel that runs this code, or None without one.

    A script, plain Python and IPython in a terminal have no kernel.
    """
    get_ipython = getattr(sys.modules.get('IPython'), 'get_ipython', None)
    shell = get_ipython() if get_ipython else None
    return shell if getattr(shell, 'kernel', None) is not None else None
