"""Simulation of methods on convex and nonconvex problems, n nodes on one machine.

Needs the extra ``laconic[lab]``.
"""

import laconic.lab._extras  # noqa: F401 - before what needs them
from laconic.lab._checkpoint import CheckpointError as CheckpointError
from laconic.lab._compare import Comparison as Comparison
from laconic.lab._compare import compare as compare
from laconic.lab._data import DataError as DataError
from laconic.lab._least_squares import LeastSquares as LeastSquares
from laconic.lab._logistic import LogisticRegression as LogisticRegression
from laconic.lab._problem import Problem as Problem
from laconic.lab._quadratic import Quadratic as Quadratic
from laconic.lab._result import Result as Result
from laconic.lab._run import base_stepsize as base_stepsize
from laconic.lab._run import run as run
from laconic.lab._simulation import NodeByNode as NodeByNode
from laconic.lab._simulation import SequentialSimulation as SequentialSimulation
from laconic.lab._simulation import Simulation as Simulation
from laconic.lab._smoothness import Smoothness as Smoothness
from laconic.lab._train import TrainingResult as TrainingResult
from laconic.lab._train import TrainingSimulation as TrainingSimulation
from laconic.lab._train import train as train
