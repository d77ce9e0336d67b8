PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Two at a time take half as long; more get in each other's way, for many tests start processes of their own.
PYTEST := $(BIN)/python -m pytest -q -n auto --maxprocesses 2 --dist worksteal
OUT ?= demo-out

.PHONY: help demo test quick slow test-other-cpus test-ecosystem docs test-docs dist versions fuzz gpu-check gpu-compile check format constraints clean

help:
	@echo "make demo    set up, and train a small model in four processes over a slow link, four ways"
	@echo "make test    set up, and run all tests"
	@echo "make quick   the tests without the slow ones"
	@echo "make slow    the slow ones alone"
	@echo "make test-other-cpus  the same with what other processors choose, one after another; TESTS=... for some"
	@echo "make test-ecosystem  the integrations with Lightning, Accelerate and Transformers, in an environment of their own"
	@echo "make docs    build the documentation into site/"
	@echo "make test-docs  the same, then look at it with headless Chromium, which must be installed"
	@echo "make dist    build sdist and wheel into dist/, and try them in an empty environment"
	@echo "make versions  the quick tests with the oldest and the newest PyTorch; TESTS=... for some"
	@echo "make fuzz    attack the decoder with coverage-guided inputs for FUZZ_SECONDS"
	@echo "make gpu-check    check and measure on this machine's GPU, in 8 minutes; GPU_CHECK=--quick in 4"
	@echo "make gpu-compile  compile the kernels for GPUs without one, and list what they take"
	@echo "make check   lint, formatting and types"
	@echo "make format  format the code"
	@echo "make clean   remove what the above made"

# A stamp for the environment with the developers' tools, and one for what the demo needs: they are made again when
# what they hold changes.
$(VENV)/.ready: EXTRAS := dev
$(VENV)/.ready-demo: EXTRAS := cli,lab
$(VENV)/.ready $(VENV)/.ready-demo: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "laconic needs Python 3.11 or later; call make with PYTHON=python3.11"; exit 1; }
	@echo "setting up $(VENV): PyTorch and others, some 3 GB, a minute or more"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$(EXTRAS)]'
	@touch $@

demo: $(VENV)/.ready-demo
	@echo "make demo: some two minutes on two cores"
	$(BIN)/laconic demo --out $(OUT)

test: $(VENV)/.ready
	@echo "make test: some 15 minutes on two cores; 'make quick' leaves out the slow tests"
	$(PYTEST)

quick: $(VENV)/.ready
	$(PYTEST) -m "not slow"

slow: $(VENV)/.ready
	$(PYTEST) -m slow

# BLAS, LAPACK, libm and PyTorch choose their code by the processor, and with it the last digits; numba compiles
# for it. What x86-64 processors without AVX-512 choose, from newer ones to older ones:
TESTS ?=
test-other-cpus: $(VENV)/.ready
	@failed=0; for settings in \
		"OPENBLAS_CORETYPE=Haswell MKL_CBWR=AVX2 ATEN_CPU_CAPABILITY=avx2" \
		"OPENBLAS_CORETYPE=Zen MKL_CBWR=COMPATIBLE ATEN_CPU_CAPABILITY=default GLIBC_TUNABLES=glibc.cpu.hwcaps=-AVX2,-FMA" \
		"OPENBLAS_CORETYPE=Sandybridge ATEN_CPU_CAPABILITY=default NUMBA_CPU_NAME=generic"; \
	do \
		echo "== $$settings"; \
		env $$settings $(PYTEST) -m "not slow" $(TESTS) || failed=1; \
	done; exit $$failed

