"""``python -m laconic.demo``: one node."""

from laconic.demo._worker import main

main()
