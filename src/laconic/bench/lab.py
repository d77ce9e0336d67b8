"""Benchmark of the simulator: EF21 with Top-1 in ``laconic.lab.run`` and in NumPy scripts."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from threadpoolctl import threadpool_info

import laconic
from laconic.bench.machine import describe_machine
from laconic.bench.timing import Times
from laconic.lab import LogisticRegression, base_stepsize, run
from laconic.lab._data import as_signs, split_bounds
from laconic.lab._libsvm import load_libsvm
from laconic.lab._types import Array

Gradient = Callable[[Array, Array, Array], Array]
"""From a node's rows (N_i, d), their labels (N_i,) and x (d,) to the gradient of the logistic loss (d,)."""

NODES = 20
MULTIPLES = tuple(2.0**i for i in range(12))
REGULARIZER = 0.1
NAMES = {
    "laconic": "laconic.lab.run, one batch",
    "products": "NumPy, two products a node",
    "rows": "NumPy, a gradient a row",
}


@dataclass(frozen=True)
class Data:
    """Rows (N, d) with labels +-1, what they are, and the lab's problem made of them."""

    title: str
    X: Array
    y: Array
    problem: LogisticRegression


def load(file: Path | None) -> Data:
    """A LibSVM file; without one a9a from the folder LACONIC_DATA, or rows drawn in its shape."""
    folder = os.environ.get("LACONIC_DATA")
    if file is None and folder is not None and (Path(folder) / "libsvm" / "a9a.txt").exists():
        file = Path(folder) / "libsvm" / "a9a.txt"
    if file is not None:
        matrix, labels = load_libsvm(file)
        title, X, y = file.name, matrix.toarray(), as_signs(labels)
    else:
        title, rng = (
            "rows in the shape of a9a (LACONIC_DATA names no folder with it)",
            np.random.default_rng(0),
        )
        X, y = np.zeros((32561, 123)), rng.choice((-1.0, 1.0), 32561)
        columns = np.linspace(0, 123, 15).astype(np.int64)
        for first, last in pairwise(columns):  # one of each of 14 features
            X[np.arange(len(X)), rng.integers(first, last, len(X))] = 1.0
    return Data(title, X, y, LogisticRegression.from_arrays(X, y, NODES, REGULARIZER))


def by_products(A: Array, y: Array, x: Array) -> Array:
    """Two matrix products."""
    s = -y / (1.0 + np.exp(y * (A @ x)))
    mean: Array = A.T @ s / len(A)
    return mean


def by_rows(A: Array, y: Array, x: Array) -> Array:
    """The gradient of every row, and their mean."""
    numerators = y[:, None] * A
    denominators = 1.0 + np.exp(y * (A @ x))
    mean: Array = -np.mean(numerators / denominators[:, None], axis=0)
    return mean


@dataclass(frozen=True)
class Trajectory:
    """``|grad f|^2`` and cumulative bits per node (values, entropy) of every run: (runs, rounds + 1)."""

    norms: Array
    values: Array
    entropy: Array


def plain(data: Data, gradient: Gradient, stepsizes: Sequence[float], rounds: int) -> Trajectory:
    """EF21 with Top-1, one run after another, as a script spells it out."""
    bounds, d = split_bounds(len(data.y), NODES), data.X.shape[1]
    nodes = [(data.X[a:b], data.y[a:b]) for a, b in pairwise(bounds)]
    norms, values, entropy = (np.zeros((len(stepsizes), rounds + 1)) for _ in range(3))
    for run_number, stepsize in enumerate(stepsizes):
        x = np.asarray(np.random.default_rng(0).standard_normal(d))
        memory = np.zeros((NODES, d))
        for t in range(rounds + 1):
            penalty = 2 * REGULARIZER * x / (1 + x**2) ** 2
            gradients = np.stack([gradient(A, y, x) + penalty for A, y in nodes])
            norms[run_number, t] = np.sum(gradients.mean(axis=0) ** 2)
            if t == rounds:
                break
            sent = 0.0
            for i in range(NODES):
                difference = gradients[i] - memory[i]
                if t == 0:
                    memory[i] = difference
                    sent += 32 * d
                else:
                    j = np.argmax(np.abs(difference))
                    memory[i, j] += difference[j]
                    sent += 32 + np.ceil(np.log2(d))
            positions = 0.0 if t == 0 else np.ceil(np.log2(d))
            entropy[run_number, t + 1] = entropy[run_number, t] + sent / NODES
            values[run_number, t + 1] = values[run_number, t] + (t > 0) * (sent / NODES - positions)
            x = x - stepsize * memory.mean(axis=0)
    return Trajectory(norms, values, entropy)


def batched(data: Data, rounds: int) -> Trajectory:
    """The same by the lab."""
    result = run(data.problem, laconic.EF21(laconic.TopK(1)), MULTIPLES, rounds, stop=0.0)
    return Trajectory(result.grad_norm2, result.bits("values"), result.bits("entropy"))


@dataclass(frozen=True)
class LabRow:
    """One contender: the fastest of its repeats.

    Args:
        name: what it is.
        rounds: rounds that were measured.
        ms: milliseconds a round of all runs.
        cpu_ms: milliseconds of processor time a round, of all threads; other programs change it less.
        ratio: how many times as long as laconic.
        cpu_ratio: the same of processor time.
        difference: largest relative difference of ``|grad f|^2`` from laconic's in these rounds.
        same_bits: whether bits per node are laconic's.
    """

    name: str
    rounds: int
    ms: float
    cpu_ms: float
    ratio: float
    cpu_ratio: float
    difference: float
    same_bits: bool


def measure(
    data: Data, rounds: dict[str, int], repeats: int, progress: Callable[[str], None]
) -> list[LabRow]:
    """All contenders by turns, ``repeats`` times; rounds by contender."""
    base = base_stepsize(data.problem, laconic.EF21(laconic.TopK(1)))
    stepsizes = [base * multiple for multiple in MULTIPLES]
    contenders: dict[str, Callable[[int], Trajectory]] = {
        "laconic": lambda n: batched(data, n),
        "products": lambda n: plain(data, by_products, stepsizes, n),
        "rows": lambda n: plain(data, by_rows, stepsizes, n),
    }
    batched(data, 2)  # loops are compiled
    times = {name: Times() for name in contenders}
    courses: dict[str, Trajectory] = {}

    def contend(name: str) -> None:
        courses[name] = contenders[name](rounds[name])

    for _ in range(repeats):
        for name in contenders:
            progress(name)
            times[name].add(partial(contend, name))
    wall = {name: 1e3 * min(taken.wall) / (rounds[name] + 1) for name, taken in times.items()}
    cpu = {name: 1e3 * min(taken.cpu) / (rounds[name] + 1) for name, taken in times.items()}
    found = []
    for name, course in courses.items():
        ours, n = courses["laconic"], min(rounds[name], rounds["laconic"]) + 1
        difference = np.abs(course.norms[:, :n] / ours.norms[:, :n] - 1).max()
        same = all(
            np.array_equal(a[:, :n], b[:, :n])
            for a, b in ((course.values, ours.values), (course.entropy, ours.entropy))
        )
        ratios = wall[name] / wall["laconic"], cpu[name] / cpu["laconic"]
        found.append(
            LabRow(NAMES[name], rounds[name], wall[name], cpu[name], *ratios, float(difference), same)
        )
    return found


def machine() -> dict[str, str | int]:
    """Description of the machine, with threads."""
    blas = max((library["num_threads"] for library in threadpool_info()), default=1)
    return {**describe_machine(), "torch_threads": torch.get_num_threads(), "blas_threads": blas}
