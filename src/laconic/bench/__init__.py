"""Benchmarks of the public API, without the command line.

``exchange`` and what it imports use public names of the library alone, and reach each other by relative
imports: so the folder can also be run as a package of its own against another version of the library, for
comparison: ``PYTHONPATH=OTHER/src:src/laconic python -m bench.exchange --json other.json``.
"""
