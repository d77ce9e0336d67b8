"""Benchmark of ``CompressedAdamW.step`` against PyTorch's own AdamW, one rank without a network."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

import laconic
from laconic.kernels.cpu.threads import using_threads

from .cases import Progress, no_progress
from .timing import WARM_UP, Times, median

COMPRESSORS: dict[str, Callable[[float], Any]] = {
    "topk": laconic.TopK,
    "block": lambda fraction: laconic.BlockTopK(fraction, 4096),
}
DENSE = ("fused", "foreach")
MULTIPLY = "x.mul_(1)"
ROW = 100
"""Numbers of a row of each matrix."""
VECTOR = 256
"""Numbers of each parameter of one dimension."""
BYTES = {
    "norm": (4, 0),
    "update, moments, residual, selection": (12, 8),
    "receive and step of the parameters": (4, 4),
}
"""Bytes of each pass of a step over all float32 parameters: read and written, for each parameter."""


@dataclass(frozen=True)
class OptimizerSettings:
    """What is measured.

    Args:
        dim: numbers of all parameters, about.
        tensors: how many parameters; two thirds are matrices, one third vectors.
        fractions: kept of each parameter, or of each block of 4096.
        compressors: names in ``COMPRESSORS``.
        repeats: rounds, of which the medians count.
        threads: of PyTorch and of the library.

    Example:
        >>> OptimizerSettings(dim=100_000).rounds
        14
    """

    dim: int = 10_000_000
    tensors: tuple[int, ...] = (8, 150)
    fractions: tuple[float, ...] = (0.01, 0.001)
    compressors: tuple[str, ...] = tuple(COMPRESSORS)
    repeats: int = 11
    threads: int = 1

    def __post_init__(self) -> None:
        """Check the compressors' names, and that the parameters have numbers.

        Raises:
            ValueError: for an unknown one, or for fewer than a row of 100 numbers each.
        """
        if self.dim < ROW * max(self.tensors):
            raise ValueError(
                f"{self.dim} numbers cannot be cut into {max(self.tensors)} tensors; {ROW} each are the least"
            )
        for name in self.compressors:
            if name not in COMPRESSORS:
                raise ValueError(f"unknown compressor {name!r}; known are {', '.join(COMPRESSORS)}")

    @property
    def rounds(self) -> int:
        """With those that do not count."""
        return self.repeats + WARM_UP


@dataclass(frozen=True)
class OptimizerRow:
    """One optimiser on one list of parameters: medians over rounds.

    Args:
        name: of the optimiser; a compressor's for ``CompressedAdamW`` with EF14 and 1-bit values.
        fraction: kept; None for dense ones.
        tensors: how many parameters.
        ms: milliseconds of a step.
        ratio: a step over one of fused AdamW in the same round.
        cpu_ratio: the same of processor time, which other programs change less.
    """

    name: str
    fraction: float | None
    tensors: int
    ms: float
    ratio: float
    cpu_ratio: float


def count_notes(settings: OptimizerSettings) -> int:
    """How many notes :func:`measure` sends."""
    return len(settings.tensors) * settings.rounds


def measure(settings: OptimizerSettings, progress: Progress = no_progress) -> dict[str, Any]:
    """Measure what the settings name.

    Returns:
        "settings"; "bytes", of each pass; "rows" (:class:`OptimizerRow`).
    """
    rows: list[OptimizerRow] = []
    before = torch.get_num_threads()
    torch.set_num_threads(settings.threads)
    try:
        with using_threads(settings.threads):
            for tensors in settings.tensors:
                rows += _measure(settings, tensors, progress)
    finally:
        torch.set_num_threads(before)
    return {"settings": asdict(settings), "bytes": BYTES, "rows": list(map(asdict, rows))}


def _measure(settings: OptimizerSettings, tensors: int, progress: Progress) -> list[OptimizerRow]:
    """All optimisers on as many tensors; they take turns in each round, on the same gradients."""
    optimizers: dict[tuple[str, float | None], Any] = {}
    for name in DENSE:
        own = parameters_of(settings.dim, tensors)
        optimizers[name, None] = torch.optim.AdamW(
            own, 1e-3, fused=name == "fused", foreach=name == "foreach"
        )
    for name in settings.compressors:
        for fraction in settings.fractions:
            feedback = laconic.EF14(COMPRESSORS[name](fraction) >> laconic.ScaledSign())
            own = parameters_of(settings.dim, tensors)
            optimizers[name, fraction] = laconic.optim.CompressedAdamW(own, 1e-3, feedback=feedback)
    times = {key: Times() for key in optimizers}
    multiplied, x = Times(), torch.ones(settings.dim)
    generator = torch.Generator().manual_seed(0)
    gradients = [torch.empty_like(p) for p in parameters_of(settings.dim, tensors)]
    try:
        for _ in range(settings.rounds):
            progress(f"{tensors} tensors")
            for gradient in gradients:
                gradient.normal_(generator=generator)
            for key, optimizer in optimizers.items():
                for parameter, gradient in zip(optimizer.param_groups[0]["params"], gradients, strict=True):
                    parameter.grad = gradient
                times[key].add(optimizer.step)
            multiplied.add(lambda: x.mul_(1.0))
    finally:
        for optimizer in optimizers.values():
            if hasattr(optimizer, "close"):
                optimizer.close()
    unit = times["fused", None]
    rows = [(*key, found) for key, found in (*times.items(), ((MULTIPLY, None), multiplied))]
    return [
        OptimizerRow(name, fraction, tensors, 1e3 * median(found.wall), *found.ratios(unit))
        for name, fraction, found in rows
    ]


def parameters_of(dim: int, tensors: int) -> list[nn.Parameter]:
    """About ``dim`` numbers in as many parameters: two thirds matrices, one third vectors of 256."""
    matrices = max(1, tensors * 2 // 3)
    rows = max(1, dim // matrices // ROW)
    generator = torch.Generator().manual_seed(0)
    shapes = [(rows, ROW)] * matrices + [(VECTOR,)] * (tensors - matrices)
    return [nn.Parameter(0.02 * torch.randn(shape, generator=generator)) for shape in shapes]
