"""``laconic plan``: which method to use for a model on these machines, or none."""

import os
from dataclasses import asdict
from typing import Any

import click
import torch
import torch.distributed as dist
from rich.console import Console

from laconic.bench.machine import describe_machine
from laconic.cli._options import count
from laconic.cli._output import make_console, print_json, progress, quantity, table_like
from laconic.network import parse_rate
from laconic.plan import (
    Compute,
    LinkCosts,
    Method,
    Workload,
    advice,
    load_workload,
    measure_compute,
    measure_link,
    measure_methods,
    predict,
    workload_of_size,
)

RANKS = tuple(2**i for i in range(1, 11))
SHOWN = {
    "fp32": "fp32",
    "bf16": "bf16",
    "EF14, 1 %": "EF14, 1 %, 1 bit",
    "AdamW, 1 %": "CompressedAdamW, 1 %, 1 bit",
    "local, 4": "local steps, 4 x 3 %, 2 bits",
    "local, 16": "local steps, 16 x 3 %, 2 bits",
}
"""Columns of the table by number of ranks, and their methods."""
NOTES = 16


@click.command(name="plan")
@click.option(
    "--model", metavar="MODULE:FUNCTION", help="Returns a module, or one and a function to its loss."
)
@click.option(
    "--parameters", callback=count, metavar="N", help="Instead of a model: its size, such as 125e6."
)
@click.option("--compute-ms", type=click.FloatRange(min=0), help="A step without averaging, where known.")
@click.option("--nodes", type=click.IntRange(2, 4096), help="Without torchrun: number of ranks.")
@click.option("--link", metavar="RATE", help="Without torchrun: each rank's link, such as 1gbit.")
@click.option("--delay-ms", type=click.FloatRange(min=0), default=0.0, help="Without torchrun: of the link.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    model: str | None,
    parameters: int | None,
    compute_ms: float | None,
    nodes: int | None,
    link: str | None,
    delay_ms: float,
    as_json: bool,
) -> None:
    """Predict the step time of each method, and say which one to use, or none.

    Under torchrun it probes the link between the ranks and names the network interface that it uses,
    measures the methods' own work on each rank's processor, all ranks at once, and forward and backward
    where the model comes with a loss. All constants of the prediction come from this probe. On a single
    process the link is given by --link and --nodes.

    \b
    sent   bytes that a rank sends in a step
    link   time of the collective; backward hides some of a dense one
    codec  feedback, compressor, packing, unpacking; the optimiser's extra
    step   with computation; of local steps the average
    gain   bf16's step over this one
    loss   above tuned dense AdamW's in our study, one small model of 0.67 M
           parameters, 3,000 steps; ? where it was not measured

    \b
    Example:
      torchrun --nproc-per-node 4 -m laconic plan --model train:build
      laconic plan --parameters 125e6 --nodes 8 --link 1gbit --compute-ms 300
    """
    if (model is None) == (parameters is None):
        raise click.UsageError("give either --model or --parameters")
    launched = "RANK" in os.environ
    if launched and (link or nodes):
        raise click.UsageError("--link and --nodes are for a single process; torchrun's ranks probe the link")
    if launched and int(os.environ.get("WORLD_SIZE", "1")) < 2:
        raise click.UsageError(
            "torchrun has started a single rank, which has no link to probe: start two or more, or leave "
            "torchrun out and give --link and --nodes"
        )
    if not launched and not (link and nodes):
        raise click.UsageError(
            "without torchrun there is no link to probe: start it with torchrun, or give --link and --nodes"
        )
    if launched:
        dist.init_process_group("gloo")
    try:
        try:
            workload = load_workload(model) if model else workload_of_size(parameters or 1)
            given = None if launched else LinkCosts(*_given(link or "", delay_ms))
        except ValueError as error:
            raise click.UsageError(str(error)) from error
        record = _measure(workload, given, nodes, compute_ms)
        if not launched or dist.get_rank() == 0:
            _report(record, as_json)
    finally:
        if launched:
            dist.destroy_process_group()


def _given(link: str, delay_ms: float) -> tuple[float, float, float, float]:
    rate = (parse_rate(link) or 1e12) / 8
    return 1e-3 * delay_ms, rate, rate, rate


