"""Runs a script as a worker of a job: ``python -m d2l.parallel._worker script.py arguments``.

The script finds what it finds under ``python script.py``.  Besides, the launcher knows from the
first moment that it lives, and when it ends with an exception: at once, since MXNet's parameter
server would hold a failed worker back at its exit until the others come, which they never do.
"""
import os
import sys
import traceback
import types

from d2l.parallel import job


def main():
    """Run the script of the command line; what it does at exit is still to come."""
    path, sys.argv[:] = sys.argv[1], sys.argv[1:]
    sys.path[0] = os.path.dirname(os.path.abspath(path))
    job.connect()
    try:
        _run(path)
    except SystemExit as error:
        status = _status(error.code)
    except BaseException as error:
        error.__traceback__ = _within(error.__traceback__, path)
        text = ''.join(traceback.format_exception(type(error), error, error.__traceback__))
        job.failed(text)
        sys.stderr.write(text)
        status = 1
    else:
        status = 0
    if status:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    job.stop()


def _run(path):
    # In a module of its own that stays, so that what the script leaves behind (functions that run
    # at exit, classes that are pickled) finds its names.
    module = types.ModuleType('__main__')
    module.__file__ = path
    sys.modules['__main__'] = module
    with open(path, 'rb') as file:
        code = compile(file.read(), path, 'exec')
    exec(code, module.__dict__)


def _within(trace, path):
    """The part of a traceback that begins in the script."""
    while trace is not None and trace.tb_frame.f_code.co_filename != path:
        trace = trace.tb_next
    return trace


def _status(code):
    """The exit status that Python makes of sys.exit(code)."""
    if code is None or isinstance(code, int):
        return (code or 0) & 255
    sys.stderr.write(f'{code}\n')
    return 1


if __name__ == '__main__':
    main()
