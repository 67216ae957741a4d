import importlib.util
import shlex
import subprocess
from pathlib import Path

import pytest

from d2l.ops import _library


def pytest_collection_modifyitems(items):
    """Mark what goes through the instruction sets, which takes as long as all else here."""
    for item in items:
        if 'runs_target' in getattr(item, 'fixturenames', ()):
            item.add_marker('isa')


@pytest.fixture
def runs_target():
    """Call it with an instruction set: the test skips where it was not built or cannot run."""
    def check(target):
        c = _library.library().c
        if not c.d2l_cpu_supports(target.encode()):
            pytest.skip('this processor lacks the instruction set ' + target)
    return check


@pytest.fixture(scope='session')
def compile_source():
    """Call it with (folder, target, C++ text, more options): the path of the library made of it."""
    path = Path(__file__).resolve().parents[2] / 'setup.py'
    spec = importlib.util.spec_from_file_location('setup_of_headers', str(path))
    setup = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(setup)

    def compiled(folder, target, text, *options):
        """With the command that setup.py would use."""
        build = setup.Build(folder, folder / 'unused')
        source, out = folder / 'source.cc', folder / 'source_{}.so'.format(target)
        source.write_text(text)
        subprocess.run(build.cxx + build.flags + shlex.split(setup.TARGETS[target]) + [
            '-DD2L_ISA=' + target, '-I', str(setup.SOURCES), '-shared', str(source), '-o', str(out),
            *options], check=True)
        return out
    return compiled