def _measure(
    workload: Workload, link: LinkCosts | None, nodes: int | None, compute_ms: float | None
) -> dict[str, Any]:
    rank = dist.get_rank() if dist.is_initialized() else 0
    if dist.is_initialized() and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)
    with progress(make_console(stderr=True, quiet=rank != 0)) as (bar, task):
        bar.update(task, total=NOTES, description="plan", note="starting")

        def note(text: str) -> None:
            bar.update(task, note=text)
            bar.advance(task)

        interface: dict[str, Any] = {}
        if link is None:
            probed = measure_link(note, workload.numel)
            link, nodes = probed.costs, dist.get_world_size()
            interface = {"interface": probed.interface, "up": probed.up, "down": probed.down}
        assert nodes is not None
        compute = measure_compute(workload, note)
        if compute_ms is not None:
            # Backward takes about twice what forward does, where nobody has measured it.
            compute = Compute(forward=compute_ms / 3e3, backward=compute_ms / 1.5e3)
        methods = measure_methods(workload, note)
    return {
        "machine": describe_machine(),
        "nodes": nodes,
        "workload": workload,
        "link": link,
        "interface": interface,
        "compute": compute,
        "methods": methods,
    }


def _report(record: dict[str, Any], as_json: bool) -> None:
    workload: Workload = record["workload"]
    link: LinkCosts = record["link"]
    compute: Compute = record["compute"]
    methods: list[Method] = record["methods"]
    nodes: int = record["nodes"]
    found = sorted((predict(each, link, compute, nodes) for each in methods), key=lambda p: p.step)
    words = advice(found, compute)
    by_ranks = {n: [predict(each, link, compute, n) for each in methods] for n in sorted({*RANKS, nodes})}
    if as_json:
        print_json(
            {
                "machine": record["machine"],
                "nodes": nodes,
                "parameters": workload.numel,
                "exempt": workload.numel_exempt,
                "link": asdict(link) | record["interface"],
                "compute": asdict(compute),
                "methods": [asdict(each) for each in methods],
                "predictions": [asdict(each) for each in found],
                "by_nodes": {n: [asdict(p) for p in row] for n, row in by_ranks.items()},
                "advice": words,
            }
        )
        return
    console = make_console()
    _print_facts(console, record)
    bf16 = next(p for p in found if p.method == "bf16")
    table = table_like()
    table.add_column("method", no_wrap=True)
    for name in ("sent", "link", "codec", "step", "gain", "loss"):
        table.add_column(name, justify="right", no_wrap=True)
    for each in found:
        times = [_ms(each.communicate), _ms(each.codec), _ms(each.step)]
        gap = "?" if each.loss_gap is None else f"{each.loss_gap:+g} %" if each.loss_gap else ""
        table.add_row(each.method, quantity(each.sent) + "B", *times, f"{bf16.step / each.step:.2f}", gap)
    console.print(f"{nodes} ranks: milliseconds a step")
    console.print(table)
    table = table_like()
    for name in ("ranks", *SHOWN):
        table.add_column(name, justify="right", no_wrap=True)
    for n, row in by_ranks.items():
        steps = {p.method: _ms(p.step) for p in row}
        table.add_row(str(n), *(steps[method] for method in SHOWN.values()))
    console.print("by number of ranks: milliseconds a step")
    console.print(table)
    console.print(words)


def _print_facts(console: Console, record: dict[str, Any]) -> None:
    workload: Workload = record["workload"]
    link: LinkCosts = record["link"]
    compute: Compute = record["compute"]
    compressed = workload.numel - workload.numel_exempt
    console.print(
        f"model: {workload.numel:,} parameters; {compressed:,} compressed, {workload.numel_exempt:,} sent "
        "whole in bfloat16 (at most one dimension, or fewer than 512 numbers)"
    )
    if record["interface"]:
        found = record["interface"]
        console.print(
            f"link: {found['interface']}, up {_rate(found['up'])}, down {_rate(found['down'])}; choose "
            "another one by GLOO_SOCKET_IFNAME (NCCL: NCCL_SOCKET_IFNAME)"
        )
    console.print(
        f"collectives: {1e3 * link.latency:.2g} ms a hop, all-gather {_rate(link.all_gather)}, all-reduce "
        f"{_rate(link.all_reduce)} in fp32 and {_rate(link.all_reduce_bf16)} in bf16"
    )
    if compute.step:
        console.print(
            f"computation: {_ms(compute.step)} ms a step (forward {_ms(compute.forward)}, backward "
            f"{_ms(compute.backward)}, optimiser {_ms(compute.optimizer)})"
        )
    else:
        console.print("computation: unknown and left out; give --compute-ms, or a model with a loss")


def _rate(bytes_a_second: float) -> str:
    bits = 8 * bytes_a_second
    return f"{bits / 1e9:.3g} Gbit/s" if bits >= 1e9 else f"{bits / 1e6:.3g} Mbit/s"


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:.0f}" if seconds >= 0.1 else f"{1e3 * seconds:.3g}"
