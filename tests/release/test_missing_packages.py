"""An installation without numba and without the extras: it trains, and says in a sentence what is missing."""

import subprocess
import sys

BLOCK = "import sys; sys.modules.update(dict.fromkeys({!r}))\n"
TRAIN = """
import torch, laconic
model = torch.nn.Linear(50, 50)
optimizer = laconic.optim.CompressedAdamW(model.named_parameters(), lr=1e-3)
model(torch.ones(4, 50)).square().mean().backward()
optimizer.step()
optimizer.close()
print("stepped")
"""
LAB = """
try:
    from laconic.lab import run
except ModuleNotFoundError as error:
    print(error)
"""
COMMAND = "from laconic.cli import main; main()"


def without(packages: list[str], code: str, *arguments: str):
    command = [sys.executable, "-c", BLOCK.format(packages) + code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)


def test_without_numba_a_step_is_slow_and_says_so():
    done = without(["numba", "llvmlite", "click", "rich", "scipy", "sklearn", "matplotlib"], TRAIN)
    assert done.stdout == "stepped\n", done.stderr
    assert done.stderr.count("numba is missing") == 1
    assert "pip install -U numba" in done.stderr


def test_without_the_extras_lab_and_commands_name_them():
    assert without(["scipy"], LAB).stdout == "laconic.lab needs scipy: pip install 'laconic[lab]'\n"
    done = without(["click"], COMMAND, "plan", "--help")
    assert done.returncode == 2
    assert done.stderr == "laconic: the command line needs click: pip install 'laconic[lab,cli]'\n"
    done = without(["sklearn"], COMMAND, "compare")
    assert done.returncode == 2
    assert done.stderr == "laconic: this command needs sklearn: pip install 'laconic[lab,cli]'\n"
