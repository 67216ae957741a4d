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


def notebook_shell():
    """Return the shell of the Jupyter kernel that runs this code, or None without one.

    A script, plain Python and IPython in a terminal have no kernel.
    """
    get_ipython = getattr(sys.modules.get('IPython'), 'get_ipython', None)
    shell = get_ipython() if get_ipython else None
    return shell if getattr(shell, 'kernel', None) is not None else None
