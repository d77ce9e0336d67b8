"""The experiments of this paper, listed."""

from laconic.papers._ef21_counterexample import COUNTEREXAMPLE
from laconic.papers._ef21_deep import DEEP
from laconic.papers._ef21_finetuned import FINETUNED
from laconic.papers._ef21_least_squares import LEAST_SQUARES
from laconic.papers._ef21_markov import MARKOV
from laconic.papers._ef21_rates import RATES
from laconic.papers._ef21_stepsize import STEPSIZE
from laconic.papers._experiment import Experiment

EXPERIMENTS: tuple[Experiment, ...] = (
    STEPSIZE,
    FINETUNED,
    LEAST_SQUARES,
    DEEP,
    MARKOV,
    RATES,
    COUNTEREXAMPLE,
)
"""The experiments of this paper, listed."""
