"""These tests need Triton's interpreter from the first import on: ``test_interpreted.py`` runs them so."""

import os

collect_ignore_glob = [] if os.environ.get("TRITON_INTERPRET") == "1" else ["*.py"]
