"""Rows of Table 3: compressors, the constants that they declare, and vectors to measure them on."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from laconic.compressors import (
    AdaptiveRandom,
    BiasedRounding,
    Compressor,
    ExponentialDithering,
    NaturalCompression,
    NaturalDithering,
    RandK,
    RandomSparsification,
    TopK,
    UnbiasedRounding,
)

_LEVELS = (1.0, 1.5, 2.0, 2.5)


@dataclass(frozen=True)
class TableRow:
    """One row of the table.

    Args:
        label: as the paper letters it.
        compressor: what is measured.
        names: the constants that the row prints.
        tight: those of them that some vector attains.
        witness: a vector that attains most of them, (d,).
        d: the dimension.
    """

    label: str
    compressor: Compressor
    names: tuple[str, ...]
    tight: tuple[str, ...]
    witness: Tensor

    @property
    def d(self) -> int:
        return self.witness.shape[-1]


def _vector(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def _ones(d: int, value: float = 1.0) -> Tensor:
    return torch.full((d,), value, dtype=torch.float64)


def rows() -> tuple[TableRow, ...]:
    """The twelve rows, with settings for which the witnesses are short."""
    d, k = 64, 8
    three, four = ("alpha", "beta", "gamma"), ("alpha", "beta", "gamma", "delta")
    p = [0.25 + 0.75 * i / (d - 1) for i in range(d)]
    spike = torch.zeros(d, dtype=torch.float64)
    spike[0] = 1.0
    # Relative to its length, ten of its numbers are harmonic means of neighbouring powers of four.
    quarters = _vector(*[0.4] * 6, *[0.1] * 4, *[0.0] * (d - 10))
    thirds = _ones(d, 2 / 3)
    thirds[0] = 1.0
    dithered = TopK(9) >> NaturalDithering(8, 2.0)
    return (
        TableRow("a: Rand-8, unbiased", RandK(k), ("zeta",), ("zeta",), _ones(d)),
        TableRow("b: random sparsification, q = 1/4", RandomSparsification(p), four, four, spike),
        TableRow("c: adaptive random sparsification", AdaptiveRandom(), four, four, _ones(d)),
        TableRow("d: Top-8", TopK(k), four, four, _ones(d)),
        TableRow("e: unbiased rounding", UnbiasedRounding(grid=_LEVELS), ("zeta",), ("zeta",), _ones(d, 1.2)),
        TableRow(
            "e': unbiased exponential, b = 3", UnbiasedRounding(3.0), ("zeta",), ("zeta",), _ones(d, 1.5)
        ),
        TableRow("f: biased rounding", BiasedRounding(grid=_LEVELS), four, four, _ones(d, 1.25)),
        TableRow("f': biased exponential, b = 3", BiasedRounding(3.0), four, four, _ones(d, 2.0)),
        TableRow("g: natural compression", NaturalCompression(), ("zeta",), ("zeta",), _ones(d, 4 / 3)),
        TableRow(
            "h: exponential dithering, b = 4",
            ExponentialDithering(4.0, 5, 2.0),
            ("zeta",),
            ("zeta",),
            quarters,
        ),
        TableRow("i: natural dithering", NaturalDithering(12, math.inf), ("zeta",), ("zeta",), thirds),
        TableRow("k: Top-9 then natural dithering", dithered, three, ("beta", "gamma"), _ones(63)),
        TableRow("k, divided by zeta", dithered.contractive(), ("delta",), ("delta",), _ones(63)),
    )


def vectors(row: TableRow, samples: int, seed: int = 0) -> dict[str, Tensor]:
    """The witness, its neighbours in floating point, extreme shapes, and random vectors, by name."""
    d, rng = row.d, np.random.default_rng(seed)
    place = np.arange(d)
    spike = (place == d - 1).astype(float)
    found = {
        "witness": row.witness.numpy(),
        "just below the witness": np.nextafter(row.witness.numpy(), 0.0),
        "ones": np.ones(d),
        "spike": spike,
        "spike over a floor": spike + 0.01,
        "1, 2, ..., d": place + 1.0,
        "1/2, 1/4, ...": 0.5 ** (place % 60 + 1.0),
        "spike over 1 / (1 + sqrt d)": spike + (1 - spike) / (1 + math.sqrt(d)),
    }
    draws: dict[str, Callable[[], np.ndarray]] = {
        "Gaussian": lambda: rng.standard_normal(d),
        "uniform": lambda: rng.uniform(0.0, 1.0, d),
        "exponential": lambda: rng.exponential(1.0, d),
        "Cauchy": lambda: np.clip(rng.standard_cauchy(d), -1e4, 1e4),
        "log-uniform": lambda: np.exp(rng.uniform(-3.0, 3.0, d)),
        "one magnitude": lambda: np.full(d, rng.uniform(1.0, 4.0)),
    }
    for name, draw in draws.items():
        found |= {f"{name} {j}": draw() for j in range(samples)}
    return {name: torch.from_numpy(np.asarray(x, dtype=np.float64)) for name, x in found.items()}
