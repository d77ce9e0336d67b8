"""Compiled loops where the cache on disk cannot be written."""

import errno

import pytest

from laconic.kernels import _compiling

caching = pytest.importorskip("numba.core.caching")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
def test_a_loop_that_cannot_be_kept_runs_and_the_remedy_is_named_once(code, monkeypatch, capsys):
    from laconic.kernels.cpu._jit import loop

    def refuse(self, *arguments):
        raise OSError(code, "cannot write")

    def add(a, b):
        return a + b

    monkeypatch.setattr(caching.Cache, "save_overload", refuse)
    monkeypatch.setattr(_compiling, "_told", False)
    compiled = loop(add)
    assert compiled(1, 2) == 3
    assert compiled(0.5, 1.0) == 1.5
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "cannot be kept" in told
    assert "set NUMBA_CACHE_DIR" in told
