"""Modules whose packages the developers' environment lacks: see 'make docs' and 'make test-ecosystem'."""

collect_ignore_glob = ["src/laconic/integrations/*", "tests/ecosystem/*", "tests/browser/*", "docs/*"]
