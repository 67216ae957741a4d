"""The server and the scheduler of the parameter server: ``python -m d2l.parallel.server``.

The role stands in DMLC_ROLE, where the others are in the other DMLC variables, as for MXNet's own
server.  Importing mxnet in a process with such a role starts that one, which takes pickled
optimizers, and so any code, from the network, and swallows exceptions; so the role is hidden
during the import.

This server takes JSON, and knows the optimizers that MXNet, d2l and the modules named in
D2L_SERVER_IMPORTS (separated by commas) register.  An exception in an optimizer or a command ends
it with its traceback and exit status 1.
"""
import os
import sys

ROLES = ('server', 'scheduler')


def main():
    """Serve until the workers have left; returns the exit status."""
    role = os.environ.pop('DMLC_ROLE', None)
    if role not in ROLES:
        sys.stderr.write(f'd2l.parallel.server: DMLC_ROLE must be {" or ".join(ROLES)}, got '
                         f'{role!r}\n')
        return 2
    # The imports must wait until the role is hidden.
    from d2l.parallel import _serving, job
    job.start()
    try:
        _serving.import_optimizers()
        os.environ['DMLC_ROLE'] = role
        _serving.serve()
    except BaseException:
        _serving.fail()
    job.stop()
    return 0


if __name__ == '__main__':
    sys.exit(main())
