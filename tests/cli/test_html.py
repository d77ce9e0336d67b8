"""``--html``: one page with everything, that loads nothing and escapes what users wrote."""

import re
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from html_reader import Reader

from laconic import papers
from laconic._html import Page, Table, is_number, render
from laconic.bench import step
from laconic.cli._group import laconic
from laconic.papers import Experiment, Report, Verdict

NASTY = """<script>alert("a" & 'b')</script> {{ x }} {% y %}"""


class OnePage(Reader):
    """A page that loads nothing and runs nothing."""

    def __init__(self, text: str):
        super().__init__(text)
        assert not {"script", "iframe", "object", "link", "base"} & set(self.tags)
        assert not re.search(r"url\(|@import", text)

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())


def run(*arguments: str):
    done = CliRunner().invoke(laconic, list(arguments))
    assert done.exit_code == 0, done.output
    return done


def test_compare_writes_its_table_figures_settings_and_machine(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a & <b>.txt").write_text("".join(f"{(-1) ** i} 1:{i % 7} 2:{i % 5} 3:1\n" for i in range(60)))
    small = ["--nodes", "4", "--rounds", "50", "--multiples", "1,16", "--methods", "gd,ef21"]
    run("compare", "a & <b>.txt", *small, "--html", "report.html")
    page = OnePage(Path("report.html").read_text())
    assert page.tags.count("img") == 2
    assert all(link.startswith("data:image/png;base64,") for link in page.links)
    for said in ("a & <b>.txt: 4 nodes, top-k:1", "Each method at its best multiple", "ef21", "entropy"):
        assert said in page.words
    for said in ("regularizer 0.1", "rounds 50", "torch", "processor"):
        assert said in page.words
    assert [path.name for path in Path().glob("*.part")] == []


ROW = {
    "step_ms": 81.4,
    "spread_ms": 3.0,
    "compute_ms": 60.0,
    "ratio": 1.357,
    "cpu_ms": 2.0,
    "payload_bytes": 4e6,
}


def test_bench_step_writes_a_table_and_a_sentence_for_each_link(tmp_path, monkeypatch):
    rows = [
        ROW | {"method": method, "link": link, "counted_bytes": counted, "step_ms": ms}
        for link in ("100 Mbit/s", NASTY)
        for method, counted, ms in (("bf16-adamw", None, 700.0), ("recommended", 9e4, 100.0))
    ]
    settings = {"model": "mlp-10m", "nodes": 4, "links": [1, 2]}
    monkeypatch.setattr(step, "measure", lambda *_: {"settings": settings, "network": "shaped", "rows": rows})
    run("bench", "step", "--html", str(tmp_path / "step.html"), "--json", str(tmp_path / "step.json"))
    page = OnePage((tmp_path / "step.html").read_text())
    assert page.tags.count("img") == 1
    assert "100 Mbit/s. Shortest step relative to compute" in page.words
    assert "recommended is 7.0 times as fast as bf16-adamw" in page.words
    assert page.words.count("bf16-adamw 700 3 60 1.36 2.0 4M") == 2
    assert NASTY in page.words
    assert "network shaped" in page.words


def test_bench_step_without_matplotlib_says_so_before_it_measures(tmp_path, monkeypatch):
    def missing(name):
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr("laconic.cli.bench_step.import_module", missing)
    monkeypatch.setattr(step, "measure", lambda *_: pytest.fail("measured"))
    done = CliRunner().invoke(laconic, ["bench", "step", "--html", str(tmp_path / "step.html")])
    assert done.exit_code == 2
    assert "this command needs matplotlib: pip install 'laconic[lab,cli]'" in done.output


def test_reproduce_writes_a_page_that_can_be_moved(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    def report(settings):
        figure = Figure(figsize=(2, 1))
        figure.subplots().plot([1, 2])
        return Report(figure, ("round",), [(1,)], [Verdict(NASTY, "got", "agrees", "why")], ())

    one = Experiment("one", "EF21: A New", "Figure 1", f"Shows {NASTY}", report)
    monkeypatch.setattr(papers, "EXPERIMENTS", {"one": one})
    run("reproduce", "all", "--out", str(tmp_path / "out"), "--html", str(tmp_path / "papers.html"))
    shutil.rmtree(tmp_path / "out")
    page = OnePage((tmp_path / "papers.html").read_text())
    assert page.tags.count("img") == 1
    assert {link for link in page.links if ":" not in link} == {"#one"}
    assert NASTY in page.words
    assert "processor" in page.words


def test_what_users_write_is_escaped_everywhere():
    page = Page(
        NASTY,
        [NASTY],
        [Table(NASTY, [NASTY], [[NASTY], [1.5]], NASTY)],
        {NASTY: b"png"},
        {NASTY: NASTY},
        {NASTY: NASTY},
        [NASTY],
    )
    assert OnePage(render("run.html", page=page)).words.count(NASTY) >= 11


@pytest.mark.parametrize("cell", [1, 2.5, "64×", "9.0e-08", "1.6M", "1.2T", "+0.13 %", "-3"])
def test_numbers_stand_at_the_right(cell):
    assert is_number(cell)
    assert not is_number("ef21+")
