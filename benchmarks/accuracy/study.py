"""The accuracy study: makes the runs that are missing, says what is done, writes table and figures."""

import argparse
import json
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path

from stages import Spec, all_specs

HERE = Path(__file__).parent
RUNS = HERE / "runs"
FIGURES = HERE.parents[1] / "docs" / "figures"


def path_of(spec: Spec) -> Path:
    """The run's file."""
    return RUNS / f"{spec.key}.json"


def done() -> dict[str, dict]:
    """Finished runs by key."""
    return {path.stem: json.loads(path.read_text()) for path in RUNS.glob("*.json")}


def unique_specs() -> list[Spec]:
    """Every run once, though several stages want it."""
    found: dict[str, Spec] = {}
    for spec in all_specs():
        found.setdefault(spec.key, spec)
    return list(found.values())


def make_missing(hours: float) -> None:
    """Make runs until the time is over; a run that has begun is finished."""
    from training import run

    RUNS.mkdir(exist_ok=True)
    end = time.monotonic() + 3600 * hours
    for spec in unique_specs():
        if time.monotonic() >= end:
            break
        claim = RUNS / f"{spec.key}.claim"
        if path_of(spec).exists() or not _claim(claim):
            continue
        try:
            if path_of(spec).exists():  # made between the two looks
                continue
            begin = time.monotonic()

            def say(step: int, spec: Spec = spec, begin: float = begin) -> None:
                if (step + 1) % 100 == 0:
                    left = (time.monotonic() - begin) * (spec.steps / (step + 1) - 1)
                    sys.stderr.write(
                        f"\r{spec.key} step {step + 1} of {spec.steps}, {left / 60:.0f} min left  "
                    )
                    sys.stderr.flush()

            try:
                found = run(spec, say)
            except FloatingPointError as error:
                found = {"failed": str(error)}
            written = path_of(spec).with_suffix(".part")
            written.write_text(json.dumps(asdict(spec) | found) + "\n")
            written.replace(path_of(spec))
            sys.stderr.write(f"\n{spec.key}: {found.get('validation', found.get('failed'))}\n")
        finally:
            claim.unlink(missing_ok=True)


def _claim(claim: Path) -> bool:
    """Whether this process may make the run: no living process has it."""
    try:
        with claim.open("x") as file:
            file.write(str(os.getpid()))
    except FileExistsError:
        try:
            os.kill(int(claim.read_text() or 0), 0)
        except FileNotFoundError:  # whoever had it has just ended
            return _claim(claim)
        except (ProcessLookupError, ValueError):
            claim.unlink(missing_ok=True)
            return _claim(claim)
        except PermissionError:  # it lives, as another user's
            return False
        return False
    return True


def print_status() -> None:
    """Runs by stage."""
    have = done()
    for stage in sorted({spec.stage for spec in all_specs()}):
        specs = [spec for spec in unique_specs() if spec.stage == stage]
        ready = [spec for spec in specs if spec.key in have]
        spent = sum(have[spec.key].get("seconds", 0.0) for spec in ready) / 3600
        print(f"stage {stage}: {len(ready)} of {len(specs)} runs, {spent:.2f} hours of processor time")


def write_report() -> None:
    """``results.csv``, ``results.md``, and figures and tables in the docs, of the runs so far."""
    import figures
    import page
    import report

    have = done()
    runs = [have[spec.key] for spec in unique_specs() if spec.key in have]
    report.write_csv(runs, HERE / "results.csv")
    missing = len(unique_specs()) - len(runs)
    note = f"\n{missing} runs are not done yet; `study.py --status` lists them by stage.\n" if missing else ""
    (HERE / "results.md").write_text(report.table(report.best(report.rows_of(runs))) + note)
    figures.draw(runs, FIGURES)
    page.PAGE.write_text(page.render(page.PAGE.read_text(), runs))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=float, help="make missing runs for so long")
    parser.add_argument("--status", action="store_true", help="say what is done and what is missing")
    parser.add_argument("--report", action="store_true", help="write table and figure")
    chosen = parser.parse_args()
    if chosen.hours is None and not chosen.status and not chosen.report:
        parser.error("give --hours, --status or --report")
    if chosen.hours is not None:
        make_missing(chosen.hours)
    if chosen.report:
        write_report()
    if chosen.status:
        print_status()


if __name__ == "__main__":
    main()
