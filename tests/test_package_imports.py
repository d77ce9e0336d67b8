"""Imports between packages go one way, in the order of the design, and there are no circles of modules."""

import ast
from pathlib import Path

import pytest

import laconic

ROOT = Path(laconic.__file__).parent
CORE = {"layout", "kernels", "formats"}
MAY_IMPORT = {
    "layout": set(),
    "_arguments": set(),
    "_nearest": set(),
    "_host": set(),
    "_launch": set(),
    "_html": set(),
    "kernels": {"layout"},
    "formats": {"kernels", "layout"},
    "messages": CORE,
    "compressors": {*CORE, "messages", "_nearest"},
    "feedback": {*CORE, "messages", "compressors", "_nearest"},
    "wire": {*CORE, "messages", "_host"},
    "theory": {"compressors"},
    "testing": {*CORE, "messages", "compressors", "wire"},
    "comm": {*CORE, "_arguments", "messages", "feedback", "wire"},
    "session": {*CORE, "_arguments", "compressors", "feedback", "comm"},
    "ddp": {*CORE, "_arguments", "feedback", "comm", "session"},
    "optim": {*CORE, "_arguments", "compressors", "feedback", "comm", "session"},
    "integrations": {"feedback", "comm", "ddp", "optim"},
    "lab": {*CORE, "_arguments", "messages", "compressors", "feedback", "comm", "session", "optim", "theory"},
    "papers": {*CORE, "_html", "messages", "compressors", "feedback", "theory", "lab"},
    "network": set(),
    "demo": {*CORE, "compressors", "feedback", "comm", "optim", "network"},
    "bench": {
        *CORE,
        "messages",
        "compressors",
        "feedback",
        "wire",
        "comm",
        "lab",
        "demo",
        "network",
        "_launch",
    },
    "plan": {"layout", "comm", "session", "bench", "network"},
}
"""What each package imports besides itself and ``laconic``'s public names. ``cli`` imports what it likes."""


def name_of(path):
    return ".".join(("laconic", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")


MODULES = {name_of(path): path for path in sorted(ROOT.rglob("*.py"))}


def imports(source, module="laconic"):
    """The modules of laconic that a module's source imports, at its top or inside of functions."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            here = ".".join([*module.split(".")[: -node.level], node.module]) if node.level else node.module
            names = {f"{here}.{alias.name}" for alias in node.names}
            found |= {name if name in MODULES else here for name in names}
    return {name for name in found if name.split(".")[0] == "laconic"}


def package(module):
    return "laconic" if module == "laconic" else module.split(".")[1]


GRAPH = {name: imports(path.read_text(), name) for name, path in MODULES.items()}


@pytest.mark.parametrize("name", MAY_IMPORT)
def test_a_package_imports_what_lies_below_it(name):
    own = [module for module in MODULES if package(module) == name]
    assert own
    wrong = {
        (module, target)
        for module in own
        for target in GRAPH[module]
        if package(target) not in MAY_IMPORT[name] | {name, "laconic"}
    }
    assert wrong == set()


def test_every_package_has_its_place():
    assert {package(module) for module in MODULES} == {*MAY_IMPORT, "laconic", "__main__", "cli"}


@pytest.mark.parametrize(
    "name", ["kernels", "formats", "messages", "compressors", "feedback", "wire", "comm"]
)
def test_the_core_does_not_import_the_public_names(name):
    """They import the core, so that it would be a circle."""
    assert [m for m in MODULES if package(m) == name and "laconic" in GRAPH[m]] == []


def test_the_order_has_no_circle():
    placed = set()
    while left := [name for name in MAY_IMPORT if name not in placed]:
        ready = {name for name in left if MAY_IMPORT[name] <= placed}
        assert ready, left
        placed |= ready


def test_no_modules_import_each_other_in_a_circle():
    done, path = set(), []

    def visit(module):
        assert module not in path, [*path[path.index(module) :], module]
        if module in done:
            return
        path.append(module)
        for target in sorted(GRAPH.get(module, set()) - {"laconic", module}):
            visit(target)
        path.pop()
        done.add(module)

    for module in sorted(MODULES):
        visit(module)


def test_imports_inside_functions_are_seen():
    assert imports("def f():\n    from laconic.comm import Exchange") == {"laconic.comm"}
    assert imports("from .cases import f", "laconic.bench.wire") == {"laconic.bench.cases"}
