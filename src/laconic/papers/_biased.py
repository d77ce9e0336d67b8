"""The experiments of "On Biased Compression for Distributed Learning", listed."""

from laconic.papers import (
    _biased_albert,
    _biased_algorithm1,
    _biased_bits,
    _biased_cgd,
    _biased_constants,
    _biased_counterexamples,
    _biased_savings,
    _biased_statistics,
    _biased_training,
    _biased_variance,
)
from laconic.papers._experiment import Experiment

EXPERIMENTS: tuple[Experiment, ...] = tuple(
    experiment
    for module in (
        _biased_constants,
        _biased_statistics,
        _biased_bits,
        _biased_savings,
        _biased_variance,
        _biased_counterexamples,
        _biased_cgd,
        _biased_algorithm1,
        _biased_training,
        _biased_albert,
    )
    for experiment in module.EXPERIMENTS
)
"""The experiments of this paper."""
