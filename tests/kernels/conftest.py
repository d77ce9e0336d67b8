"""Threads share short vectors too, so that tests need no long ones; their number is reset after each test."""

import pytest

from laconic.kernels import _dispatch, set_threads


@pytest.fixture(autouse=True)
def _eager_threads():
    with _dispatch.cpu_kernels("selection").eagerly():
        yield
    set_threads(None)
