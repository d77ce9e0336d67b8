"""One rank of ``laconic bench step``: trains with all methods in turns and reports rows."""

import os
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
import torch.distributed as dist

from laconic import kernels
from laconic.bench.step_methods import COMPUTE, METHODS, Method, Prepared, prepared
from laconic.bench.step_models import WORKLOADS, Batch
from laconic.network import DEVICE, Traffic, enter_rank

WARM_UP_TURNS = 1
WARM_UP_STEPS = 3
TURN_SECONDS = 2.0
"""A turn of slow steps has fewer of them."""
PARTS = ("forward", "backward", "optimizer")
LOOPBACK = "lo"


@dataclass(frozen=True)
class RankSettings:
    """What a rank needs to know.

    Args:
        model: name in :data:`WORKLOADS`.
        methods: names in :data:`METHODS`.
        nodes: ranks.
        turns: how often each method has its turn, besides the first, which does not count.
        steps: steps in a turn, at most, and at least one round of local steps.
        threads: of PyTorch and of the library's loops, a rank.
        device: network device whose traffic counts.
    """

    model: str
    methods: tuple[str, ...]
    nodes: int
    turns: int
    steps: int
    threads: int
    device: str = DEVICE


@dataclass(frozen=True)
class StepRow:
    """A method on one link: milliseconds and bytes of a step.

    Args:
        method: its name.
        title: in words.
        step_ms: median over turns of the turn's mean step; a step lasts until the slowest rank has ended it.
        spread_ms: largest less smallest of the turns.
        compute_ms: the same of training without averaging, with the same optimiser, in the same turns.
        turns_ms: the turns.
        steps: in each.
        ratio: median over turns of step over compute.
        over_compute_ms: median over turns of step less compute.
        cpu_ms: processor time of all threads of rank 0 in a step, less that of compute: codec and transport;
            median over turns.
        tx_bytes: that rank 0's interface sent in a step, with all headers; of the loopback device, which all
            ranks share, a rank's part.
        payload_bytes: without the headers of Ethernet, IP and TCP, and without the benchmark's own barriers.
        counted_bytes: what the library says that it sent; None for other methods.
        parts_ms: rank 0's forward, backward, optimizer, and of the library's methods the phases of its
            exchange, some of which pass during backward.
        loss: of rank 0 in the last step.
    """

    method: str
    title: str
    step_ms: float
    spread_ms: float
    compute_ms: float
    turns_ms: list[float]
    steps: int
    ratio: float
    over_compute_ms: float
    cpu_ms: float
    tx_bytes: float
    payload_bytes: float
    counted_bytes: float | None
    parts_ms: dict[str, float]
    loss: float


@dataclass
class Record:
    """Measurements of one method on one rank."""

    turns: list[list[float]] = field(default_factory=list)
    cpu: list[list[float]] = field(default_factory=list)
    traffic: Traffic = field(default_factory=lambda: Traffic(0, 0))
    parts: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PARTS, 0.0))
    exchange: dict[str, float] = field(default_factory=dict)
    counted: int | None = None
    steps: int = 0


def measure(settings: RankSettings, note: Callable[[str], None]) -> list[StepRow]:
    """Train in turns; the rows on rank 0, nothing elsewhere."""
    workload = WORKLOADS[settings.model]
    named = [METHODS[name] for name in settings.methods]
    kinds = dict.fromkeys(method.optimizer for method in named)
    methods = [*(COMPUTE[kind] for kind in kinds), *named]
    batches = workload.batches(dist.get_rank(), settings.nodes)
    note("compiling and building")
    with prepared(methods, workload) as ready:
        records = {method.name: Record() for method in methods}
        steps = {method.name: _whole_rounds(WARM_UP_STEPS, method) for method in methods}
        for turn in range(WARM_UP_TURNS + settings.turns):
            # Back and forth, so that what changes steadily over time favours nobody.
            for method in methods if turn % 2 else methods[::-1]:
                note(method.title)
                record = records[method.name] if turn >= WARM_UP_TURNS else Record()
                _set_threads(len(os.sched_getaffinity(0)) if method.default_threads else settings.threads)
                _take_turn(settings, ready[method.name], batches, steps[method.name], method.every, record)
                if turn < WARM_UP_TURNS:
                    steps[method.name] = _steps_of_turn(method, record.turns[-1], settings.steps)
        losses = {name: each.step.loss for name, each in ready.items()}
    turns = _slowest({name: record.turns for name, record in records.items()}, settings)
    if dist.get_rank():
        return []
    shared = settings.nodes if settings.device == LOOPBACK else 1
    return [_row(method, records, turns, losses[method.name], shared) for method in named]


