"""``laconic reproduce`` with experiments made for it: its files, its words, its exit codes."""

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from matplotlib.figure import Figure

from laconic import papers
from laconic.cli._group import laconic
from laconic.papers import Experiment, Report, Settings, Verdict

PAGE = Path(__file__).parents[2] / "docs" / "reproduce.md"


@dataclass
class Runs:
    """The settings of each run, by experiment."""

    seen: list[tuple[str, Settings]] = field(default_factory=list)
    fails: list[str] = field(default_factory=list)
    interrupts: list[str] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.seen]

    def experiment(self, name: str, *outcomes: str, needs=()) -> Experiment:
        def run(settings: Settings) -> Report:
            self.seen.append((name, settings))
            settings.report_progress(0.5, "half [of] it")
            (settings.checkpoint / "half").write_text(name)
            if name in self.fails:
                raise RuntimeError("it broke\nhere")
            if name in self.interrupts:
                raise KeyboardInterrupt
            figure = Figure(figsize=(2, 1))
            figure.subplots().plot([1, 2])
            verdicts = [Verdict("EF21 converges [1]", "after 706 rounds", o, "a criterion") for o in outcomes]
            return Report(figure, ("round",), [(1,), (2,)], verdicts, ("a note [2]",))

        return Experiment(name, "EF21: A New", "Figure 1", f"What {name} shows.", run, needs)


