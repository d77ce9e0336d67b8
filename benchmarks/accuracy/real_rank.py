"""A rank that trains the study's transformer in earnest, until it has a given loss."""

import math
import os
import time
from dataclasses import asdict, replace
from typing import Any

import text
import torch
import torch.distributed as dist
from stages import Spec
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from training import learning_rate, make_optimizer

import laconic
from laconic.bench import step_rank
from laconic.bench.step_methods import bf16_hook
from laconic.bench.step_models import WORKLOADS, Workload
from laconic.network import DEVICE, enter_rank

CHECK_EVERY = 10
"""Steps between two looks at the loss, once the goal may be near."""


def workload(spec: Spec) -> Workload:
    """The study's model and batches for ``laconic bench step``."""

    def build() -> nn.Module:
        torch.manual_seed(spec.seed)
        return text.Task(spec).model

    def batches(rank: int, ranks: int) -> Any:
        task = text.Task(spec)
        while True:
            yield [task.data(0, node) for node in range(ranks)][rank]

    return Workload(build, batches, text.loss_of)


class Training:
    """Real training with a method of the study, on the study's weights, batches and learning rates."""

    def __init__(self, spec: Spec) -> None:
        """Make model and optimiser."""
        self.spec = spec
        whole = workload(spec)
        self.model, self.batches = whole.build(), whole.batches(dist.get_rank(), spec.nodes)
        self.compressed = spec.method == "adamw"
        self.trained: nn.Module = self.model
        if not self.compressed:
            self.trained = DistributedDataParallel(self.model, gradient_as_bucket_view=True)
            self.trained.register_comm_hook({}, bf16_hook)
        self.optimizer, averaging = make_optimizer(spec, self.model)
        self.clip = averaging.get("clip")

    def step(self, number: int) -> float:
        """One step; its seconds."""
        batch = next(self.batches)
        dist.barrier()
        begin = time.perf_counter()
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.spec, number)
        self.optimizer.zero_grad()
        loss = text.loss_of(self.trained, batch)
        loss.backward()
        if self.clip is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
        self.optimizer.step()
        seconds = time.perf_counter() - begin
        if not math.isfinite(float(loss.detach())):
            raise FloatingPointError(f"the loss is {float(loss)} at step {number}")
        return seconds

    def until(self, steps: int, goal: float, note: Any) -> dict[str, Any]:
        """Train until the validation loss is at the goal, from three quarters of so many steps on.

        Returns:
            "steps", "seconds" without those of looking at the loss (each step's of the slowest rank), and
            the "loss"; at the end of the spec's steps where the goal was not met.
        """
        seconds: list[float] = []
        loss = math.inf
        while len(seconds) < self.spec.steps:
            seconds.append(self.step(len(seconds)))
            count = len(seconds)
            if count % CHECK_EVERY == 0:
                note(f"step {count}")
                if count >= 0.75 * steps and (loss := self._validation()) <= goal:
                    break
        longest = torch.tensor(seconds, dtype=torch.float64)
        dist.all_reduce(longest, op=dist.ReduceOp.MAX)
        if self.compressed:
            self.optimizer.close()
        return {"steps": len(seconds), "seconds": float(longest.sum()), "loss": loss}

    def _validation(self) -> float:
        # On rank 0 for all: the others' cores are not theirs.
        loss = torch.tensor(text.validation_loss(self.model) if dist.get_rank() == 0 else 0.0)
        dist.broadcast(loss, 0)
        return float(loss)


def main() -> None:
    """Measure a step of the methods in turns, then train with each."""
    settings, send = enter_rank()
    torch.set_num_threads(1)
    laconic.kernels.set_threads(1)
    first = dist.get_rank() == 0

    def note(words: str) -> None:
        if first:
            send({"note": words})

    specs = {method: Spec(**spec) for method, spec in settings["specs"].items()}
    WORKLOADS["study"] = workload(replace(specs["adamw"], seed=0))
    device = DEVICE if settings["shaped"] else step_rank.LOOPBACK
    chosen = step_rank.RankSettings(
        "study", ("bf16-adamw", "recommended"), 4, settings["turns"], 8, 1, device
    )
    rows = [asdict(row) for row in step_rank.measure(chosen, note)]
    runs = {}
    for method in settings["methods"]:
        training = Training(specs[method])

        def tell(words: str, method: str = method) -> None:
            note(f"{method} {words}")

        runs[method] = training.until(settings["steps"][method], settings["goal"], tell)
    if first:
        send({"rows": rows, "runs": runs})
    dist.barrier()
    os._exit(0)  # as the benchmark's ranks


if __name__ == "__main__":
    main()
