"""``aot.py`` imports Triton, which may be missing: it is run, never imported."""

collect_ignore = ["aot.py"]
