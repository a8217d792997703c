# Two commands for a newcomer: `make demo` and `make test`. Each sets up what it needs.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
PYTEST := $(BIN)/python -m pytest

.PHONY: install demo test acceptance faults lint style docs audit

install: .venv/.installed
demo: .venv/.installed
	$(BIN)/ulcmod demo --run runs/demo
# Two processes, each with a Ray of its own; the tests of a file share fixtures, so they stay together.
test: .venv/.developer
	$(PYTEST) --numprocesses=2 --dist=loadscope
acceptance: .venv/.developer
	$(PYTEST) -m acceptance --numprocesses=2 --dist=loadscope
# Those that `make test` has run already are left out. They wait for most of their time.
faults: .venv/.developer
	$(PYTEST) -m 'faults and not sample' --numprocesses=3 --dist=loadscope
lint: style docs audit
style: .venv/.developer
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy ulcmod_dist jobs tests .ci/audit.py
	$(BIN)/lint-imports --no-logo
	$(BIN)/deptry .
	$(BIN)/deptry . --exclude '\.venv' --ignore DEP004  # the tests, which may use the dev extra
audit: .venv/.developer
	$(BIN)/python .ci/audit.py
docs: .venv/.developer
	$(BIN)/python -m sphinx --fail-on-warning --fresh-env --quiet docs build/docs
	@echo "Open build/docs/index.html"

$(BIN)/python:
	$(PYTHON) -m venv .venv

.venv/.installed: $(BIN)/python pyproject.toml constraints.txt
	@echo "Installing ulcmod_dist into .venv (some minutes the first time)"
	$(PIP) --editable .
	@touch $@

.venv/.developer: .venv/.installed
	$(PIP) --editable '.[dev,docs]'
	@touch $@
