"""The experiments of this paper, listed."""

from laconic.lab.papers._experiment import Experiment

EXPERIMENTS: tuple[Experiment, ...] = ()
