"""`make asan` as a test."""
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name('sanitized.py')


def load_script():
    spec = importlib.util.spec_from_file_location('sanitized_script', str(SCRIPT))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_operator_has_cases():
    from d2l import ops
    assert sorted(load_script().CASES) == ops.available()


@pytest.mark.slow
def test_kernels_adapter_and_battery_under_sanitizers():
    script = load_script()
    if script.runtime() is None:
        pytest.skip('the compiler has no libasan.so')
    done = subprocess.run([sys.executable, str(SCRIPT)], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout
    lines = done.stdout.splitlines()
    assert lines[-1] == script.CLOSING
    assert sum(' and found: ' in line for line in lines) == len(script.FAULTS)
