"""``laconic bench lab``: speed of the simulator against NumPy scripts."""

from dataclasses import asdict
from pathlib import Path

import click

from laconic.cli._output import make_console, print_json, progress, table_like


@click.command(name="lab")
@click.argument("file", type=click.Path(path_type=Path), required=False)
@click.option(
    "--rounds", type=click.IntRange(min=20), default=3000, show_default=True, help="Rounds of the sweep."
)
@click.option(
    "--repeats",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    help="Turns of which the fastest counts.",
)
@click.option("--quick", is_flag=True, help="200 rounds, and two turns of fewer rounds for the scripts.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def command(file: Path | None, rounds: int, repeats: int, quick: bool, as_json: bool) -> None:
    """Measure the sweep of EF21's Figure 2 against NumPy scripts.

    Logistic regression on FILE (LibSVM format; by default a9a from the folder LACONIC_DATA), 20 nodes, EF21
    with Top-1 at the stepsize multiples 1, 2, 4, ... 2048, float64; selection, memories and the count of
    bits included. Plain NumPy does the same, one run after another: with two matrix products a node, and with
    the gradient of every row formed, as research scripts do. The scripts make fewer rounds; all times are by
    the round. The courses of all three are compared.

    \b
    Example:
      laconic bench lab
      laconic bench lab --quick --json
    """
    from laconic.bench import lab as bench

    if quick:
        rounds, repeats = min(rounds, 200), min(repeats, 2)
    measured = {
        "laconic": rounds,
        "products": min(rounds, 20 if quick else 40),
        "rows": min(rounds, 10 if quick else 20),
    }
    console = make_console()
    with progress(make_console(stderr=True)) as (bar, task):
        bar.update(task, total=3 * repeats + 1, description="data")
        data = bench.load(file)

        def advance(name: str) -> None:
            bar.advance(task)
            bar.update(task, description=name)

        rows = bench.measure(data, measured, repeats, advance)
    machine = bench.machine()
    if as_json:
        about = {"data": data.title, "nodes": bench.NODES, "multiples": bench.MULTIPLES, "repeats": repeats}
        print_json({**about, "machine": machine, "rows": [asdict(row) for row in rows]})
        return
    console.print(f"{data.title}: {bench.NODES} nodes, {len(bench.MULTIPLES)} multiples, EF21 with Top-1")
    table = table_like()
    for name in ("", "rounds", "ms/round", "sweep", "ratio", "CPU ratio"):
        table.add_column(name, justify="left" if not name else "right", no_wrap=True)
    for row in rows:
        total, ratios = f"{row.ms * rounds / 1e3:.1f} s", (f"{row.ratio:.1f}×", f"{row.cpu_ratio:.1f}×")
        table.add_row(row.name, f"{row.rounds}", f"{row.ms:.2f}", total, *ratios)
    console.print(table)
    worst = max(row.difference for row in rows)
    bits = "equal" if all(row.same_bits for row in rows) else "NOT equal"
    console.print(
        f"rounds: measured, of all runs, fastest of {repeats} turns; sweep: scaled to {rounds:,}.\n"
        "CPU ratio: of processor time, which other programs on the machine change less.\n"
        f"|∇f|² differs by at most {worst:.0e} (relative) in common rounds; bits are {bits}.\n"
        f"{machine['processor']}, {machine['cores']} cores; "
        f"threads: PyTorch {machine['torch_threads']}, BLAS {machine['blas_threads']}\n"
        f"Python {machine['python']}, NumPy {machine['numpy']}, PyTorch {machine['torch']}, "
        f"numba {machine['numba']}"
    )
