"""Tables of docs/does-it-help.md from the JSON files of this folder.

python docs/results/render.py                                  # writes the tables into the page
python docs/results/render.py --study benchmarks/accuracy/runs   # first makes time-to-loss.json anew
"""

import json
import re
import sys
from pathlib import Path

from laconic.bench.time_to_loss import DENSE, STUDIED, studied_steps, time_to_loss

RESULTS = Path(__file__).parent
PAGE = RESULTS.parent / "does-it-help.md"
BLOCK = re.compile(r"(<!-- (\w+) ?([\w.-]*) -->\n).*?(<!-- end -->)", re.DOTALL)
TARGETS = {100e6: 1.5, 1e9: 1.5, None: 1.6}
"""Of the recommended methods' steps over compute alone, by rate, for the models of 10 million parameters."""


def render(page: str) -> str:
    """The page with all its tables."""

    def block(found: re.Match[str]) -> str:
        begin, kind, name, end = found.groups()
        return f"{begin}\n{RENDER[kind](name)}\n\n{end}"

    return BLOCK.sub(block, page)


def load(name: str) -> dict:
    """A file of results."""
    return json.loads((RESULTS / name).read_text())


def steps(name: str) -> str:
    """A table for each link of a file of ``laconic bench step``."""
    record = load(name)
    parts = [_origin(record)]
    for link in dict.fromkeys(row["link"] for row in record["rows"]):
        rows = [row for row in record["rows"] if row["link"] == link]
        lines = [
            f"{rows[0]['model']}, {rows[0]['nodes']} ranks, {link}:",
            "",
            "| method | step, ms | spread | compute | step / compute | codec CPU, ms | sent | counted |",
            "|---|---:|---:|---:|---:|---:|---:|---:|",
        ]
        for row in rows:
            counted = "" if row["counted_bytes"] is None else _bytes(row["counted_bytes"])
            times = " | ".join(f"{row[key]:.0f}" for key in ("step_ms", "spread_ms", "compute_ms"))
            sent, codec = _bytes(row["payload_bytes"]), f"{row['cpu_ms']:.0f}"
            lines.append(f"| {row['method']} | {times} | {row['ratio']:.2f} | {codec} | {sent} | {counted} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def phases(name: str) -> str:
    """Where the time of the recommended methods goes."""
    heads = "forward | backward | optimiser | select | pack | communicate | of it waiting | unpack | apply"
    lines = [f"| link | method | {heads} |", "|---|---|" + "---:|" * 9]
    order = ("forward", "backward", "optimizer", "select", "pack", "communicate", "waited", "unpack", "apply")
    for row in load(name)["rows"]:
        if row["method"] in ("recommended", "recommended-hook"):
            values = " | ".join(f"{row['parts_ms'][part]:.0f}" for part in order)
            lines.append(f"| {row['link']} | {row['method']} | {values} |")
    return "\n".join(lines)


def losses(_: str) -> str:
    """The sentence about where compression loses, and the targets that are missed."""
    lost, missed = [], []
    for file in sorted(RESULTS.glob("step-*.json")):
        cells: dict[tuple[str, str], dict] = {}
        for row in json.loads(file.read_text())["rows"]:
            cells.setdefault((row["model"], row["link"]), {})[row["method"]] = row
        for (model, link), rows in cells.items():
            for own, dense in (("recommended-hook", "bf16"), ("recommended", "bf16-adamw")):
                if own not in rows:
                    continue
                row = rows[own]
                if dense in rows and row["step_ms"] >= rows[dense]["step_ms"]:
                    lost.append(
                        f"{own} on {model}, {link} ({row['step_ms']:.0f} ms, {dense} "
                        f"{rows[dense]['step_ms']:.0f} ms)"
                    )
                target = TARGETS.get(row["rate"])
                if "10m" in model and target and not row["delay_ms"] and row["ratio"] > target:
                    missed.append(f"{own} on {model}, {link}: {row['ratio']:.2f} (target {target})")
    words = "; ".join(lost) if lost else "nowhere in these cells"
    text = f"Where compression loses, its step takes longer than bf16's: {words}."
    if missed:
        text += "\n\nTargets for step / compute that are missed: " + "; ".join(missed) + "."
    return text


def plan(name: str) -> str:
    """Predicted beside measured steps."""
    lines = [
        "| model, link | method | all from the probe, ms | predicted, ms | measured, ms | ratio |",
        "|---|---|---:|---:|---:|---:|",
    ]
    chosen = []
    for cell in load(name)["cells"]:
        where = f"{cell['model']}, {cell['link']}"
        for method, found in cell["methods"].items():
            times = " | ".join(f"{found[key]:.0f}" for key in ("from_probe", "predicted", "measured"))
            lines.append(f"| {where} | {method} | {times} | {found['ratio']:.2f} |")
        chosen.append(f"{where}: {cell['chosen']}, {cell['cost']:.2f} times the fastest ({cell['best']})")
    return "\n".join(lines) + "\n\nChosen: " + "; ".join(chosen) + "."


def loss(name: str) -> str:
    """Time to loss with its factors."""
    record = load(name)
    studies = [
        f"{STUDIED[method]}: {found['steps']:.0f} steps where bf16 takes {found['dense_steps']:.0f} "
        f"({found['seeds']} seeds, learning rate {found['lr']:g})"
        if found["steps"] is not None
        else f"{STUDIED[method]} never had that loss in {found['run_steps']} steps"
        for method, found in record["study"].items()
        if method in STUDIED
    ]
    lines = [
        "; ".join(studies) + ".",
        "",
        "| model, link | method | ms × steps = s | bf16: ms × steps = s | gain | ceiling | of it |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for row in record["rows"]:
        own = f"{row['step_ms']:.0f} × {row['steps']:.0f} = {row['seconds']:.0f}"
        dense = f"{row['dense_step_ms']:.0f} × {row['dense_steps']:.0f} = {row['dense_seconds']:.0f}"
        gains = f"{row['gain']:.1f} | {row['ceiling']:.1f} | {row['of_ceiling']:.2f}"
        lines.append(f"| {row['model']}, {row['link']} | {row['method']} | {own} | {dense} | {gains} |")
    return "\n".join(lines)


def real(name: str) -> str:
    """Runs from start to end beside the products."""
    record = load(name)
    lines = [
        _origin(record),
        "",
        "| link | method | bf16 step / compute | ms × steps of the study = s | ms × steps = s, really "
        "| really / product |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for cell in record["cells"]:
        rows = {row["method"]: row for row in cell["rows"]}
        ratio = rows[DENSE]["step_ms"] / rows[DENSE]["compute_ms"]
        for method, run in cell["runs"].items():
            title = DENSE if method == "dense" else STUDIED[method]
            step, steps = rows[title]["step_ms"], cell["study_steps"][method]
            product, own = step * steps / 1e3, 1e3 * run["seconds"] / run["steps"]
            lines.append(
                f"| {cell['link']} | {title} | {ratio:.1f} | {step:.0f} × {steps:.0f} = {product:.0f} "
                f"| {own:.0f} × {run['steps']} = {run['seconds']:.0f} | {run['seconds'] / product:.2f} |"
            )
    return "\n".join(lines)


def _origin(record: dict) -> str:
    """Machine, network and command of a file."""
    machine = record["machine"]
    return (
        f"{machine['processor']}, {machine['cores']} cores, PyTorch {machine['torch']}; network "
        f"{record['network']}:\n\n    {record['command']}"
    )


def _bytes(number: float) -> str:
    for unit, size in (("MB", 1e6), ("kB", 1e3)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number:.0f} B"


RENDER = {"steps": steps, "phases": phases, "losses": losses, "plan": plan, "loss": loss, "real": real}


def make_time_to_loss(runs: Path) -> None:
    """Write time-to-loss.json from the study's runs, as recommended, and the measured steps."""
    sys.path.insert(0, str(runs.parent))
    from report import is_usual, spec_of

    known = [json.loads(path.read_text()) for path in sorted(runs.glob("*.json"))]
    studied = studied_steps(run for run in known if "curve" in run and is_usual(spec_of(run)))
    rows = []
    for file in sorted(RESULTS.glob("step-*.json")):
        record = json.loads(file.read_text())
        slow = [row for row in record["rows"] if row["rate"] is not None and row["rate"] <= 3e8]
        rows += time_to_loss(slow, studied)
    record = {"study": studied, "rows": rows}
    (RESULTS / "time-to-loss.json").write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    if len(sys.argv) == 3 and sys.argv[1] == "--study":
        make_time_to_loss(Path(sys.argv[2]))
    PAGE.write_text(render(PAGE.read_text()))
