"""Modules that need packages which are not in the developers' environment; see 'make test-ecosystem'."""

collect_ignore_glob = ["src/laconic/integrations/*", "tests/ecosystem/*"]
