"""Threads share short vectors too, so that tests of them need no long ones."""

import pytest

from laconic.kernels import _dispatch


@pytest.fixture(autouse=True)
def _eager_threads():
    with _dispatch.loops("selection").eagerly():
        yield
