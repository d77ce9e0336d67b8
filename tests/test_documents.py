"""Code in the documents runs."""

import re
from pathlib import Path

from laconic.testing import check_compressor

ROOT = Path(__file__).parents[1]


def test_the_compressor_of_the_contributing_guide():
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), flags=re.DOTALL)
    names: dict = {}
    exec(block, names)
    check_compressor(names["KeepFirst"](2))
