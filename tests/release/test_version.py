"""The version stands in one place, and the changelog has it."""

import re
import tomllib
from pathlib import Path

import laconic

ROOT = Path(__file__).parents[2]


def test_the_version_stands_in_one_place():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["dynamic"] == ["version"]
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "laconic.__version__"}
    assert "version" not in project["project"]
    assert not re.search(r"^version:", (ROOT / "CITATION.cff").read_text(), flags=re.MULTILINE)


def test_the_changelog_has_a_section_of_it():
    heads = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    assert laconic.__version__ in heads


def test_what_make_dist_checks_is_what_the_project_declares():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    script = (ROOT / "tests" / "release" / "check_dist.py").read_text()
    for name in (
        *project["optional-dependencies"],
        *(line.split(">")[0] for line in project["dependencies"]),
    ):
        assert f'"{name}"' in script, name
