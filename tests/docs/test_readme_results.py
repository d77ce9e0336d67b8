"""The table of step times in README.md is that of docs/results."""

import importlib.util
import json
from pathlib import Path

ROOT = Path(__file__).parents[2]


def module():
    spec = importlib.util.spec_from_file_location("readme", ROOT / "docs" / "results" / "readme.py")
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def test_the_readme_has_the_results():
    page = (ROOT / "README.md").read_text()
    assert module().render(page) == page, "run: python docs/results/readme.py"


def test_a_table_of_models_links_and_methods(tmp_path):
    rows = [
        {
            "model": "mlp-10m",
            "link": link,
            "rate": rate,
            "delay_ms": delay,
            "nodes": 4,
            "method": method,
            "step_ms": ms,
        }
        for link, rate, delay, steps in (
            ("1 Gbit/s", 1e9, 0.0, (400.0, 100.0)),
            ("100 Mbit/s", 1e8, 0.0, (2000.0, 125.0)),
            ("no limit", None, 0.0, (70.0, 90.0)),
            ("100 Mbit/s, 20 ms", 1e8, 20.0, (2100.0, 300.0)),
        )
        for method, ms in zip(("bf16-adamw", "recommended"), steps, strict=True)
    ]
    (tmp_path / "step-a.json").write_text(json.dumps({"rows": rows}))
    marked = "a\n<!-- results:step -->\nold\n<!-- /results:step -->\nb"
    lines = module().render(marked, tmp_path).splitlines()
    assert lines[2] == "| milliseconds a step | mlp-10m, 100 Mbit/s | mlp-10m, 1 Gbit/s |"
    assert lines[4] == "| DDP, bf16 all-reduce, AdamW | 2,000 | 400 |"
    assert lines[5] == "| **CompressedAdamW, 1 % in one bit** | 125 (16×) | 100 (4×) |"
    assert "old" not in lines
    assert module().render(marked, tmp_path / "absent") == marked.replace("old\n", "")