def _whole_rounds(steps: int, method: Method) -> int:
    return -(-steps // method.every) * method.every


def _steps_of_turn(method: Method, seconds: list[float], most: int) -> int:
    """So many that they take about :data:`TURN_SECONDS`, alike on all ranks."""
    longest = torch.tensor(min(seconds), dtype=torch.float64)
    dist.all_reduce(longest, op=dist.ReduceOp.MAX)
    return _whole_rounds(max(1, min(most, int(TURN_SECONDS / float(longest)))), method)


def _set_threads(count: int) -> None:
    torch.set_num_threads(count)
    kernels.set_threads(count)


def _take_turn(
    settings: RankSettings, method: Prepared, batches: Iterator[Batch], steps: int, every: int, record: Record
) -> None:
    # The first round does not count: a shaped link may still hold packets of the method before.
    for _ in range(every):
        _timed_step(method, next(batches))
    before = method.stats() if method.stats else None
    record.turns.append([])
    record.cpu.append([])
    dist.barrier()
    sent = Traffic.sent(settings.device)
    for _ in range(steps):
        cpu, marks = _timed_step(method, next(batches))
        record.cpu[-1].append(cpu)
        record.turns[-1].append(marks[-1] - marks[0])
        for part, start, end in zip(PARTS, marks, marks[1:], strict=False):
            record.parts[part] += end - start
    dist.barrier()
    record.traffic += Traffic.sent(settings.device) - sent
    record.steps += steps
    if before is not None and method.stats is not None:
        after = method.stats()
        record.counted = (record.counted or 0) + after.bytes_sent - before.bytes_sent
        spent = {name: after.seconds[name] - before.seconds[name] for name in after.seconds}
        spent["waited"] = after.waited - before.waited
        for name, seconds in spent.items():
            record.exchange[name] = record.exchange.get(name, 0.0) + seconds


def _timed_step(method: Prepared, batch: Batch) -> tuple[float, list[float]]:
    """Seconds of processor time, and the times at the step's begin and after each of its parts."""
    dist.barrier()
    cpu, marks = time.process_time(), [time.perf_counter()]
    method.step(batch, lambda: marks.append(time.perf_counter()))
    return time.process_time() - cpu, marks


def _slowest(turns: dict[str, list[list[float]]], settings: RankSettings) -> dict[str, list[float]]:
    """For each method the turns' mean step, each step as long as on its slowest rank."""
    everyone: list[Any] = [None] * settings.nodes
    dist.all_gather_object(everyone, turns)
    means = {}
    for name in turns:
        steps = torch.tensor([rank[name] for rank in everyone])
        means[name] = steps.amax(0).mean(-1).tolist()
    return means


def _row(
    method: Method, records: dict[str, Record], turns: dict[str, list[float]], loss: float, shared: int
) -> StepRow:
    record, compute = records[method.name], records[COMPUTE[method.optimizer].name]
    own, alone = turns[method.name], turns[COMPUTE[method.optimizer].name]
    parts = record.parts | record.exchange
    return StepRow(
        method=method.name,
        title=method.title,
        step_ms=1e3 * statistics.median(own),
        spread_ms=1e3 * (max(own) - min(own)),
        compute_ms=1e3 * statistics.median(alone),
        turns_ms=[1e3 * seconds for seconds in own],
        steps=len(record.turns[0]),
        ratio=statistics.median(a / b for a, b in zip(own, alone, strict=True)),
        over_compute_ms=1e3 * statistics.median(a - b for a, b in zip(own, alone, strict=True)),
        cpu_ms=1e3 * (_typical(record.cpu) - _typical(compute.cpu)),
        tx_bytes=record.traffic.bytes / record.steps / shared,
        payload_bytes=(record.traffic.payload / record.steps - compute.traffic.payload / compute.steps)
        / shared,
        counted_bytes=None if record.counted is None else record.counted / record.steps,
        parts_ms={name: 1e3 * seconds / record.steps for name, seconds in parts.items()},
        loss=loss,
    )


def _typical(turns: list[list[float]]) -> float:
    return statistics.median(statistics.fmean(turn) for turn in turns)


def main() -> None:
    """Run the rank that the arguments describe."""
    chosen, send = enter_rank()
    settings = RankSettings(**chosen | {"methods": tuple(chosen["methods"])})
    _set_threads(settings.threads)
    first = dist.get_rank() == 0
    rows = measure(settings, lambda text: send({"note": text}) if first else None)
    if first:
        send({"rows": [asdict(row) for row in rows]})
    dist.barrier()
    os._exit(0)  # exchanges of closed groups may keep threads


if __name__ == "__main__":
    main()
