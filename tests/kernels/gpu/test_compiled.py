"""What Triton makes of the kernels for real GPUs: no instruction that rounds otherwise."""

import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

TARGETS = ["sm_80", "sm_90"]
MODULES = {
    *(
        "candidates",
        "compaction",
        "short",
        "philox",
        "rounding",
        "sums",
        "scatter",
        "blocks",
        "codes",
        "segments",
    ),
    *("segment_sums", "optimizer", "receive", "wire_put", "wire_get", "checksum"),
}
INEXACT = {
    "a fused multiply-add": r"\b(fma|mad)\.[a-z.]*(f16|bf16|f32|f64)",
    "arithmetic that ptxas may fuse": r"\b(add|sub|mul)\.(f16|bf16|f32|f64)",
    "an approximate division": r"\bdiv\.(approx|full)",
    "an approximate function": r"\.approx\b",
    "flushing of subnormal numbers": r"\.ftz\b",
    "an atomic addition of floating-point numbers": r"\b(atom|red)\.[a-z0-9_.]*(f16|bf16|f32|f64)",
}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed"),
]


def faults(ptx):
    """What in the PTX makes results differ from PyTorch's on a CPU."""
    code = re.sub(r"//.*", "", ptx)
    return [fault for fault, pattern in INEXACT.items() if re.search(pattern, code)]


@pytest.fixture(scope="module")
def compiled(request, tmp_path_factory):
    """Names and PTX of all kernels for a target, from a process in which Triton compiles."""
    folder = tmp_path_factory.mktemp(request.param)
    env = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    env["TRITON_CACHE_DIR"] = str(folder / "cache")
    script = Path(__file__).with_name("aot.py")
    done = subprocess.run(
        [sys.executable, script, request.param, folder], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return [
        (name, (folder / file).read_text())
        for name, file in json.loads((folder / "kernels.json").read_text())
    ]


@pytest.mark.parametrize("compiled", TARGETS, indirect=True)
def test_no_kernel_rounds_otherwise(compiled):
    kernels = [(name, ptx) for name, ptx in compiled if name != "contracting"]
    assert {name.partition(".")[0] for name, _ in kernels} == MODULES
    assert {name: found for name, ptx in kernels if (found := faults(ptx))} == {}
    divides = {name for name, ptx in kernels if "div.rn.f32" in ptx}
    assert divides == {"rounding.round_tile", "blocks.quantize", "optimizer.adamw_tile"}
    # A kernel that contracts is noticed: the check can fail.
    found = faults(dict(compiled)["contracting"])
    assert found[0] == "a fused multiply-add"
    assert "an approximate division" in found
    assert "flushing of subnormal numbers" in found


@pytest.mark.parametrize(
    "line", ["fma.rn.f32 %f1, %f2;", "mul.f32 %f1;", "div.full.f32 %f1;", "sqrt.approx.f32 %f1;"]
)
def test_one_bad_line_is_noticed(line):
    assert len(faults(line)) == 1


def test_integers_may_be_multiplied_and_added():
    assert faults("mad.lo.s32 %r1; add.s64 %rd1; atom.global.gpu.relaxed.add.u32 %r1; // fma.rn.f32") == []
