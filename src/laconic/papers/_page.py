"""HTML page of all experiments, self-contained: no network, no scripts."""

from base64 import b64encode
from collections.abc import Iterator, Sequence
from html import escape
from itertools import groupby
from pathlib import Path
from string import Template

from laconic.papers._experiment import Experiment, Verdict
from laconic.papers._write import Attempt, Record, counted

CITED = {
    "EF21: A New": "https://arxiv.org/abs/2106.05203",
    "On Biased Compression": "https://arxiv.org/abs/2002.12410",
}
"""Address of a paper, by words of its title."""

_MARKS = {"agrees": "✓", "erratum": "!", "disagrees": "✗", "failed": "✗", "not run": "–"}
_HEADS = ("outcome", "the paper", "this run", "why")

_STYLE = """
:root { color-scheme: light dark; --ink: #1f2328; --soft: #59636e; --line: #d1d9e0; --page: #ffffff;
  --card: #f6f8fa; --link: #0969da; --good: #1a7f37; --odd: #8a5a00; --bad: #c21c29; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --soft: #9da7b3; --line: #3d444d;
  --page: #0d1117; --card: #161b22; --link: #6cb1ff; --good: #4ac26b; --odd: #e0b040; --bad: #ff7b72; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 64rem; background: var(--page); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.7rem; margin: 1rem 0 0.5rem; }
h2 { font-size: 1.25rem; margin: 3rem 0 1rem; padding-bottom: 0.3rem; border-bottom: 1px solid var(--line); }
h3 { font-size: 1.15rem; margin: 0; }
a { color: var(--link); }
article { margin: 0 0 2.5rem; padding: 1rem; border: 1px solid var(--line); border-radius: 0.5rem; }
article > header { display: flex; flex-wrap: wrap; gap: 0.2rem 0.8rem; align-items: baseline; }
img { display: block; max-width: 100%; height: auto; margin: 1rem auto; padding: 0.4rem; background: #ffffff;
  border: 1px solid var(--line); border-radius: 0.3rem; }
table { width: 100%; border-collapse: collapse; font-size: 0.93rem; }
th, td { padding: 0.4rem 0.6rem; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--line); }
thead th { color: var(--soft); font-weight: 600; }
tbody th { font-weight: 400; font-style: italic; background: var(--card); }
.number { text-align: right; white-space: nowrap; }
.soft { color: var(--soft); font-size: 0.9rem; }
.aside { padding: 0.5rem 0.8rem; background: var(--card); border-left: 0.25rem solid var(--line); }
.outcome { font-weight: 600; white-space: nowrap; }
.agrees { color: var(--good); } .erratum { color: var(--odd); } .disagrees, .failed { color: var(--bad); }
.not-run { color: var(--soft); }
@media (max-width: 44rem) {
  thead { display: none; }
  tr, td, tbody th { display: block; border: 0; }
  tr { padding: 0.5rem 0; border-bottom: 1px solid var(--line); }
  td, td.number { padding: 0.1rem 0; text-align: left; }
  td[data-label]::before { content: attr(data-label) ": "; color: var(--soft); }
}
"""

_PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>The papers, reproduced by Laconic</title>
<style>$style</style>
</head>
<body>
<h1>The papers, reproduced by Laconic</h1>
<p>$counts.</p>
<p class="soft">An <em>erratum</em> is a place where the paper is known to be wrong; the run shows what is
right. $quick</p>
<table>
<thead><tr><th>experiment</th><th>in the paper</th><th>outcome</th><th>verdicts</th>
<th class="number">time</th></tr></thead>
$summary
</table>
$sections
</body>
</html>
""")

_ARTICLE = Template("""<article id="$name">
<header><h3>$name</h3><span class="soft">$figure</span>$outcome</header>
<p>$shows</p>
$body
</article>
""")


def render(attempts: Sequence[Attempt], folder: Path) -> str:
    """The page, as text.

    Args:
        attempts: experiments that ran and that did not, grouped by paper.
        folder: the folder of figures and page; links are relative to it.
    """
    papers = [(paper, list(group)) for paper, group in groupby(attempts, lambda a: a.experiment.paper)]
    return _PAGE.substitute(
        style=_STYLE,
        counts=escape(counts_of(attempts)),
        quick=_quick(attempts),
        summary="\n".join(_summary(paper, group) for paper, group in papers),
        sections="\n".join(_section(paper, group, folder) for paper, group in papers),
    )


def counts_of(attempts: Sequence[Attempt]) -> str:
    """Number of experiments by outcome, in words."""
    words = {
        "agrees": ("agrees with the paper", "agree with the paper"),
        "erratum": ("agrees but for known errata", "agree but for known errata"),
        "disagrees": ("disagrees", "disagree"),
        "failed": ("failed", "failed"),
        "not run": ("was not run", "were not run"),
    }
    total = f"{len(attempts)} experiment{'s' if len(attempts) > 1 else ''}"
    return f"Of {total} {counted([attempt.state for attempt in attempts], words)}"


def duration(seconds: float) -> str:
    """A duration in words: 8.3 s, 42 s, 3 min 5 s, 2 h 4 min."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _quick(attempts: Sequence[Attempt]) -> str:
    if any(attempt.record and attempt.record.key.quick for attempt in attempts):
        return "These are quick runs, smaller or shorter than the full ones."
    return ""


