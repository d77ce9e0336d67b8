"""Imports between the kernels' modules go one way: reference and tables, then cpu and gpu, then dispatch."""

import ast
from pathlib import Path

import pytest

import laconic.kernels

ROOT = Path(laconic.kernels.__file__).parent
PACKAGE = "laconic.kernels"
SHARED = {"_code_dtypes", "_compiling", "_selection_table", "levels", "position_plan", "received", "tables"}
"""Constants, tables, small types and the lock of compilation: what all forms of a kernel may import."""
MAY_IMPORT = {"shared": set(), "reference": {"shared"}, "cpu": {"shared"}, "gpu": {"shared", "reference"}}
"""What the modules of each layer import besides their own layer's; dispatching modules import all but gpu."""


def name_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join((PACKAGE, *parts)).removesuffix(".__init__")


MODULES = {name_of(path): path for path in sorted(ROOT.rglob("*.py"))}


def layer(module):
    first = module.removeprefix(f"{PACKAGE}.").partition(".")[0]
    if first in ("reference", "cpu", "gpu"):
        return first
    return "shared" if first in SHARED else "dispatch"


def imports(source):
    """The modules of kernels that a source imports, at its top or inside of functions."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in MODULES else node.module for name in names}
    return {name for name in found if name.split(".")[:2] == PACKAGE.split(".")}


def wrong_arrows(module, targets):
    """Those of the imports that a module of this layer must not have."""
    own = layer(module)
    if own == "dispatch":
        return {target for target in targets if layer(target) == "gpu"}
    return {target for target in targets if layer(target) not in MAY_IMPORT[own] | {own}}


def circle(graph):
    """Modules that import each other in a circle, or None."""
    done, path = set(), []

    def visit(module):
        if module in path:
            return path[path.index(module) :]
        if module in done:
            return None
        path.append(module)
        found = next(filter(None, map(visit, sorted(graph.get(module, ())))), None)
        path.pop()
        done.add(module)
        return found

    return next(filter(None, map(visit, sorted(graph))), None)


GRAPH = {name: imports(path.read_text()) for name, path in MODULES.items()}


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_one_way(module):
    assert wrong_arrows(module, GRAPH[module]) == set()


def test_there_is_no_circle():
    assert circle(GRAPH) is None


def test_the_shared_modules_are_there():
    assert {f"{PACKAGE}.{name}" for name in SHARED} <= set(MODULES)


def test_wrong_imports_are_seen():
    lazy = "def f():\n    from laconic.kernels.sums import norm"
    assert wrong_arrows(f"{PACKAGE}.gpu.sums", imports(lazy)) == {f"{PACKAGE}.sums"}
    assert wrong_arrows(f"{PACKAGE}.reference.sums", imports(f"from {PACKAGE}.cpu import sums"))
    assert wrong_arrows(f"{PACKAGE}.cpu.sums", imports(f"import {PACKAGE}._dispatch"))
    assert wrong_arrows(f"{PACKAGE}.cpu.sums", imports(f"from {PACKAGE} import Levels")) == {PACKAGE}
    assert wrong_arrows(f"{PACKAGE}.sums", imports(f"from {PACKAGE} import gpu"))
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c"]
