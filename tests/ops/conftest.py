import pytest

from d2l.ops import _library


@pytest.fixture
def runs_target():
    """Call it with an instruction set: the test skips where it was not built or cannot run."""
    def check(target):
        c = _library.library().c
        if not c.d2l_cpu_supports(target.encode()):
            pytest.skip('this processor lacks the instruction set ' + target)
    return check
