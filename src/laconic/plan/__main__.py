"""``python -m laconic.plan``: one rank of ``laconic bench plan``, which probes a benchmark's model."""

import os
from dataclasses import asdict

import torch
import torch.distributed as dist

from laconic.bench.step_models import WORKLOADS
from laconic.network import enter_rank
from laconic.plan._probe import measure_compute, measure_link, measure_methods
from laconic.plan._workload import of_model


def main() -> None:
    """Run the rank that the arguments describe."""
    chosen, send = enter_rank()
    torch.set_num_threads(1)
    first = dist.get_rank() == 0

    def note(text: str) -> None:
        if first:
            send({"note": text})

    benchmark = WORKLOADS[chosen["model"]]
    batches = benchmark.batches(dist.get_rank(), dist.get_world_size())
    workload = of_model(benchmark.build(), lambda model: benchmark.loss(model, next(batches)))
    link = measure_link(note, workload.numel).costs
    compute = measure_compute(workload, note)
    methods = measure_methods(workload, note)
    if first:
        send({"link": asdict(link), "compute": asdict(compute), "methods": [asdict(m) for m in methods]})
    dist.barrier()
    os._exit(0)  # exchanges of closed groups may keep threads


main()
