"""Stepsizes, rates and bounds from the constants of compressors: pure functions of floats.

Source of most of it: "EF21: A New, Simpler, Theoretically Better, and Practically Faster Error Feedback"
(Richtárik, Sokolov and Fatkhullin, 2021) and "On Biased Compression for Distributed Learning" (Beznosikov,
Horváth, Richtárik and Safaryan, 2023).
"""

from laconic.theory._algorithm1 import (
    DecreasingSchedule,
    ErgodicAverage,
    GeometricSchedule,
    UniformSchedule,
    algorithm1_kappa,
    algorithm1_noise,
    algorithm1_stepsize,
)
from laconic.theory._cgd import CGDRate, cgd_b1, cgd_b2, cgd_b3, cgd_pathwise, measured_delta
from laconic.theory._ef21 import (
    beta,
    ef21_bound,
    ef21_lyapunov,
    ef21_pl_factor,
    ef21_pl_lyapunov,
    ef21_pl_stepsize,
    ef21_rounds,
    ef21_stepsize,
    optimal_s,
    theta,
)
from laconic.theory._stepsize import DescribedCompressor, DescribedFeedback, NoTheory, stepsize
from laconic.theory._tight import tight_rate

__all__ = [
    "CGDRate",
    "DecreasingSchedule",
    "DescribedCompressor",
    "DescribedFeedback",
    "ErgodicAverage",
    "GeometricSchedule",
    "NoTheory",
    "UniformSchedule",
    "algorithm1_kappa",
    "algorithm1_noise",
    "algorithm1_stepsize",
    "beta",
    "cgd_b1",
    "cgd_b2",
    "cgd_b3",
    "cgd_pathwise",
    "ef21_bound",
    "ef21_lyapunov",
    "ef21_pl_factor",
    "ef21_pl_lyapunov",
    "ef21_pl_stepsize",
    "ef21_rounds",
    "ef21_stepsize",
    "measured_delta",
    "optimal_s",
    "stepsize",
    "theta",
    "tight_rate",
]
