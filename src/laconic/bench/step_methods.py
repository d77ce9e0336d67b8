"""Methods that ``laconic bench step`` compares: ways for ranks to average, each with its optimiser."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

import laconic
from laconic.bench.step_models import Batch, Workload
from laconic.comm import Stats
from laconic.feedback import Feedback

LEARNING_RATE = 1e-4
TIMEOUT_S = 120.0


class Step:
    """A step of training that divides its time into forward, backward and optimiser."""

    def __init__(self, workload: Workload, model: nn.Module, optimizer: Optimizer) -> None:
        """Nothing is run yet."""
        self._workload, self._model, self._optimizer = workload, model, optimizer
        self.loss = float("nan")

    def __call__(self, batch: Batch, marks: Callable[[], None]) -> None:
        """Train on a batch; ``marks`` is called after forward, backward and optimiser."""
        self._optimizer.zero_grad()
        loss = self._workload.loss(self._model, batch)
        marks()
        loss.backward()  # type: ignore[no-untyped-call]
        marks()
        self._optimizer.step()
        marks()
        self.loss = float(loss.detach())


@dataclass
class Prepared:
    """A method that is ready to train.

    Args:
        step: trains on one batch.
        stats: of the library's methods.
        close: ends the method's exchange.
    """

    step: Step
    stats: Callable[[], Stats] | None = None
    close: Callable[[], None] = field(default=lambda: None)


@dataclass(frozen=True)
class Method:
    """A row of the table.

    Args:
        name: in the table and for ``--methods``.
        title: in words.
        optimizer: "sgd" with momentum or "adamw": both fused where PyTorch's; compute alone has the same one.
        prepare: makes model and optimiser.
        every: steps between averages; a turn has whole rounds.
        default_threads: whether it runs with as many threads as there are cores, as where nobody has set
            OMP_NUM_THREADS; compute alone does not.
    """

    name: str
    title: str
    optimizer: str
    prepare: Callable[[Workload], Prepared]
    every: int = 1
    default_threads: bool = False


def dense_optimizer(kind: str, model: nn.Module) -> Optimizer:
    """PyTorch's own, in its fused form."""
    if kind == "sgd":
        return torch.optim.SGD(model.parameters(), lr=LEARNING_RATE, momentum=0.9, fused=True)
    return torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, fused=True)


def _compute(kind: str) -> Callable[[Workload], Prepared]:
    def prepare(workload: Workload) -> Prepared:
        model = workload.build()
        return Prepared(Step(workload, model, dense_optimizer(kind, model)))

    return prepare


def _ddp(
    kind: str, hook: Callable[..., Any] | None = None, state: Callable[[], object] = dict, cap: int = 25
) -> Callable[[Workload], Prepared]:
    def prepare(workload: Workload) -> Prepared:
        model = DistributedDataParallel(workload.build(), bucket_cap_mb=cap, gradient_as_bucket_view=True)
        if hook is not None:
            model.register_comm_hook(state(), hook)
        return Prepared(Step(workload, model, dense_optimizer(kind, model)))

    return prepare


def bf16_hook(
    _state: object,
    bucket: dist.GradBucket,  # type: ignore[name-defined]
) -> torch.futures.Future[torch.Tensor]:
    """Gradients averaged in bfloat16; PyTorch's own hook refuses Gloo."""
    buffer = bucket.buffer()
    half = buffer.to(torch.bfloat16).div_(dist.get_world_size())
    future: torch.futures.Future[Any] = dist.all_reduce(half, async_op=True).get_future()
    return future.then(lambda done: buffer.copy_(done.value()[0]))


