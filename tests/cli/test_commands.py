"""The command line as a user meets it: a process of its own, its output, its files, its exit code."""

import io
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from filelock import FileLock
from rich.console import Console

from laconic import EF21, Layout, TopK, pack
from laconic.cli import _output
from laconic.cli._group import COMMANDS, laconic
from laconic.cli._output import quantity


def call(*arguments: str, cwd: Path | None = None):
    return subprocess.run(
        [sys.executable, "-m", "laconic", *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=120,
        check=False,
    )


def invoke(*arguments: str):
    return CliRunner().invoke(laconic, list(arguments))


SMALL = ["--nodes", "4", "--rounds", "300", "--multiples", "1,16"]


def test_compare_writes_a_table_json_and_figures(tmp_path):
    done = call("compare", *SMALL, "--methods", "gd,ef14,ef21,ef21+", "--out", str(tmp_path / "new" / "out"))
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    for name in ("gd", "ef14", "ef21", "ef21+"):
        assert f"\n  {name} " in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 88
    out = tmp_path / "new" / "out"
    for figure in ("bits.png", "multiples.png"):
        assert (out / figure).read_bytes().startswith(b"\x89PNG")
    record = json.loads((out / "results.json").read_text())
    assert record["settings"]["nodes"] == 4
    assert [row["method"] for row in record["summary"]] == ["gd", "ef14", "ef21", "ef21+"]
    for runs in record["runs"].values():
        for one in runs:
            assert len(one["grad_norm2"]) == one["rounds"] + 1
            assert len(one["bits"]["up"]["wire"]) == one["rounds"] + 1
    cells = {line.split()[0]: line.split() for line in done.stdout.splitlines() if "×" in line}
    for row in record["summary"]:
        shown = [cell for cell in cells[row["method"]] if cell != "✓"]
        up, down = row["bits_up"], row["bits_down"]
        bits = (up["values"], up["entropy"], up["wire"], down["wire"])
        assert shown[1:4] == [f"{row['multiple']:g}×", str(row["rounds"]), f"{row['grad_norm2']:.1e}"]
        assert shown[4:] == [quantity(number) for number in bits]
    # With 4 nodes and d = 30, Top-1: 32 bits a round as the papers count, the dense first round free.
    ef21 = record["runs"]["ef21"][0]
    assert ef21["bits"]["up"]["values"][-1] == 32 * (ef21["rounds"] - 1)


def test_compare_json_is_nothing_but_json(tmp_path):
    done = call("compare", *SMALL, "--methods", "ef21", "--json", "--out", str(tmp_path))
    assert done.returncode == 0
    assert json.loads(done.stdout)["summary"][0]["method"] == "ef21"


def test_compare_least_squares_and_random_compressors(tmp_path):
    result = invoke(
        "compare",
        *SMALL,
        "--problem",
        "least-squares",
        "--methods",
        "dcgd,ef21",
        "--compressor",
        "rand-k:3",
        "--out",
        str(tmp_path),
    )
    assert result.exit_code == 0, result.output
    assert "note: RandK(k=3" in result.output
    assert "contractive() form" in " ".join(result.output.split())


def test_the_default_methods_suit_a_random_compressor(tmp_path):
    result = invoke("compare", *SMALL, "--compressor", "ternary", "--rounds", "20", "--out", str(tmp_path))
    assert result.exit_code == 0, result.output
    assert "ef21+ is left out" in result.output


def test_compare_reads_a_file(tmp_path):
    rows = ["+1 1:0.5 3:1", "-1 2:1", "+1 1:1 2:0.25", "-1 3:2", "+1 1:2", "-1 2:1 3:1"]
    (tmp_path / "data.txt").write_text("\n".join(rows) + "\n")
    result = invoke(
        "compare",
        str(tmp_path / "data.txt"),
        "--nodes",
        "2",
        "--methods",
        "ef21",
        "--rounds",
        "50",
        "--out",
        str(tmp_path),
    )
    assert result.exit_code == 0, result.output
    assert "data.txt: 2 nodes, d = 3" in result.output


BROKEN = "+1 1:0.5\n-1 2:x\n"
MISTAKES = {
    "no file": (["compare", "absent.txt"], "absent.txt does not exist"),
    "malformed file": (["compare", "broken.txt"], "line 2"),
    "one class": (["compare", "one.txt", "--nodes", "1"], "two classes"),
    "infinite data": (["compare", "inf.txt", "--nodes", "1"], "row 1, column 1"),
    "k above d": (["compare", "--compressor", "top-k:31"], "k <= 30"),
    "fraction": (["compare", "--compressor", "top-k:1.5"], "outside (0, 1)"),
    "method": (["compare", "--methods", "ef2"], "did you mean 'ef21'"),
    "compressor": (["compare", "--compressor", "topk:1"], "did you mean 'top-k'"),
    "arguments": (["compare", "--compressor", "top-k"], "write top-k:K"),
    "chain": (["compare", "--compressor", "natural+top-k:1"], "the first must be a sparsifier"),
    "nodes": (["compare", "--nodes", "1000"], "569 rows"),
    "multiples": (["compare", "--multiples", "1,x"], "write numbers with commas"),
    "random EF21+": (
        ["compare", "--compressor", "rand-k:1", "--methods", "ef21+"],
        "deterministic compressor",
    ),
    "command": (["comparee"], "did you mean 'compare'"),
    "option": (["compare", "--bogus"], "No such option '--bogus'"),
    "near option": (["compare", "--multipels", "1"], "'--multiples'"),
    "near subcommand": (["bench", "lap"], "Did you mean 'lab'"),
    "rounds": (["compare", "--rounds", "10000000000"], "--rounds must be at most"),
    "remedy of rounds": (["compare", "--rounds", "10000000000"], "GB; pass --rounds "),
    "value": (["compare", "--nodes", "abc"], "'abc' is not a valid integer"),
    "tolerance": (["compare", "--stop", "-1"], "--stop must be at least 0"),
    "specs": (["compressors", "qsgd"], "unknown compressor 'qsgd'"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_one_line_and_exit_code_two(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("broken.txt").write_text(BROKEN)
    Path("one.txt").write_text("+1 1:0.5\n+1 2:1\n")
    Path("inf.txt").write_text("+1 1:0.5\n-1 2:inf\n")
    arguments, expected = MISTAKES[name]
    result = invoke(*arguments, *(["--out", "out"] if arguments[0] == "compare" else []))
    assert result.exit_code == 2
    error = result.stderr.strip()
    assert expected in error
    assert error.startswith("laconic: ")
    assert "\n" not in error


def test_remedies_name_the_options(tmp_path):
    result = invoke("compare", "--nodes", "1000", "--out", str(tmp_path))
    assert "pass --nodes 569 or fewer" in result.stderr


def test_output_that_is_not_utf8(tmp_path):
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-m", "laconic", "compare", *SMALL, "--methods", "gd,ef21"]
    done = subprocess.run(
        [*command, "--out", str(tmp_path)], capture_output=True, env=environment, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert b"|grad f|^2 <= 1e-07" in done.stdout


def test_a_packed_message_is_written_to_a_file_as_documented(tmp_path):
    packed = pack(TopK(1).compress(torch.tensor([3.0, -4.0])))
    with (tmp_path / "message.bin").open("wb") as file:
        file.write(packed.cpu().numpy().tobytes())
    result = invoke("inspect", str(tmp_path / "message.bin"))
    assert result.exit_code == 0
    assert "1 of 2 coordinates" in result.output


WORDS = "w[train] [/b] :100: [red]"


def test_what_users_write_is_no_markup(tmp_path):
    torch.save({WORDS: torch.zeros(2), "note": WORDS}, tmp_path / "checkpoint.pt")
    shown = invoke("inspect", str(tmp_path / "checkpoint.pt"))
    assert shown.exit_code == 0, shown.output
    assert shown.output.count(WORDS) == 2
    (tmp_path / "[x] [").mkdir()
    file, out = tmp_path / "[x] [" / "b] :100:.txt", tmp_path / "o[" / "x]"
    file.write_text("".join(f"{i % 2} 1:{i % 7} 2:{i % 5} 3:1\n" for i in range(40)))
    done = invoke("compare", str(file), "--nodes", "4", "--methods", "gd", "--rounds", "3", "--out", str(out))
    assert done.exit_code == 0, done.output
    assert "b] :100:.txt: 4 nodes" in done.output
    assert f"written to {out}" in done.output.replace("\n", "")


def test_segments_with_brackets_are_shown_whole(tmp_path):
    layout = Layout.of({"w[0]": (2,), "b[/i]": (3,)})
    packed = pack(EF21(TopK(1)).sender(layout).send(torch.arange(5.0)), layout=layout)
    (tmp_path / "message.bin").write_bytes(packed.numpy().tobytes())
    shown = invoke("inspect", str(tmp_path / "message.bin"))
    assert shown.exit_code == 0, shown.output
    assert "w[0] (2,)" in shown.output
    assert "b[/i] (3,)" in shown.output


def test_progress_shows_notes_as_they_are():
    terminal = io.StringIO()
    with _output.progress(Console(file=terminal, force_terminal=True, width=100)) as (bar, task):
        bar.update(task, total=10, description="a[b]", note="[/b] [red]")
    assert "a[b]" in terminal.getvalue()
    assert "[/b] [red]" in terminal.getvalue()


@pytest.mark.parametrize(
    ("bits", "shown"),
    [
        (950, "950"),
        (999.6, "1k"),
        (12_149, "12.1k"),
        (999_499, "999k"),
        (999_500, "1M"),
        (999_700_000, "1G"),
        (1.2e12, "1.2T"),
        (1.26e15, "1260T"),
        (float("nan"), "nan"),
    ],
)
def test_quantities_have_three_digits_and_a_unit(bits, shown):
    assert quantity(bits) == shown


def test_the_widest_comparison_fits_80_columns(tmp_path, monkeypatch):
    bits = dict.fromkeys(("values", "entropy", "wire"), 1.23e12)
    row = {"method": "ef21-sgdm", "multiple": 0.0625, "rounds": 100_000, "grad_norm2": 1.2e-100}
    row |= {"end": "diverged", "bits_up": bits, "bits_down": bits}
    monkeypatch.setattr("laconic.lab.Comparison.summary", lambda self: [row])
    small = ["--nodes", "4", "--rounds", "3", "--methods", "gd", "--out", str(tmp_path)]
    done = CliRunner().invoke(laconic, ["compare", *small], env={"COLUMNS": "80"})
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    assert max(map(len, lines)) <= 80
    assert any(line.endswith("✗ diverged:") for line in lines)
    (cells,) = (line.split() for line in lines if "ef21-sgdm" in line)
    assert cells == ["ef21-sgdm", "0.0625×", "100000", "1.2e-100", "✗", *["1.23T"] * 4]


UNWRITTEN = {
    "compare": ["compare", "--html"],
    "reproduce": ["reproduce", "all", "--html"],
    "step": ["bench", "step", "--json"],
    "page of step": ["bench", "step", "--html"],
    "exchange": ["bench", "exchange", "--json"],
    "optimizer": ["bench", "optimizer", "--json"],
    "kernels": ["bench", "kernels", "--out"],
    "plan": ["bench", "plan", "step.json", "--json"],
}


@pytest.mark.parametrize("name", UNWRITTEN)
def test_files_that_cannot_be_written_are_refused_before_anything_is_measured(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("step.json").write_text("{}")
    for file, words in (
        (Path("absent", "it"), "the folder absent does not exist"),
        (Path(), "is a directory"),
    ):
        done = invoke(*UNWRITTEN[name], str(file))
        assert done.exit_code == 2
        assert words in done.stderr
        assert f"Invalid value for '{UNWRITTEN[name][-1]}'" in done.stderr
        assert len(done.stderr.splitlines()) == 1
    monkeypatch.setattr("os.access", lambda *_, **__: False)  # root may write everywhere
    assert "is not writable" in invoke(*UNWRITTEN[name], "it").stderr
    assert [path.name for path in Path().iterdir()] == ["step.json"]


@pytest.mark.parametrize("first", ["--html", "--out"])
def test_a_page_may_be_in_the_folder_that_the_command_makes(first, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"--html": "new/out/page.html", "--out": "new/out"}
    ordered = [word for option in sorted(names, key=first.__ne__) for word in (option, names[option])]
    done = invoke("compare", "--nodes", "4", "--rounds", "3", "--methods", "gd", *ordered)
    assert done.exit_code == 0, done.output
    assert Path("new", "out", "page.html").exists()


def test_a_progress_bar_moves_while_nothing_is_reported():
    terminal = io.StringIO()
    with _output.progress(Console(file=terminal, force_terminal=True)) as (bar, task):
        bar.update(task, total=10, note="compiling")
        waited = threading.Event()
        for _ in range(100):  # until the clock has moved on, which nothing but the bar's own refreshing shows
            if "0:00:01" in terminal.getvalue():
                break
            waited.wait(0.1)
    assert "0:00:01" in terminal.getvalue()


def test_without_a_terminal_progress_is_plain_lines(monkeypatch, capsys):
    monkeypatch.setattr(_output, "_LINE_EVERY_S", 0.01)
    with _output.progress(Console(file=io.StringIO())) as (bar, task):
        bar.update(task, total=4, completed=1, description="ef21", note="round 1")
        found = ""
        while "ef21" not in found:
            time.sleep(0.01)
            found += capsys.readouterr().err
    assert "ef21  25 %  round 1" in found


def test_help_fits_80_columns():
    assert max(map(len, invoke("compare", "--help").output.splitlines())) <= 80


def test_a_mistake_in_a_real_process_shows_no_traceback(tmp_path):
    done = call("compare", "absent.txt", cwd=tmp_path)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example(name):
    result = invoke(name, "--help")
    assert result.exit_code == 0
    assert "Example:" in result.output
    assert f"laconic {name}" in result.output


def test_compressors_prints_the_table():
    result = invoke("compressors", "--dim", "10000", "--k", "100")
    assert result.exit_code == 0
    rows = {
        line.split()[0]: line.split()[1:] for line in result.output.splitlines() if len(line.split()) == 7
    }
    assert rows["top-k:100"] == ["0.01", "1", "0.01", "100", "-", "100"]
    assert rows["rand-k:100"] == ["1", "100", "1", "-", "100", "100"]
    assert rows["natural"][4] == "1.125"


def test_compressors_in_a_narrow_terminal_shows_whole_numbers():
    result = CliRunner().invoke(laconic, ["compressors"], env={"COLUMNS": "60"})
    lines = result.output.splitlines()
    assert max(map(len, lines)) <= 60
    assert "…" not in result.output
    shown = lines[lines.index("unbiased-rounding:1.5") + 1 :][:2]
    assert shown == ["  alpha=1 beta=1.042 gamma=1 delta=1.043 zeta=1.042", "  scaled=1.042"]


@pytest.mark.parametrize("arguments", [["compare"], ["demo"], ["reproduce", "all"]])
def test_a_folder_takes_one_run_at_a_time(arguments, tmp_path):
    with FileLock(tmp_path / ".laconic.lock"):
        result = invoke(*arguments, "--out", str(tmp_path))
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1
    assert f"laconic: another run writes to {tmp_path}; wait until it has ended" in result.stderr


def test_a_killed_run_frees_its_folder(tmp_path):
    hold = (
        "import sys, time; from filelock import FileLock; lock = FileLock(sys.argv[1]); lock.acquire();"
        " print('held', flush=True); time.sleep(600)"
    )
    again = ["compare", *SMALL, "--methods", "gd", "--out", str(tmp_path)]
    command = [sys.executable, "-c", hold, str(tmp_path / ".laconic.lock")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout.readline() == "held\n"
            assert "another run writes to" in invoke(*again).stderr
        finally:
            holder.kill()
    assert invoke(*again).exit_code == 0
    assert invoke(*again).exit_code == 0  # and so does one that has ended


def test_compressors_json():
    result = invoke("compressors", "--dim", "100", "top-k:10", "--json")
    assert json.loads(result.output) == [
        {
            "compressor": "top-k:10",
            "alpha": 0.1,
            "beta": 1.0,
            "gamma": 0.1,
            "delta": 10.0,
            "zeta": None,
            "scaled_delta": 10.0,
        }
    ]


def test_rooms_are_there_by_name():
    code = "import laconic; laconic.theory.stepsize; laconic.testing.check_compressor; laconic.lab.run"
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=60)


def test_importing_laconic_imports_no_extra():
    extras = ("sklearn", "scipy", "matplotlib", "click", "rich")
    code = f"import sys, laconic; print([name for name in {extras} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"
