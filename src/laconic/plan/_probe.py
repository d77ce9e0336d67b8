"""Probe of the link, of the methods' own work on this processor, and of a training step."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

import laconic
from laconic.bench.exchange import Rank
from laconic.bench.step_methods import RECOMMENDED
from laconic.comm.transport.collectives import DIRECT_BYTES
from laconic.network import Traffic
from laconic.plan._predict import Compute, LinkCosts, Method
from laconic.plan._workload import Workload, of_user

REPEATS = 7
PROBE_SECONDS = 0.2
"""How long one collective of the probe should take."""
SAMPLE = 16_000_000
"""Numbers on which a method's own work is measured; more are extrapolated."""
PEERS = 4

HOOKS = {
    "EF14, 1 %, 1 bit": RECOMMENDED,
    "EF21, 1 %, bf16": laconic.EF21(laconic.TopK(0.01) >> laconic.Cast(torch.bfloat16)),
    "EF21, 0.1 %, 4 bits": laconic.EF21(laconic.TopK(0.001) >> laconic.BlockQuantizer(bits=4)),
}
OPTIMIZERS = {
    "CompressedAdamW, 1 %, 1 bit": RECOMMENDED,
    "CompressedAdamW, 0.25 %, 1 bit": laconic.EF14(laconic.BlockTopK(10, 4096) >> laconic.ScaledSign()),
}
LOCAL = {"local steps, 4 x 3 %, 2 bits": 4, "local steps, 16 x 3 %, 2 bits": 16}
LOSS_GAP = dict(zip([*OPTIMIZERS, *LOCAL], (0.2, 1.9, 3.7, 10.7), strict=True))
"""Per cent above tuned dense AdamW after 3,000 steps of one model of 0.67 M parameters on four ranks
(benchmarks/accuracy): means over five seeds, three, two and two."""
LOCAL_FEEDBACK = laconic.EF14(laconic.BlockTopK(123, 4096) >> laconic.BlockQuantizer(bits=2))

Note = Callable[[str], None]


@dataclass(frozen=True)
class Link:
    """What :func:`measure_link` found on this rank.

    Args:
        costs: for the prediction.
        interface: network device that carried the probe.
        up: bytes a second to the next rank.
        down: bytes a second from the rank before.
    """

    costs: LinkCosts
    interface: str
    up: float
    down: float


def measure_link(note: Note, numbers: int = 1 << 24) -> Link:
    """Latency and rates of the default process group's collectives; every rank calls it.

    Times are those of the slowest rank, so that all ranks return the same costs.

    Args:
        note: called with what is measured.
        numbers: of the model. On links with delay the rate of an all-reduce depends on its length.
    """
    nodes, rank = dist.get_world_size(), dist.get_rank()
    note("latency")
    tiny = torch.zeros(1)
    hop = _slowest(lambda: dist.all_reduce(tiny)) / (2 * (nodes - 1))
    before = Traffic.by_device()
    # All-reduces first: an all-gather fills a shaped link's queue, and TCP is slow for a while after losses.
    rates = []
    for dtype in (torch.bfloat16, torch.float32):
        note(f"rate of an all-reduce in {str(dtype).removeprefix('torch.')}")

        def all_reduce(size: int, dtype: torch.dtype = dtype) -> Callable[[], object]:
            vector = torch.zeros(size, dtype=dtype)
            return lambda: dist.all_reduce(vector)

        sent = 2 * (nodes - 1) / nodes * dtype.itemsize
        rates.append(_rate(all_reduce, min(numbers, 1 << 24), sent, 2 * (nodes - 1) * hop))
    note("rate of an all-gather")

    def gather(size: int) -> Callable[[], object]:
        message = torch.zeros(size, dtype=torch.uint8)
        gathered = [torch.empty_like(message) for _ in range(nodes)]
        return lambda: dist.all_gather(gathered, message)

    all_gather = _rate(gather, 1 << 25, nodes - 1, (nodes - 1) * hop)
    carried = {
        name: (now - before[name]).bytes for name, now in Traffic.by_device().items() if name in before
    }
    interface = max(carried, key=carried.__getitem__, default="unknown")
    note("from rank to rank")
    block = torch.zeros(min(1 << 24, max(1 << 16, int(all_gather * PROBE_SECONDS))), dtype=torch.uint8)
    seconds = torch.zeros(nodes)
    for sender in range(nodes):
        dist.barrier()
        start = time.perf_counter()
        if rank == sender:
            dist.send(block, (sender + 1) % nodes)
        elif rank == (sender + 1) % nodes:
            dist.recv(block, sender)
            seconds[sender] = time.perf_counter() - start
    dist.all_reduce(seconds)
    pace = block.numel() / seconds
    direct = DIRECT_BYTES if dist.get_backend() == "gloo" else 0
    costs = LinkCosts(hop, all_gather, rates[1], rates[0], direct)
    return Link(costs, interface, float(pace[rank]), float(pace[(rank - 1) % nodes]))


def _rate(prepare: Callable[[int], Callable[[], object]], most: int, sent: float, hops: float) -> float:
    """Bytes a second that a rank sends besides hops, of so many numbers or of fewer that take long enough.

    With hops of 20 ms, of which TCP needs several until its window is open, long enough is a second.
    """
    size = min(1 << 16, most)
    while True:
        took = _slowest(prepare(size), 3)
        if took >= PROBE_SECONDS + 8 * hops or size == most:
            return size * sent / max(took - hops, 1e-9)
        size = min(4 * size, most)


