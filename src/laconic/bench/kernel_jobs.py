"""List of the measurements of ``laconic bench kernels``, with their goals."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from laconic.bench import hostile as against
from laconic.bench import kernels as bench
from laconic.compressors import Compressor

Job = tuple[str, str, Callable[[], list[Any]]]
"""Name of a table, a note, and what measures some of its rows."""


def kernel_jobs(where: torch.device, quick: bool, repeats: int) -> list[Job]:
    """Everything that is measured on a device, with its goals."""
    jobs: list[Job] = []

    def step(name: str, d: int, share: float, count: int, goal: str) -> None:
        def measure() -> list[Any]:
            return [bench.measure_step(name, d, share, count, goal, repeats, where)]

        jobs.append(("steps", f"{name} {100 * share:g} % of {d:,}, {count} threads", measure))

    def small(d: int) -> list[Any]:
        return [bench.measure_small(d, "≤ topk or + 20", repeats)]

    large = 2_000_000 if quick else 25_000_000
    if where.type == "cuda":
        large = 10_000_000 if quick else 100_000_000
        step("TopK", large, 0.01, 1, "≥ 8, ≤ 3")
        step("TopK", large, 0.001, 1, "")
        step("BlockTopK", large, 0.01, 1, "")
        return jobs
    most = torch.get_num_threads()
    if most > 1:
        step("TopK", large, 0.01, 2, "≥ 45, ≤ 2.0")
        step("TopK", large, 0.001, 2, "≤ 1.3")
    step("TopK", large, 0.01, 1, "≥ 33, ≤ 1.6")
    step("TopK", large, 0.001, 1, "≤ 1.3")
    if most > 1:
        step("BlockTopK", large, 0.01, 2, "")
    step("BlockTopK", large, 0.01, 1, "")
    step("TopK", 1_000_000, 0.01, min(2, most), "≥ 13")
    for d in (100, 1_000, 10_000, 100_000):
        jobs.append(("small", f"{d} numbers", partial(small, d)))

    def many(d: int, numbers: dict[int, str]) -> list[Any]:
        ways = {
            f"{n} segments": (bench.compressor_of("TopK", 0.01), bench.even(d, n), goal)
            for n, goal in numbers.items()
        }
        ways["blocks of 1024"] = bench.compressor_of("BlockTopK", 0.01), bench.even(d, 1), "< 1"
        return bench.measure_many(d, ways, 2 * repeats, where)

    total = 1_600_000 if quick else 6_400_000
    jobs.append(("segments", "many segments", partial(many, total, {100: "≤ 1.15", 640: "≤ 1.5"})))
    jobs.append(("segments", "blocks", partial(many, large, {})))

    def hostile(name: str) -> list[Any]:
        return [against.measure_hostile(name, 2_000_000, "≤ 3", repeats)]

    for name in against.HOSTILE:
        jobs.append(("hostile", name, partial(hostile, name)))

    def rate(row: tuple[str, Compressor, str]) -> list[Any]:
        return [bench.measure_rate(*row, large, repeats)]

    for row in bench.RATES:
        jobs.append(("rates", row[0], partial(rate, row)))
    return jobs
