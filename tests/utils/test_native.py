import ctypes
import os
import shutil

import pytest

from d2l.ops import _library
from d2l.utils import _native


def test_functions_are_found():
    if _library.library() is None:
        pytest.skip('the operator library was not built')
    build_info = _native.function('d2l_build_info', ctypes.c_char_p)
    assert b'compiler' in build_info()
    assert _native.function('no_such_function') is None


def test_switched_off(monkeypatch):
    monkeypatch.setenv('D2L_OPS', '0')
    assert _native.function('d2l_build_info') is None


def test_another_library(monkeypatch, tmp_path):
    assert os.path.basename(_native.library_path()) == 'libd2l_ops.so'
    other = tmp_path / 'other.so'
    monkeypatch.setenv('D2L_OPS_LIBRARY', str(other))
    assert _native.library_path() == str(other)
    assert _native.function('d2l_build_info') is None
    other.write_bytes(b'no library')
    assert _native.function('d2l_build_info') is None
    if _library.library() is not None:
        copy = tmp_path / 'copy.so'
        shutil.copy(_library.library().path, str(copy))
        monkeypatch.setenv('D2L_OPS_LIBRARY', str(copy))
        assert _native.function('d2l_build_info', ctypes.c_char_p)()