def top_k_hook(
    memories: dict[int, Tensor],
    bucket: dist.GradBucket,  # type: ignore[name-defined]
) -> torch.futures.Future[torch.Tensor]:
    """Top-k as it is commonly written: ``torch.topk``, pairs of an int32 index and a float32 value."""
    buffer, nodes = bucket.buffer(), dist.get_world_size()
    k = max(1, buffer.numel() // 100)
    memory = memories.get(bucket.index())
    x = buffer.clone() if memory is None or memory.numel() != buffer.numel() else buffer + memory
    indices = torch.topk(x.abs(), k, sorted=False).indices
    values = x[indices]
    x[indices] = 0
    memories[bucket.index()] = x
    narrow = indices.to(torch.int32)
    all_indices = [torch.empty_like(narrow) for _ in range(nodes)]
    all_values = [torch.empty_like(values) for _ in range(nodes)]
    work = [
        dist.all_gather(all_indices, narrow, async_op=True),
        dist.all_gather(all_values, values, async_op=True),
    ]

    def scatter(done: torch.futures.Future[Any]) -> Tensor:
        done.value()
        mean: Tensor = buffer.zero_()
        for index, value in zip(all_indices, all_values, strict=True):
            mean.index_add_(0, index, value, alpha=1 / nodes)
        return mean

    futures = [each.get_future() for each in work if each is not None]
    all_done: torch.futures.Future[Any] = torch.futures.collect_all(futures)
    return all_done.then(scatter)


def _power_sgd(rank: int) -> Callable[[Workload], Prepared]:
    def prepare(workload: Workload) -> Prepared:
        from torch.distributed.algorithms.ddp_comm_hooks import powerSGD_hook as power

        def state() -> object:
            return power.PowerSGDState(None, matrix_approximation_rank=rank, start_powerSGD_iter=2)

        # One bucket: its second collective would meet another bucket's on Gloo.
        return _ddp("sgd", power.powerSGD_hook, state, cap=100_000)(workload)

    return prepare


def _hook(feedback: Feedback) -> Callable[[Workload], Prepared]:
    def prepare(workload: Workload) -> Prepared:
        model = DistributedDataParallel(workload.build(), gradient_as_bucket_view=True)
        state = laconic.ddp.CommState(feedback, model=model, timeout_s=TIMEOUT_S)
        model.register_comm_hook(state, laconic.ddp.hook)
        step = Step(workload, model, dense_optimizer("sgd", model))
        return Prepared(step, state.stats, state.close)

    return prepare


def _compressed_adamw(**settings: Any) -> Callable[[Workload], Prepared]:
    def prepare(workload: Workload) -> Prepared:
        model = workload.build()
        optimizer = laconic.optim.CompressedAdamW(
            model.named_parameters(), LEARNING_RATE, timeout_s=TIMEOUT_S, **settings
        )
        return Prepared(Step(workload, model, optimizer), optimizer.stats, optimizer.close)

    return prepare


def _local_steps(every: int) -> Callable[[Workload], Prepared]:
    def prepare(workload: Workload) -> Prepared:
        model = workload.build()
        inner = dense_optimizer("adamw", model)
        optimizer = laconic.optim.LocalSteps(inner, every, LOCAL_FEEDBACK, timeout_s=TIMEOUT_S)
        return Prepared(Step(workload, model, optimizer), optimizer.stats, optimizer.close)

    return prepare


_ONE_BIT = laconic.ScaledSign()
_BF16 = laconic.Cast(torch.bfloat16)
_FOUR_BIT = laconic.BlockQuantizer(bits=4)
RECOMMENDED = laconic.EF14(laconic.BlockTopK(41, 4096) >> _ONE_BIT)
"""The feedback that is recommended in advance: CompressedAdamW's default, here also for the hook."""
LOCAL_FEEDBACK = laconic.EF14(laconic.BlockTopK(123, 4096) >> laconic.BlockQuantizer(bits=2))
"""Local steps': 3 % of each block in 2 bits."""

COMPUTE = {
    kind: Method(f"compute-{kind}", f"compute alone, {kind}", kind, _compute(kind))
    for kind in ("sgd", "adamw")
}
"""Training without averaging: what every row is compared with."""

METHODS: Mapping[str, Method] = {
    method.name: method
    for method in (
        Method("fp32", "all-reduce in fp32, SGD", "sgd", _ddp("sgd")),
        Method("bf16", "all-reduce in bf16, SGD", "sgd", _ddp("sgd", bf16_hook)),
        Method("bf16-adamw", "all-reduce in bf16, AdamW", "adamw", _ddp("adamw", bf16_hook)),
        Method("powersgd-1", "PowerSGD, rank 1, SGD", "sgd", _power_sgd(1)),
        Method("topk-naive", "torch.topk 1 %, index-value pairs, SGD", "sgd", _ddp("sgd", top_k_hook)),
        Method(
            "recommended-hook",
            "EF14, 1 % of blocks, 1 bit, SGD",
            "sgd",
            _hook(RECOMMENDED),
        ),
        Method(
            "ef14-1bit",
            "EF14, Top-1 %, 1 bit, SGD",
            "sgd",
            _hook(laconic.EF14(laconic.TopK(0.01) >> _ONE_BIT)),
        ),
        Method(
            "ef21-bf16", "EF21, Top-1 %, bf16, SGD", "sgd", _hook(laconic.EF21(laconic.TopK(0.01) >> _BF16))
        ),
        Method(
            "ef21-4bit",
            "EF21, Top-0.1 %, 4 bits, SGD",
            "sgd",
            _hook(laconic.EF21(laconic.TopK(0.001) >> _FOUR_BIT)),
        ),
        Method(
            "recommended",
            "CompressedAdamW, 1 % of blocks, 1 bit",
            "adamw",
            _compressed_adamw(weight_decay=0.0),
        ),
        Method(
            "recommended-threads",
            "CompressedAdamW, 1 % of blocks, 1 bit, default threads",
            "adamw",
            _compressed_adamw(weight_decay=0.0),
            default_threads=True,
        ),
        Method(
            "recommended-overlap",
            "CompressedAdamW, 1 % of blocks, 1 bit, clip by the last norm, overlapped",
            "adamw",
            _compressed_adamw(weight_decay=0.0, clip_by="last", overlap=True),
        ),
        *(
            Method(
                f"local-{every}",
                f"local steps of AdamW, {every} a round, 3 % of blocks, 2 bits",
                "adamw",
                _local_steps(every),
                every=every,
            )
            for every in (4, 16)
        ),
        Method(
            "adamw-1bit",
            "CompressedAdamW, Top-1 %, 1 bit",
            "adamw",
            _compressed_adamw(feedback=laconic.EF14(laconic.TopK(0.01) >> _ONE_BIT)),
        ),
        Method(
            "adamw-fp32",
            "CompressedAdamW, Top-1 %, fp32",
            "adamw",
            _compressed_adamw(feedback=laconic.EF14(laconic.TopK(0.01))),
        ),
    )
}
"""All methods by name, in the order of the table."""


@contextmanager
def prepared(methods: list[Method], workload: Workload) -> Iterator[dict[str, Prepared]]:
    """All methods, ready to train in turns, each with a model of its own; closed at the end."""
    ready: dict[str, Prepared] = {}
    try:
        for method in methods:
            ready[method.name] = method.prepare(workload)
        yield ready
    finally:
        for each in ready.values():
            each.close()
