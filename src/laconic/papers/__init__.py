"""Experiments that reproduce the two papers' figures and tables, with verdicts against the papers."""

from laconic.papers._experiment import DataMissingError as DataMissingError
from laconic.papers._experiment import Experiment as Experiment
from laconic.papers._experiment import Report as Report
from laconic.papers._experiment import Settings as Settings
from laconic.papers._experiment import Verdict as Verdict
from laconic.papers._suite import EXPERIMENTS as EXPERIMENTS
