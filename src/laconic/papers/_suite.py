"""Table of all experiments by name, in the order in which they are listed."""

from collections.abc import Mapping

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
    _ef21_counterexample,
    _ef21_deep,
    _ef21_finetuned,
    _ef21_least_squares,
    _ef21_markov,
    _ef21_rates,
    _ef21_stepsize,
)
from laconic.papers._experiment import Experiment

EXPERIMENTS: Mapping[str, Experiment] = {
    experiment.name: experiment
    for module in (
        _ef21_stepsize,
        _ef21_finetuned,
        _ef21_least_squares,
        _ef21_deep,
        _ef21_markov,
        _ef21_rates,
        _ef21_counterexample,
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
}
"""Every experiment by its name."""
