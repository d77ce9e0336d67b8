"""Which form runs: without numba, without a compiler, without a folder to write. In real processes."""

import io
import os
import pickle

import pytest
from processes import run_python

from laconic.kernels import _dispatch, keeps_compiled

SAME = """
import warnings
import torch
from laconic.kernels import SelectionTable, scatter_add_, select_segments, top_k_positions, top_k_segments
from laconic.kernels.reference.selection import top_k_segments_reference
from laconic.kernels.tables import Vectors

def work():
    x, memory = torch.randn(2, 9000, generator=torch.Generator().manual_seed(0))
    cuts = SelectionTable.of([0, 5000], [5000, 4000], [50, 40])
    found, expected = top_k_segments(x, memory, cuts), top_k_segments_reference(x, memory, cuts)
    assert torch.equal(found[0], expected[0]) and torch.equal(found[1], expected[1])
    before = memory.clone()
    select_segments(Vectors.flat(x, cuts.starts), Vectors.flat(memory, cuts.starts), cuts, move="track")
    places = found[0] + torch.tensor([0] * 50 + [5000] * 40)
    assert torch.equal(memory[places], before[places] + found[1])
    scatter_add_(before, places[None], found[1][None])
    assert torch.equal(before, memory)
    assert top_k_positions(x, 9).shape == (9,)

with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("always")
    work()
    work()
seen = [each for each in seen if each.category is RuntimeWarning]
print(len(seen), *(each.message for each in seen))
"""


def run(before: str, after: str = SAME, **environment: str) -> str:
    return run_python("-c", before + after, env={**os.environ, **environment}, timeout=250)


def test_without_numba_the_plain_form_runs_and_says_so_once():
    said = run("import sys; sys.modules['numba'] = None\n")
    assert said.startswith("1 laconic runs its slow plain loops")
    assert "pip install -U numba" in said


def test_where_compiling_fails_the_plain_form_runs_and_says_so_once():
    broken = """
from llvmlite.binding import ModuleRef
import numba.core.codegen as codegen
def fail(*_):
    raise RuntimeError("LLVM knows no such processor")
codegen.CPUCodegen._create_empty_module = fail
codegen.CodeLibrary.create_ir_module = fail
"""
    said = run(broken, NUMBA_DISABLE_JIT="0", NUMBA_CACHE_DIR=os.devnull)
    assert said.startswith("1 laconic runs its slow plain loops")
    assert "LLVM knows no such processor" in said


@pytest.mark.slow
def test_no_folder_to_keep_compiled_code_is_no_error(tmp_path):
    """A file where a folder should be stops even the administrator from writing."""
    blocked = tmp_path / "file"
    blocked.write_text("")
    source = tmp_path / "site"
    source.mkdir()
    copy = f"""
import pathlib, shutil, sys, laconic
package = pathlib.Path(laconic.__file__).parent
shutil.copytree(package, {str(source)!r} + "/laconic", ignore=shutil.ignore_patterns("__pycache__"))
pathlib.Path({str(source)!r}, "laconic/kernels/cpu/__pycache__").write_text("")
"""
    run(copy, "", PYTHONDONTWRITEBYTECODE="1")
    environment = {"HOME": str(blocked), "XDG_CACHE_HOME": str(blocked), "PYTHONDONTWRITEBYTECODE": "1"}
    before = f"""
import sys
sys.path.insert(0, {str(source)!r})
import laconic
assert laconic.__file__.startswith({str(source)!r}), laconic.__file__
"""
    assert run(before, **environment) == "0\n"


def test_a_cache_folder_that_cannot_be_made_is_no_error(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    decorated = """
from laconic.kernels.cpu._jit import loop
def one(x):
    return x + 1
assert loop(one)(1) == 2
"""
    run(decorated, "", NUMBA_CACHE_DIR=str(blocked))
    run("", decorated, NUMBA_CACHE_DIR=str(blocked))


@pytest.mark.parametrize("keeps", [True, False])
def test_whether_compiled_code_is_kept(keeps, monkeypatch):
    jit = _dispatch.cpu_kernels("_jit")
    if not keeps:
        monkeypatch.setattr(jit, "njit", _without_a_folder(jit.njit))
    assert keeps_compiled() == keeps


def _without_a_folder(njit):
    def refuse(cache=False, **options):
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return njit(**options)

    return refuse


def test_importing_laconic_does_not_import_numba():
    assert run("import sys, laconic\nprint('numba' in sys.modules)", "") == "False\n"


SCATTER = """
import torch
from laconic.kernels import kernel_counts, scatter_add_
out = torch.zeros(9000)
scatter_add_(out, torch.arange(9000)[None], torch.ones(1, 9000))
assert out.sum() == 9000
assert kernel_counts() == {"cpu:scatter": 1}, kernel_counts()
"""


def test_an_index_of_compiled_code_that_names_a_lost_class_is_replaced(tmp_path):
    run("", SCATTER, NUMBA_CACHE_DIR=str(tmp_path))
    (index,) = tmp_path.rglob("scatter.*.nbi")
    kept = index.read_bytes()
    version = io.BytesIO(kept)
    pickle.load(version)
    for lost in (b"claconic.kernels.cpu.scatter\nLost\n.", b"claconic.kernels.cpu.lost\nLost\n."):
        index.write_bytes(kept[: version.tell()] + lost)
        run("", SCATTER, NUMBA_CACHE_DIR=str(tmp_path))
        assert lost not in index.read_bytes()
