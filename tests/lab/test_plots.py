"""What the figures show, read back from their lines."""

import numpy as np
import pytest

import laconic
from laconic.lab import Quadratic, compare, plots


@pytest.fixture(scope="module")
def comparison():
    multiples = (1, 4, 1e6)
    return compare(Quadratic.example1(), ["gd", "ef21"], laconic.TopK(1), multiples=multiples, rounds=400)


def test_curves_are_those_of_the_best_multiples(comparison):
    (axes,) = plots.plot_curves(comparison, "title", kind="entropy").axes
    lines = {line.get_label(): line for line in axes.get_lines()}
    for name, label in (("gd", "GD"), ("ef21", "EF21")):
        result = comparison.results[name]
        i = result.best()
        line = lines[f"{label}, {result.multiples[i]:g}× stepsize"]
        shown = slice(1, result.rounds[i] + 1)
        np.testing.assert_array_equal(line.get_xdata(), result.bits("entropy")[i, shown])
        np.testing.assert_array_equal(line.get_ydata(), result.grad_norm2[i, shown])
    assert comparison.results["ef21"].best() != 0
    assert axes.get_xscale() == axes.get_yscale() == "log"
    assert "bits sent per node" in axes.get_xlabel()


def test_multiples_show_every_end(comparison):
    (axes,) = plots.plot_multiples(comparison, "title").axes
    points = [
        (line.get_xdata()[0], line.get_ydata()[0], line.get_marker())
        for line in axes.get_lines()
        if len(line.get_xdata()) == 1
    ]
    for name, marker in (("gd", "s"), ("ef21", "o")):
        result = comparison.results[name]
        assert "diverged" in result.ends
        for multiple, end, value in zip(result.multiples, result.ends, result.final, strict=True):
            expected = (multiple, 1.0, "x") if end == "diverged" else (multiple, value, marker)
            assert expected in points
