"""The API reference has every public name, and MkDocs' navigation every page."""

import importlib
import inspect
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
API = ROOT / "docs" / "api"
PACKAGES = sorted(
    set(re.findall(r"^::: (laconic[\w.]*)", "".join(p.read_text() for p in API.glob("*.md")), flags=re.M))
)


def listed() -> set[str]:
    found = set()
    for page in API.glob("*.md"):
        for package, options in re.findall(r"^::: (\S+)\n((?: +.*\n|\n)*)", page.read_text(), flags=re.M):
            found |= {f"{package}.{name}" for name in re.findall(r"^ +- (\w+)$", options, flags=re.MULTILINE)}
    return found


def public(package: str) -> dict[str, object]:
    """Classes and functions that a package has of its own, by name."""
    module = importlib.import_module(package)
    return {
        name: value
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (inspect.isclass(value) or inspect.isfunction(value))
        and (value.__module__ == package or value.__module__.startswith(f"{package}."))
    }


def test_every_public_name_is_in_the_reference():
    shown = {id(value) for name in listed() for value in [resolve(name)]}
    packages = [name for name in PACKAGES if not name.startswith("laconic.integrations.")]
    assert {"laconic.compressors", "laconic.comm", "laconic.optim", "laconic.lab"} <= set(packages)
    for package in ["laconic", *packages]:
        missing = [name for name, value in public(package).items() if id(value) not in shown]
        assert not missing, f"docs/api lacks {missing} of {package}"


def resolve(name: str) -> object:
    package, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(package), attribute)


@pytest.mark.parametrize("name", sorted(listed()))
def test_what_the_reference_lists_is_there(name):
    assert inspect.getdoc(resolve(name)), f"{name} has no docstring"


def test_every_page_is_in_the_navigation():
    navigation = re.findall(r"([\w/-]+\.md)\b", (ROOT / "mkdocs.yml").read_text())
    pages = [str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")]
    assert sorted(navigation) == sorted(pages)