def measure_methods(workload: Workload, note: Note) -> list[Method]:
    """The methods with the seconds of their own work on this processor; every rank calls it, side by side."""
    layout, share = workload.sample(SAMPLE)
    d = workload.numel
    note("cast to bfloat16")
    vector = torch.randn(layout.d)
    cast = _slowest(lambda: vector.copy_(vector.to(torch.bfloat16))) / share
    methods = [Method("fp32", "fp32", 4 * d, loss_gap=0.0), Method("bf16", "bf16", 2 * d, cast, loss_gap=0.0)]

    def add(name: str, own: float, each: float, size: int, every: int = 1, gap: float | None = None) -> None:
        per_step = own / share, each / share
        methods.append(Method(name, "messages", int(size / share), *per_step, every, gap, vector_bytes=4 * d))

    for name, feedback in HOOKS.items():
        note(name)
        add(name, *_codec(layout, feedback))
    dense = _dense_optimizer_step(layout)
    for name, feedback in OPTIMIZERS.items():
        note(name)
        _, each, size = _codec(layout, feedback)
        own = max(0.0, _optimizer_step(layout, feedback) - dense)
        add(name, own, each, size, gap=LOSS_GAP[name])
    note("local steps")
    codec = _codec(layout, LOCAL_FEEDBACK)
    for name, every in LOCAL.items():
        add(name, *codec, every, LOSS_GAP[name])
    return methods


def measure_compute(workload: Workload, note: Note) -> Compute:
    """Forward, backward and a fused AdamW's step of the model; zeros where it has no loss.

    Raises:
        ValueError: where the loss is not a tensor of one number that depends on the model.
        RuntimeError: from what the model or its loss raised.
    """
    model, loss_of = workload.model, workload.loss
    if model is None or loss_of is None:
        return Compute()
    note("forward and backward")
    with of_user("the model's loss"):
        loss = loss_of(model)
    if not isinstance(loss, torch.Tensor) or loss.numel() != 1 or not loss.requires_grad:
        what = f"shape {tuple(loss.shape)}" if isinstance(loss, torch.Tensor) else type(loss).__name__
        raise ValueError(f"the loss must be a tensor of one number that depends on the model, got {what}")
    with of_user("a step of the model"):
        return _measure_steps(model, loss_of)


def _measure_steps(model: torch.nn.Module, loss_of: Callable[[torch.nn.Module], torch.Tensor]) -> Compute:
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0, fused=True)
    parts: list[list[float]] = [[], [], []]
    for _ in range(REPEATS + 2):
        _meet()
        marks = [time.perf_counter()]
        optimizer.zero_grad()
        loss = loss_of(model)
        marks.append(time.perf_counter())
        loss.backward()  # type: ignore[no-untyped-call]
        marks.append(time.perf_counter())
        optimizer.step()
        marks.append(time.perf_counter())
        for part, begin, end in zip(parts, marks, marks[1:], strict=False):
            part.append(end - begin)
    return Compute(*(_over_ranks(statistics.median(part[2:])) for part in parts))


def _codec(layout: laconic.Layout, feedback: Any) -> tuple[float, float, int]:
    """Seconds of a rank's own work, seconds for each message that it receives, and bytes of a message."""
    gradients = [torch.randn(layout.d) for _ in range(2)]
    times = {}
    size = 0
    for nodes in (1, PEERS + 1):
        rank = Rank(layout, feedback, nodes)
        turn = iter(range(10**6))
        step = _slowest(lambda rank=rank, turn=turn: rank.step(gradients[next(turn) % 2]))  # type: ignore[misc]
        times[nodes] = step
        size = rank.message_bytes
    each = max(0.0, times[PEERS + 1] - times[1]) / PEERS
    return times[1], each, size


def _parameters(layout: laconic.Layout) -> list[torch.nn.Parameter]:
    parameters = [torch.nn.Parameter(torch.randn(segment.shape)) for segment in layout.segments]
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter)
    return parameters


def _dense_optimizer_step(layout: laconic.Layout) -> float:
    return _slowest(torch.optim.AdamW(_parameters(layout), lr=0.0, fused=True).step)


def _optimizer_step(layout: laconic.Layout, feedback: Any) -> float:
    group = None
    if dist.is_initialized():
        group, _ = dist.new_subgroups(group_size=1)  # type: ignore[no-untyped-call]
    optimizer = laconic.optim.CompressedAdamW(
        _parameters(layout), 0.0, feedback, process_group=group, weight_decay=0.0
    )
    try:
        return _slowest(optimizer.step)
    finally:
        optimizer.close()


def _slowest(work: Callable[[], object], repeats: int = REPEATS) -> float:
    """The median time of some runs after two that do not count, on the slowest rank."""
    times = []
    for _ in range(repeats + 2):
        _meet()
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return _over_ranks(statistics.median(times[2:]))


def _meet() -> None:
    if dist.is_initialized():
        dist.barrier()


def _over_ranks(seconds: float) -> float:
    value = torch.tensor(seconds, dtype=torch.float64)
    if dist.is_initialized():
        dist.all_reduce(value, op=dist.ReduceOp.MAX)
    return float(value)
