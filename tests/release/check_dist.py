"""What ``make dist`` made: files, metadata, and a step of training in an environment with nothing else.

python check_dist.py DIST
"""

import importlib.util
import re
import subprocess
import sys
import tarfile
from importlib.metadata import metadata, version
from pathlib import Path
from zipfile import ZipFile


def check_files(dist: Path) -> None:
    """One sdist and one wheel, with the package, its templates and nothing that users do not need."""
    (wheel,), (sdist,) = dist.glob("*.whl"), dist.glob("*.tar.gz")
    inside = ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in inside} == {"laconic", f"laconic-{version('laconic')}.dist-info"}
    assert not [name for name in inside if "test_" in name or "conftest" in name or "/benchmarks/" in name]
    for name in ("py.typed", "_html/run.html", "kernels/cpu/topk.py", "kernels/gpu/selection.py"):
        assert f"laconic/{name}" in inside, name
    with tarfile.open(sdist) as archive:
        roots = {name.split("/")[1] for name in archive.getnames() if "/" in name}
    assert {"src", "pyproject.toml", "README.md", "LICENSE"} <= roots, roots
    assert not roots & {"tests", "benchmarks", "docs", "examples"}, roots


def check_metadata() -> None:
    """Version, Python, license, README and what is installed with the library."""
    import laconic

    found = metadata("laconic")
    assert found["Version"] == laconic.__version__ == version("laconic")
    assert found["Requires-Python"] == ">=3.11"
    assert found["License-Expression"] == "Apache-2.0"
    assert found["Description-Content-Type"] == "text/markdown"
    required = [line for line in found.get_all("Requires-Dist") if "extra ==" not in line]
    names = sorted(re.match(r"[\w-]+", line).group() for line in required)
    assert names == ["filelock", "numba", "numpy", "torch"]
    assert set(found.get_all("Provides-Extra")) == {"lab", "cli", "dev"}


def check_use() -> None:
    """One step of the optimiser, and clear sentences where an extra is missing."""
    import torch

    import laconic

    assert "site-packages" in laconic.__file__
    model = torch.nn.Linear(100, 100)
    optimizer = laconic.optim.CompressedAdamW(model.named_parameters(), lr=1e-3, weight_decay=0.0)
    before = model.weight.detach().clone()
    model(torch.ones(4, 100)).square().mean().backward()
    optimizer.step()
    assert 0 < (model.weight != before).sum() <= 3 * 41  # of each 4,096 begun
    optimizer.close()
    if importlib.util.find_spec("click") is None:
        command = Path(sys.executable).with_name("laconic")
        done = subprocess.run([command, "compare"], capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert done.stderr == "laconic: the command line needs click: pip install 'laconic[lab,cli]'\n"


if __name__ == "__main__":
    check_files(Path(sys.argv[1]))
    check_metadata()
    check_use()
    print(f"laconic {version('laconic')}: files, metadata, a step of training")
