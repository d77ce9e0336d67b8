"""Modules whose packages the developers' environment lacks; 'make docs' and 'make test-ecosystem' have them."""

collect_ignore_glob = ["src/laconic/integrations/*", "tests/ecosystem/*", "tests/browser/*", "docs/*"]
