"""The files that an experiment leaves, and the page of all of them."""

import base64
import csv
import json
import re
from dataclasses import replace

import pytest
from html_reader import Reader
from matplotlib.figure import Figure

from laconic.papers import EXPERIMENTS, Experiment, Report, Verdict
from laconic.papers._page import CITED, counts_of, duration, render
from laconic.papers._write import Attempt, key_of, read, write

NASTY = """<script>alert("a" & 'b')</script> $name ${x} [bold]"""


def page_of(attempts, folder):
    page = render(attempts, folder)
    return page, Reader(page)


def report(*verdicts: Verdict, notes=()) -> Report:
    figure = Figure(figsize=(2, 1))
    figure.subplots().plot([1, 2])
    rows = [(0, 0.1 + 0.2, "a, b"), (1, float("nan"), 'say "x"')]
    return Report(figure, ("round", "loss (nats)", "name"), rows, verdicts, notes)


def experiment(name: str, paper: str = "A paper", needs=()) -> Experiment:
    return Experiment(name, paper, "Figure 1", f"Shows {NASTY}", lambda settings: report(), needs)


def attempt(folder, name: str, *outcomes: str, paper: str = "A paper", **about) -> Attempt:
    one = replace(experiment(name, paper), **about)
    verdicts = [Verdict(f"claim {NASTY}", f"got {NASTY}", outcome, "why") for outcome in outcomes]
    made = report(*verdicts, notes=(f"note {NASTY}",))
    return Attempt(one, write(folder, one, key_of(one, False, None), made, 1.5))


def test_what_is_written_is_read_back(tmp_path):
    (tmp_path / "x.txt").write_text("1")
    one = experiment("one", needs=("x.txt",))
    key = key_of(one, True, tmp_path)
    record = write(tmp_path, one, key, report(Verdict("a", "b", "erratum", "c"), notes=("n",)), 2.0)
    assert read(tmp_path, key) == record
    assert (tmp_path / "one.png").read_bytes().startswith(b"\x89PNG")
    with (tmp_path / "one.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["round", "loss (nats)", "name"]
    assert (float(rows[1][1]), rows[1][2], rows[2][2]) == (0.1 + 0.2, "a, b", 'say "x"')
    stored = json.loads((tmp_path / "one.json").read_text())
    assert stored["verdicts"] == [{"claim": "a", "got": "b", "outcome": "erratum", "why": "c"}]
    assert stored["settings"]["quick"] is True
    assert set(stored) == {
        *("name", "paper", "figure", "shows", "stands_for", "outcome", "verdicts", "notes"),
        *("settings", "versions", "seconds", "fingerprint"),
    }
    # Anything that decides the run makes it another one.
    (tmp_path / "x.txt").write_text("2")
    assert read(tmp_path, key_of(one, True, tmp_path)) is None
    (tmp_path / "x.txt").write_text("1")
    assert read(tmp_path, key_of(one, True, tmp_path)) == record
    for other in (replace(key, quick=False), replace(key, version="0"), replace(key, name="other")):
        assert read(tmp_path, other) is None


@pytest.mark.parametrize("harm", ["torn", "other", "no figure"])
def test_a_record_that_is_not_whole_is_none(tmp_path, harm):
    one = experiment("one")
    key = key_of(one, False, None)
    write(tmp_path, one, key, report(), 1.0)
    said = tmp_path / "one.json"
    if harm == "torn":
        said.write_text(said.read_text()[:-20])
    elif harm == "other":
        said.write_text("[]")
    else:
        (tmp_path / "one.png").unlink()
    assert read(tmp_path, key) is None


def test_a_torn_row_is_refused_and_leaves_no_record(tmp_path):
    one = experiment("one")
    key = key_of(one, False, None)
    write(tmp_path, one, key, report(), 1.0)
    with pytest.raises(ValueError, match="a row of 2 cells under 3 columns"):
        write(tmp_path, one, key, replace(report(), rows=[(1, 2)]), 1.0)
    assert read(tmp_path, key) is None


def test_the_page_says_everything_and_loads_nothing(tmp_path):
    attempts = [
        attempt(tmp_path, "good", "agrees", "agrees"),
        attempt(tmp_path, "odd", "agrees", "erratum", stands_for=f"Instead {NASTY}"),
        attempt(tmp_path, "bad", "erratum", "disagrees", paper=f"EF21: A New {NASTY}"),
        Attempt(experiment("absent"), reason=f"needs {NASTY}"),
        Attempt(experiment("broken"), reason="it broke", failed=True),
    ]
    assert [(one.state, one.bad) for one in attempts] == [
        ("agrees", False),
        ("erratum", False),
        ("disagrees", True),
        ("not run", False),
        ("failed", True),
    ]
    page, reader = page_of(attempts, tmp_path)
    assert reader.tags.count("article") == 5
    assert not {"script", "iframe", "object", "link", "base"} & set(reader.tags)
    # Links go to the page itself, to files beside it and to the papers; figures are in the page.
    images = [link for link in reader.links if link.startswith("data:image/png;base64,")]
    names = ("good", "odd", "bad")
    assert [base64.b64decode(image.partition(",")[2]) for image in images] == [
        (tmp_path / f"{name}.png").read_bytes() for name in names
    ]
    others = [link for link in reader.links if link not in images]
    assert [link for link in others if ":" in link] == [CITED["EF21: A New"]]
    anchors = {link[1:] for link in others if link.startswith("#")}
    assert anchors == {*names, "absent", "broken"} == set(reader.ids)
    files = {link for link in others if ":" not in link and not link.startswith("#")}
    assert files == {f"{name}.{kind}" for name in names for kind in ("csv", "json", "png")}
    assert all((tmp_path / file).exists() for file in files)
    assert "url(" not in page
    assert "@import" not in page
    text = " ".join("".join(reader.text).split())
    for said in ("Shows", "claim", "got", "note", "Instead", "Not run: needs"):
        assert f"{said} {NASTY}" in text
    for said in ("✓ agrees", "! erratum", "✗ disagrees", "– not run", "✗ failed", "1 erratum, 1 disagrees"):
        assert said in text


def test_a_page_that_stands_alone_links_to_no_file(tmp_path):
    good = attempt(tmp_path, "good", "agrees")
    page = render([good], tmp_path, links=False, machine={"processor": NASTY})
    reader = Reader(page)
    assert [link for link in reader.links if not link.startswith("data:")] == ["#good"]
    assert f"processor {NASTY}" in " ".join("".join(reader.text).split())


def test_numbers_in_words(tmp_path):
    one, two = attempt(tmp_path, "one", "agrees"), attempt(tmp_path, "two", "agrees", "agrees")
    assert two.record.counts() == "2 agree"
    absent = Attempt(experiment("absent"))
    assert counts_of([one]) == "Of 1 experiment 1 agrees with the paper"
    assert counts_of([one, two, absent]) == "Of 3 experiments 2 agree with the paper, 1 was not run"
    said = [duration(seconds) for seconds in (0.04, 9.96, 42.4, 59.7, 185, 7440)]
    assert said == ["0.0 s", "10.0 s", "42 s", "1 min 0 s", "3 min 5 s", "2 h 4 min"]


def test_every_paper_is_cited():
    for one in EXPERIMENTS.values():
        assert [link for words, link in CITED.items() if words in one.paper], one.name
        assert re.fullmatch(r"[a-z0-9][a-z0-9-]*", one.name)