def _outcome(state: str) -> str:
    return f'<span class="outcome {state.replace(" ", "-")}">{_MARKS[state]} {state}</span>'


def _summary(paper: str, attempts: Sequence[Attempt]) -> str:
    rows = "\n".join(map(_summary_row, attempts))
    return f'<tbody>\n<tr><th colspan="5">{escape(paper)}</th></tr>\n{rows}\n</tbody>'


def _summary_row(attempt: Attempt) -> str:
    name, record = escape(attempt.experiment.name), attempt.record
    cells = [
        _cell("experiment", f'<a href="#{name}">{name}</a>'),
        _cell("in the paper", escape(attempt.experiment.figure)),
        _cell("outcome", _outcome(attempt.state)),
    ]
    if record is None:
        cells.append(f'<td colspan="2">{escape(attempt.reason)}</td>')
    else:
        cells.append(_cell("verdicts", escape(record.counts())))
        cells.append(_cell("time", duration(record.seconds), "number"))
    return f"<tr>{''.join(cells)}</tr>"


def _cell(label: str, inside: str, style: str = "") -> str:
    kind = f' class="{style}"' if style else ""
    return f'<td{kind} data-label="{label}">{inside}</td>'


def _section(paper: str, attempts: Sequence[Attempt], folder: Path) -> str:
    link = next((link for words, link in CITED.items() if words in paper), None)
    cited = f'<p class="soft"><a href="{link}">{link}</a></p>\n' if link else ""
    articles = "".join(_article(attempt, folder) for attempt in attempts)
    return f"<section>\n<h2>{escape(paper)}</h2>\n{cited}{articles}</section>"


def _article(attempt: Attempt, folder: Path) -> str:
    about, record = attempt.experiment, attempt.record
    body = [f'<p class="aside">{escape(about.stands_for)}</p>'] if about.stands_for else []
    if record is None:
        body.append(f'<p class="aside">{escape(attempt.state.capitalize())}: {escape(attempt.reason)}</p>')
    else:
        body += _body(about, record, folder)
    return _ARTICLE.substitute(
        name=escape(about.name),
        figure=escape(about.figure),
        outcome=_outcome(attempt.state),
        shows=escape(about.shows),
        body="\n".join(body),
    )


def _body(about: Experiment, record: Record, folder: Path) -> Iterator[str]:
    name = escape(about.name)
    png = b64encode((folder / f"{about.name}.png").read_bytes()).decode()
    words = escape(f"{about.figure}: {about.shows}")
    yield f'<img src="data:image/png;base64,{png}" alt="{words}">'
    heads = "".join(f"<th>{head}</th>" for head in _HEADS)
    yield f"<table>\n<thead><tr>{heads}</tr></thead>\n<tbody>"
    yield from map(_verdict_row, record.verdicts)
    yield "</tbody>\n</table>"
    if record.notes:
        yield f"<ul>{''.join(f'<li>{escape(note)}</li>' for note in record.notes)}</ul>"
    made = ", ".join(f"{package} {number}" for package, number in record.versions.items())
    size = "quick" if record.key.quick else "full"
    links = (("numbers", "csv"), ("verdicts", "json"), ("figure", "png"))
    files = ", ".join(f'<a href="{name}.{kind}">{what} ({kind.upper()})</a>' for what, kind in links)
    yield f'<p class="soft">{files}. {size.capitalize()} run, {duration(record.seconds)}; {escape(made)}.</p>'


def _verdict_row(verdict: Verdict) -> str:
    inside = (_outcome(verdict.outcome), *map(escape, (verdict.claim, verdict.got, verdict.why)))
    return f"<tr>{''.join(_cell(head, cell) for head, cell in zip(_HEADS, inside, strict=True))}</tr>"
