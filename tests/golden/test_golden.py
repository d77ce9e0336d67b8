"""Estimates, memories, decoded messages and trained parameters have the bits whose hashes are stored.

A hash changes only in a commit that does nothing else and says why; ``write_hashes.py`` writes it.
"""

import golden_ranks
import pytest
from golden import differences, stored
from golden_cases import CASES, gradients

STORED = stored()


def compare(name, found):
    assert name in STORED, f"no hashes are stored of {name!r}: run tests/golden/write_hashes.py"
    lines = differences(STORED[name], found)
    assert not lines, "\n".join(f"{name}: {line}" for line in lines)


def test_the_given_gradients():
    compare("given gradients", gradients())


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if not case.slow])
def test_senders_and_receivers(name):
    compare(name, CASES[name].run())


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.slow])
def test_long_runs_and_long_vectors(name):
    compare(name, CASES[name].run())


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    return golden_ranks.hashes(tmp_path_factory.mktemp("ranks"))


@pytest.mark.parametrize("name", golden_ranks.NAMES)
def test_optimizers_and_hook_on_two_ranks(name, ranks):
    compare(f"2 ranks: {name}", ranks[f"2 ranks: {name}"])


def test_nothing_is_stored_that_no_case_computes():
    known = {"given gradients", *CASES, *(f"2 ranks: {name}" for name in golden_ranks.NAMES)}
    assert STORED.keys() == known
