"""The GPU kernels under Triton's interpreter, in processes of their own.

Triton decides when it is first imported whether it interprets, and PyTorch may have imported it already.
``TRITON_INTERPRET=1 pytest tests/kernels/gpu/interpreted`` runs the same tests one by one.
"""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

FILES = sorted(Path(__file__).with_name("interpreted").glob("test_*.py"))

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed"),
]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_kernels(file):
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", file],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_laconic_itself_imports_no_triton():
    code = "import sys, laconic.kernels.selection; assert not any('kernels.gpu' in m for m in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