@pytest.fixture
def runs(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LACONIC_DATA", raising=False)
    return Runs()


def known(monkeypatch, *experiments: Experiment) -> None:
    monkeypatch.setattr(papers, "EXPERIMENTS", {one.name: one for one in experiments})


def invoke(*arguments: str):
    return CliRunner().invoke(laconic, ["reproduce", *arguments])


@pytest.mark.parametrize(
    ("outcomes", "code"),
    [(("agrees",), 0), (("agrees", "erratum"), 0), (("erratum", "disagrees", "agrees"), 1)],
)
def test_the_exit_code_follows_the_verdicts(runs, monkeypatch, outcomes, code):
    known(monkeypatch, runs.experiment("one", *outcomes))
    result = invoke("one", "--out", "new/out")
    assert result.exit_code == code, result.output
    for outcome in outcomes:
        assert re.search(rf"\n  {outcome} +EF21 converges.* after 706 rounds +a criterion", result.output)
    assert "[1]" in result.output
    assert "note: a note [2]" in result.output
    assert max(map(len, result.output.splitlines())) <= 80
    assert sorted(os.listdir("new/out")) == [".laconic.lock", "one.csv", "one.json", "one.png"]
    assert Path("new/out/one.csv").read_text() == "round\n1\n2\n"
    assert len(json.loads(Path("new/out/one.json").read_text())["verdicts"]) == len(outcomes)


def test_settings_reach_the_experiment(runs, monkeypatch):
    known(monkeypatch, runs.experiment("one", "agrees"))
    Path("data").mkdir()
    assert invoke("one").exit_code == 0
    assert invoke("one", "--quick", "--data", "data").exit_code == 0
    monkeypatch.setenv("LACONIC_DATA", "data")
    assert invoke("one").exit_code == 0
    assert [(s.quick, s.data) for _, s in runs.seen] == [
        (False, None),
        (True, Path("data")),
        (False, Path("data")),
    ]


def test_json_is_nothing_but_json(runs, monkeypatch):
    known(monkeypatch, runs.experiment("one", "agrees"), runs.experiment("two", "agrees", needs=("x.txt",)))
    result = invoke("one", "--json")
    assert json.loads(result.stdout) == json.loads(Path("reproduce-out/one.json").read_text())
    both = json.loads(invoke("all", "--json").stdout)
    assert both[0]["outcome"] == "agrees"
    assert both[1] == {"name": "two", "outcome": "not run", "reason": "needs x.txt"}


def test_the_list(runs, monkeypatch):
    known(monkeypatch, runs.experiment("one"), runs.experiment("two", needs=("libsvm/x.txt",)))
    result = invoke("--list")
    assert result.exit_code == 0
    assert "Figure 1: What two shows. Missing: libsvm/x.txt." in " ".join(result.output.split())
    assert json.loads(invoke("--list", "--json").output)[1] == {
        "name": "two",
        "paper": "EF21: A New",
        "figure": "Figure 1",
        "shows": "What two shows.",
        "needs": ["libsvm/x.txt"],
        "stands_for": "",
    }
    assert runs.seen == []


def test_mistakes_are_one_line_and_exit_code_two(runs, monkeypatch):
    known(monkeypatch, runs.experiment("one"), runs.experiment("two", needs=("libsvm/x.txt",)))
    Path("file").write_text("")
    Path("data").mkdir()
    for arguments, expected in (
        ([], "Name an experiment, or all; --list shows them"),
        (["tow"], "unknown experiment 'tow'; did you mean 'two'?"),
        (["two"], "two needs libsvm/x.txt; LibSVM's data sets are at https://www.csie.ntu.edu.tw"),
        (["two", "--data", "data"], "two needs libsvm/x.txt in data; LibSVM's"),
        (["two", "--data", "absent"], "absent"),
        (["one", "--out", "file"], "file"),
    ):
        result = invoke(*arguments)
        assert result.exit_code == 2
        assert expected in result.stderr
        assert result.stderr.startswith("laconic: ")
        assert len(result.stderr.splitlines()) == 1
    assert "--data DIR or LACONIC_DATA" in invoke("two").stderr
    assert runs.seen == []


def test_all_skips_what_lacks_data_and_survives_what_fails(runs, monkeypatch):
    names = ("one", "two", "three")
    known(
        monkeypatch, *(runs.experiment(name, "agrees") for name in names), runs.experiment("x", needs=("x",))
    )
    result = invoke("all")
    assert result.exit_code == 0, result.output
    assert "Of 4 experiments 3 agree with the paper, 1 was not run." in " ".join(result.output.split())
    runs.fails.append("two")
    result = invoke("all")
    assert result.exit_code == 1
    lines = [line.split() for line in result.output.splitlines() if re.match(r" +\d/4", line)]
    assert [line[2] for line in lines] == ["agrees", "failed", "agrees", "not"]
    assert runs.names == [*names, *names]
    assert "RuntimeError: it broke here (see two.error.txt)" in " ".join(result.output.split())
    assert "Traceback" in Path("reproduce-out/two.error.txt").read_text()
    assert 'id="three"' in Path("reproduce-out/index.html").read_text()
    runs.fails.clear()
    assert invoke("all", "--resume").exit_code == 0
    assert not Path("reproduce-out/two.error.txt").exists()


def test_all_of_nothing_is_a_mistake(runs, monkeypatch):
    known(monkeypatch, runs.experiment("x", needs=("x",)))
    result = invoke("all")
    assert result.exit_code == 2
    assert "the data of every experiment are missing" in result.stderr


def test_resume_keeps_what_is_there(runs, monkeypatch):
    Path("data").mkdir()
    Path("data/x.txt").write_text("1")
    known(
        monkeypatch,
        runs.experiment("one", "agrees"),
        runs.experiment("two", "disagrees", needs=("x.txt",)),
    )
    arguments = ("all", "--data", "data", "--resume")
    assert invoke(*arguments).exit_code == 1
    result = invoke(*arguments)
    assert result.exit_code == 1  # a verdict that is kept still counts
    assert result.output.count("kept from an earlier run") == 2
    assert "kept from an earlier run with the same settings" in invoke("one", "--resume").output
    assert runs.names == ["one", "two"]
    Path("data/x.txt").write_text("2")
    invoke(*arguments)
    assert runs.names == ["one", "two", "two"]
    invoke(*arguments, "--quick")
    assert runs.names[3:] == ["one", "two"]
    invoke(*arguments[:-1], "--quick")
    assert runs.names[5:] == ["one", "two"]


def test_an_interrupted_run_says_how_to_go_on(runs, monkeypatch):
    known(monkeypatch, *(runs.experiment(name, "agrees") for name in ("one", "two", "three")))
    runs.interrupts.append("two")
    result = invoke("all", "--quick", "--out", "my out")
    assert result.exit_code == 130
    words = " ".join(result.output.split())
    assert "laconic reproduce all --quick --out 'my out' --resume" in words
    page = Path("my out/index.html").read_text()
    assert page.count("interrupted") == 4  # two and three, each in the summary and below
    (halfway,) = Path("my out/checkpoints").iterdir()
    assert (halfway / "half").read_text() == "two"
    runs.interrupts.clear()
    assert invoke("all", "--quick", "--out", "my out", "--resume").exit_code == 0
    assert runs.names == ["one", "two", "two", "three"]
    # It went on in the same folder, which is gone since.
    assert runs.seen[2][1].checkpoint == runs.seen[1][1].checkpoint
    assert not Path("my out/checkpoints").exists()


def test_a_fresh_run_takes_no_checkpoint(runs, monkeypatch):
    known(monkeypatch, runs.experiment("one", "agrees"))
    runs.interrupts.append("one")
    assert invoke("one").exit_code == 130
    (halfway,) = Path("reproduce-out/checkpoints").iterdir()
    (halfway / "stale").write_text("")
    assert invoke("one").exit_code == 130
    assert [file.name for file in halfway.iterdir()] == ["half"]
    assert invoke("one", "--resume").exit_code == 130
    assert runs.seen[0][1].checkpoint.is_dir()


def test_in_a_real_process():
    arguments = [sys.executable, "-c", "from laconic.cli import main; main()", "reproduce"]
    done = subprocess.run(
        [*arguments, "--list", "--json"], capture_output=True, text=True, timeout=120, check=True
    )
    assert [one["name"] for one in json.loads(done.stdout)] == list(papers.EXPERIMENTS)


def test_the_page_names_experiments_that_are_there():
    text = PAGE.read_text()
    names = re.findall(r'laconic reproduce ([a-z][a-z0-9-]*)|EXPERIMENTS\["(.*?)"\]', text)
    assert {first or second for first, second in names} <= {*papers.EXPERIMENTS, "all"}
    needed = {name for one in papers.EXPERIMENTS.values() for name in one.needs}
    assert all(Path(name).name in text for name in needed)


def test_the_page_makes_the_images(tmp_path, monkeypatch):
    """The recipe of the documents, on files in CIFAR-10's binary format."""
    monkeypatch.chdir(tmp_path)
    block, _ = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    images = np.arange(2 * 3072).reshape(2, 3, 32, 32).astype(np.uint8)
    rows = np.concatenate((np.array([[7], [3]], np.uint8), images.reshape(2, 3072)), axis=1)
    Path("cifar-10-batches-bin").mkdir()
    for name in ("data_batch_1.bin", "test_batch.bin"):
        rows.tofile(Path("cifar-10-batches-bin") / name)
    exec(block, {})
    with np.load("images/cifar10_subset.npz") as made:
        assert made["y_train"].tolist() == [7, 3]
        assert made["x_test"].shape == (2, 32, 32, 3)
        assert np.array_equal(made["x_test"][1, 4, 5], images[1, :, 4, 5])
