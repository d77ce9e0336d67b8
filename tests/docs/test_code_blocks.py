"""Code and commands in README.md, CONTRIBUTING.md and docs/: they run, or name what exists."""

import ast
import inspect
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
import torch
import torch.distributed as dist
from processes import TORCHRUN, run_python
from torch import nn

import laconic
from laconic.cli._group import CommandGroup
from laconic.cli._group import laconic as command_line
from laconic.testing import check_compressor

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text(), flags=re.DOTALL | re.MULTILINE)


def page_ids(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_the_compressor_of_the_contributing_guide():
    (block,) = blocks(ROOT / "CONTRIBUTING.md", "python")
    names: dict = {}
    exec(block, names)
    check_compressor(names["KeepFirst"](2))


@pytest.fixture
def one_rank(monkeypatch):
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0", "RANK": "0", "WORLD_SIZE": "1"}
    for name, value in (address | {"GLOO_SOCKET_IFNAME": "lo"}).items():
        monkeypatch.setenv(name, value)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("one_rank")
def test_the_readme_trains_saves_resumes_and_says_what_was_sent(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    recipe, save, stats, _ = blocks(ROOT / "README.md", "python")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(100, 200), nn.Tanh(), nn.Linear(200, 1))
    names = {"torch": torch, "model": model, "rank": 0}
    x, losses = torch.randn(64, 100), []

    def train(steps: int) -> None:
        for _ in range(steps):
            loss = (model(x) - x.sum(1, keepdim=True) / 10).square().mean()
            losses.append(loss.item())
            names["optimizer"].zero_grad()
            loss.backward()
            names["optimizer"].step()

    exec(recipe, names)
    train(30)
    assert losses[-1] < 0.7 * losses[0]
    before = names["optimizer"].state_dict()
    exec(save, names)
    assert names["optimizer"].state_dict().keys() == before.keys()
    train(1)
    exec(stats, names)
    assert re.fullmatch(r"nan% of the bytes of a bf16 all-reduce, 0\.0 s waiting\n", capsys.readouterr().out)


def test_the_recipe_of_the_readme_has_five_lines():
    lines = [line for line in blocks(ROOT / "README.md", "python")[0].splitlines() if line.strip()]
    assert len(lines) <= 5


def test_the_lab_of_the_readme_converges():
    names: dict = {}
    exec(blocks(ROOT / "README.md", "python")[-1], names)
    one, sixteen, most = names["result"].grad_norm2[:, -1]
    assert most < sixteen < one < 0.5


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_readme_shows_what_compare_prints(tmp_path):
    shown = next(
        text for text in blocks(ROOT / "README.md", "console") if text.startswith("$ laconic compare")
    )
    run = [sys.executable, "-c", "from laconic.cli import main; main()", "compare"]
    done = subprocess.run(run, capture_output=True, text=True, timeout=580, check=True, cwd=tmp_path)
    expected, printed = (
        [re.sub(r"\s+", " ", line).strip() for line in text.splitlines() if line.strip()]
        for text in (shown.partition("\n")[2], done.stdout)
    )
    assert len(expected) == len(printed)
    for old, new in zip(expected, printed, strict=True):
        left, right = old.split(), new.split()
        assert len(left) == len(right), (old, new)
        for a, b in zip(left, right, strict=True):
            if a != b:  # the last digits are the processor's, and a round more or less may follow
                assert number(a) == pytest.approx(number(b), rel=0.03), (old, new)


def number(word: str) -> float:
    scales = {"k": 1e3, "M": 1e6, "G": 1e9, "×": 1.0}
    return float(word[:-1]) * scales[word[-1]] if word[-1] in scales else float(word)


def test_the_quick_start_trains_on_two_ranks_and_goes_on(tmp_path):
    script, *_ = blocks(ROOT / "docs" / "quick-start.md", "python")
    (tmp_path / "train.py").write_text(script)
    found = []
    for _ in range(2):
        printed = run_python(*TORCHRUN, "train.py", cwd=tmp_path)
        found += re.findall(r"^step (\d+)  loss (\S+)$", printed, flags=re.MULTILINE)
        (share,) = re.findall(r"([\d.]+)% of a bf16 all-reduce", printed)
        assert float(share) < 10
    assert [int(step) for step, _ in found] == [20, 40, 60, 80, 100, 120]
    assert float(found[-1][1]) < float(found[0][1])


@pytest.mark.parametrize("path", PAGES, ids=page_ids)
def test_code_names_what_the_library_has(path):
    for block in blocks(path, "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.Attribute) and (name := dotted(node)) and name.startswith("laconic."):
                resolve(name)
            elif isinstance(node, ast.Call) and (name := dotted(node.func)) and name.startswith("laconic."):
                signature = inspect.signature(resolve(name))
                names = [keyword.arg for keyword in node.keywords if keyword.arg]
                signature.bind_partial(*[None] * len(node.args), **dict.fromkeys(names))


def dotted(node: ast.expr) -> str | None:
    if isinstance(node, ast.Name):
        return node.id
    inner = dotted(node.value) if isinstance(node, ast.Attribute) else None
    return f"{inner}.{node.attr}" if inner else None


def resolve(name: str):
    if name.startswith("laconic.integrations"):
        pytest.importorskip(name.split(".")[2])
    found = laconic
    for part in name.split(".")[1:]:
        found = getattr(found, part)
    return found


@pytest.mark.parametrize("path", PAGES, ids=page_ids)
def test_commands_have_the_options_that_are_shown(path):
    for block in blocks(path, "console"):
        for line in re.sub(r"\\\n", " ", block).splitlines():
            _, found, words = line.partition("laconic ")
            if line.startswith("$ ") and found and not re.search(r"\bpip|git |install|cp ", line):
                check_command(shlex.split(words, comments=True))


def check_command(words: list[str]) -> None:
    command: click.Command = command_line
    context = click.Context(command)
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        name, *words = words
        command = command.get_command(context, name) or pytest.fail(f"no command {name}")
    known = {option for parameter in command.params for option in parameter.opts}
    shown = {word for word in words if re.match(r"--\w", word)}
    assert shown <= known | {"--help", "--version"}


def test_a_command_that_does_not_exist_would_be_seen():
    assert isinstance(command_line, CommandGroup)
    with pytest.raises(AssertionError):
        check_command(["compare", "--no-such-option"])
    with pytest.raises(ValueError, match="comprae"):
        check_command(["comprae"])


@pytest.mark.parametrize("path", PAGES, ids=page_ids)
def test_links_and_paths_lead_somewhere(path):
    text = path.read_text()
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.M)):
        file, _, anchor = target.partition("#")
        if "://" in target or path.name == "index.md":
            continue
        there = (path.parent / file).resolve() if file else path
        assert there.exists(), target
        if anchor and there.suffix == ".md":
            heads = re.findall(r"^#+ (.*)$", there.read_text(), flags=re.MULTILINE)
            assert anchor in [re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads], (
                target
            )
    for name in re.findall(r"`((?:src|tests|examples|docs|benchmarks)/[\w./-]+)`", text):
        assert (ROOT / name).exists() or "NAME" in name, name
