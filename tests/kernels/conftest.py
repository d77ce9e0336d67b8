"""Threads share short vectors too, so that tests of them need no long ones."""

import pytest

from laconic.kernels import _dispatch


@pytest.fixture(autouse=True)
def _eager_threads():
    with _dispatch.cpu_kernels("selection").eagerly():
        yield
