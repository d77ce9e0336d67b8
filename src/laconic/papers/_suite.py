"""All experiments, in the order in which they are listed."""

from collections.abc import Mapping

from laconic.papers import _biased, _ef21
from laconic.papers._experiment import Experiment, by_name

EXPERIMENTS: Mapping[str, Experiment] = by_name((*_ef21.EXPERIMENTS, *_biased.EXPERIMENTS))
"""Every experiment by its name."""
