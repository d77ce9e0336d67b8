"""The page on writing one's own compressor: its code as a user would have it, and plugins that go wrong."""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "your-own-compressor.md").read_text()
COMPRESSOR, USE, TRAIN = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
(PROJECT,) = re.findall(r"```toml\n(.*?)```", PAGE, flags=re.DOTALL)


def install(folder: Path, project: str, **modules: str) -> None:
    """What pip makes of a pyproject.toml and its modules: the modules, and beside them their metadata."""
    read = tomllib.loads(project)["project"]
    name, version = read["name"], read["version"]
    for module, text in modules.items():
        (folder / f"{module}.py").write_text(text)
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    groups = read["entry-points"].items()
    lines = [line for group, names in groups for line in (f"[{group}]", *map(" = ".join, names.items()))]
    (info / "entry_points.txt").write_text("\n".join(lines))


def plugin(folder: Path, package: str, text: str = "", **names: str) -> None:
    points = "\n".join(f'"{name}" = "{value}"' for name, value in names.items())
    head = f'[project]\nname = "{package}"\nversion = "0.1"\n'
    install(folder, f'{head}[project.entry-points."laconic.compressors"]\n{points}\n', **{package: text})


def python(folder: Path, *arguments: str, timeout: float = 120):
    settings = {
        "PYTHONPATH": os.pathsep.join((str(folder), os.environ.get("PYTHONPATH", ""))),
        "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": "lo",
    }
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
        timeout=timeout,
        check=False,
        env=os.environ | settings,
    )


def laconic(folder: Path, *arguments: str):
    return python(folder, "-c", "from laconic.cli import main; main()", *arguments)


PARSE = """
import sys
from laconic.compressors import parse_compressor
for spec in sys.argv[1:]:
    try:
        print(repr(parse_compressor(spec)))
    except ValueError as error:
        print(error)
"""


def parsed(folder: Path, *specs: str) -> list[str]:
    """What each name means, or why it is refused."""
    return python(folder, "-c", PARSE, *specs).stdout.splitlines()


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A folder on the path in which the page's package is installed."""
    folder = tmp_path_factory.mktemp("own")
    install(folder, PROJECT, loudest=COMPRESSOR)
    (folder / "use.py").write_text(USE)
    (folder / "train.py").write_text(TRAIN)
    return folder


def test_it_has_twenty_lines():
    lines = [line for line in COMPRESSOR.splitlines() if line.strip() and not line.startswith("#")]
    assert len(lines) <= 20


def test_it_is_checked_packed_and_compared_as_an_object_and_by_name(own):
    done = python(own, "use.py")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Loudest(share=0.3) keeps its promises\n")
    rows = [line.split() for line in done.stdout.splitlines() if line.startswith(("dcgd ", "ef21 "))]
    settings = ["--nodes", "4", "--methods", "dcgd,ef21", "--multiples", "1,16", "--rounds", "300"]
    done = laconic(own, "compare", *settings, "--compressor", "loudest:0.3", "--json")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)["summary"]
    assert rows == [[row["method"], str(row["rounds"]), str(row["grad_norm2"])] for row in summary]
    assert summary[1]["grad_norm2"] < 1e-4


def test_it_stands_in_the_table(own):
    done = laconic(own, "compressors", "--dim", "5", "--k", "2")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.splitlines()[-2].split() == ["loudest", "0.5", "1", "0.5", "2", "-", "2"]
    done = laconic(own, "compressors", "--dim", "5", "--json", "loudest:1")
    assert json.loads(done.stdout)[0]["delta"] == 5.0


def test_its_arguments_are_read_like_those_of_others(own):
    said = parsed(own, "loudest:1", "loudst", "loudest:much", "loudest:0.5:2")
    assert said[0] == "Loudest(share=1.0)"
    assert "did you mean 'loudest'" in said[1]
    assert "cannot read 'much' in 'loudest:much'; write loudest[:SHARE]" in said[2]
    assert "has 2 arguments; write loudest[:SHARE]" in said[3]
    done = laconic(own, "compressors", "loudest:2")
    assert (done.returncode, done.stderr) == (2, "laconic: the share must lie in (0, 1], got 2.0\n")


def test_it_trains_in_two_processes(own):
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--rdzv-endpoint", "localhost:0"]
    launcher += ["--rdzv-backend", "c10d", "--local-addr", "127.0.0.1"]
    done = python(own, *launcher, "train.py")
    assert done.returncode == 0, done.stderr
    losses = [float(line.split()[-1]) for line in done.stdout.splitlines() if line.startswith("step")]
    assert len(losses) == 3
    assert losses[-1] < 0.5 * losses[0]
    (share,) = re.findall(r"(\S+) % of a bf16 all-reduce", done.stdout)
    assert float(share) < 60


KINDS = """
import torch
from laconic import Cast, TopK

def of_kinds(k: "int | float", name: str, plain: bool, dtype: torch.dtype, extra=None):
    print("made with", k, name, plain, dtype)
    return TopK(k)

def unannotated(k):
    return TopK(k)

def wrong() -> None:
    return 5

def count(k: int):
    return TopK(k)

def fails():
    raise RuntimeError("no licence")
"""


def test_a_package_that_goes_wrong_is_named_and_hides_nothing(tmp_path):
    plugin(tmp_path, "absent", gone="no_such_module:Anything")
    plugin(tmp_path, "first", KINDS, **{"top-k": "first:count", "twice": "first:count", "a+b": "first:count"})
    plugin(tmp_path, "second", KINDS, twice="second:count", wrong="second:wrong", fails="second:fails")
    plugin(
        tmp_path, "third", KINDS, kinds="third:of_kinds", unannotated="third:unannotated", count="third:count"
    )
    done = laconic(tmp_path, "compressors", "--dim", "1000", "--k", "10")
    assert done.returncode == 0, done.stderr
    shown = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines() if line.strip()}
    assert shown["count:10"] == shown["top-k:10"]
    assert not {"gone", "twice", "a+b", "wrong", "fails"} & {name.split(":")[0] for name in shown}
    for expected in (
        "the compressor 'gone' of absent 0.1 (no_such_module:Anything) cannot be used: ModuleNotFoundError",
        "the compressor 'top-k' of first 0.1 (first:count) is left out: Laconic has one of that name",
        "the compressor 'a+b' of first 0.1 (first:count) is left out: a name has no colon, plus or space",
        "the compressor 'unannotated' of third 0.1 (third:unannotated) cannot be used: its parameter",
        "the compressor 'wrong' of second 0.1 (second:wrong) cannot be used: it made a int",
        "the compressor 'fails' cannot be shown: RuntimeError: no licence",
        "kinds:K:NAME:PLAIN:DTYPE is installed too",
    ):
        assert expected in done.stderr, done.stderr
    assert re.search(
        r"'twice' of (first|second) 0.1 .* and (first|second) 0.1 .* is left out: only one", done.stderr
    )
    specs = (
        "kinds:0.5:x:true:bf16",
        "gone",
        "twice",
        "wrong",
        "kinds:1:x:maybe:bf16",
        "kinds:1:x:true:bf16:y",
    )
    said = parsed(tmp_path, *specs)
    assert said[:2] == ["made with 0.5 x True torch.bfloat16", "TopK(k=0.5)"]
    for line, expected in zip(
        said[2:],
        (
            "No module named 'no_such_module'",
            "unknown compressor 'twice'",
            "not a laconic.Compressor",
            "cannot read 'maybe'",
            "write kinds:K:NAME:PLAIN:DTYPE",
        ),
        strict=True,
    ):
        assert expected in line