# Pinned apart, because nothing else needs these packages.
ECOVENV ?= .venv-ecosystem
$(ECOVENV)/.ready: pyproject.toml constraints-ecosystem.txt
	$(PYTHON) -m venv $(ECOVENV)
	$(ECOVENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints-ecosystem.txt \
		-e . lightning accelerate transformers pytest pytest-timeout
	@touch $@

test-ecosystem: $(ECOVENV)/.ready
	$(ECOVENV)/bin/python -m pytest -q -p no:cacheprovider --noconftest -c /dev/null --rootdir tests/ecosystem tests/ecosystem

# Tools for the documentation and the release, pinned apart, because nothing else needs them. The pages are made from
# the sources: laconic itself is not installed there.
TOOLS ?= .venv-tools
TOOLSPIP = $(TOOLS)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints-tools.txt
SITE ?= site
$(TOOLS)/.ready: constraints-tools.txt
	$(PYTHON) -m venv $(TOOLS)
	$(TOOLSPIP) mkdocs-material 'mkdocstrings[python]' latex2mathml ruff
	@touch $@

$(TOOLS)/.ready-browser: $(TOOLS)/.ready
	$(TOOLSPIP) playwright pytest pytest-timeout
	@touch $@

$(TOOLS)/.ready-dist: $(TOOLS)/.ready
	$(TOOLSPIP) build twine check-wheel-contents
	@touch $@

docs: $(TOOLS)/.ready
	NO_MKDOCS_2_WARNING=1 $(TOOLS)/bin/mkdocs build --quiet --site-dir $(SITE)

CHROMIUM ?= $(shell command -v chromium || command -v chromium-browser || command -v google-chrome)
SCREENSHOTS ?= build/screenshots
test-docs: docs $(TOOLS)/.ready-browser $(VENV)/.ready
	@test -n "$(CHROMIUM)" || { echo "make test-docs needs Chromium: apt-get install chromium, or CHROMIUM=PATH"; exit 1; }
	CHROMIUM=$(CHROMIUM) SITE=$(abspath $(SITE)) SCREENSHOTS=$(abspath $(SCREENSHOTS)) LACONIC=$(abspath $(BIN))/laconic \
		$(TOOLS)/bin/python -m pytest -q -p no:cacheprovider --noconftest -c /dev/null --rootdir tests/browser tests/browser

# The wheel is tried in an environment that has nothing else.
DISTVENV ?= build/venv-dist
dist: $(TOOLS)/.ready-dist
	rm -rf dist $(DISTVENV)
	$(TOOLS)/bin/python -m build --outdir dist
	$(TOOLS)/bin/twine check --strict dist/*
	$(TOOLS)/bin/check-wheel-contents dist/*.whl
	$(PYTHON) -m venv $(DISTVENV)
	$(DISTVENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt dist/*.whl
	cd build && $(abspath $(DISTVENV))/bin/python ../tests/release/check_dist.py ../dist

# The oldest PyTorch that pyproject.toml allows, and the newest that the registry has; TESTS= for some of the tests.
OLDEST = $(shell sed -n 's/.*"torch>=\([0-9.]*\).*/\1/p' pyproject.toml)
versions:
	@mkdir -p build; failed=0; for torch in "torch~=$(OLDEST).0" "torch>=$(OLDEST)"; do \
		venv=build/venv-$$(echo $$torch | tr -dc 'a-z0-9.'); \
		grep -v -e '^torch==' -e '^triton==' constraints.txt > build/constraints-versions.txt; \
		$(PYTHON) -m venv $$venv && $$venv/bin/python -m pip install --quiet --disable-pip-version-check \
			-c build/constraints-versions.txt -e '.[dev]' "$$torch" || exit 1; \
		$$venv/bin/python -c "import torch; print('== PyTorch', torch.__version__)"; \
		$$venv/bin/python -m pytest -q -n auto --maxprocesses 2 --dist worksteal -m "not slow" $(TESTS) || failed=1; \
	done; exit $$failed

# Not in the pinned environment: atheris is needed for nothing else.
FUZZ_SECONDS ?= 120
fuzz: $(VENV)/.ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check atheris
	$(BIN)/python tests/wire/fuzz_atheris.py -max_total_time=$(FUZZ_SECONDS)

# With the Python that has PyTorch for the GPU, which installs nothing; see benchmarks/gpu/README.md.
GPU_PYTHON ?= python3
GPU_CHECK ?=
gpu-check:
	$(GPU_PYTHON) benchmarks/gpu/check.py $(GPU_CHECK)

gpu-compile: $(VENV)/.ready
	$(BIN)/python benchmarks/gpu/compile.py

check: $(VENV)/.ready
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: $(VENV)/.ready
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

constraints: $(VENV)/.ready
	{ head -1 constraints.txt; $(BIN)/python -m pip freeze --exclude-editable | sed 's/+cpu//; s/ @ .*//'; } > constraints.new
	mv constraints.new constraints.txt

clean:
	rm -rf $(VENV) $(ECOVENV) $(TOOLS) $(SITE) dist demo-out laconic-out gpu-check-out build .mypy_cache .ruff_cache .pytest_cache .hypothesis
