# Everything starts here. A bare machine needs Python 3.11 or newer (with its venv module) and make.

PYTHON ?= python3
PORT   ?= 8000
BENCH  ?=
TESTS  ?=

BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet --quiet

.DEFAULT_GOAL := help
.PHONY: help setup demo test check lint types docs bench services lock clean

help: ## print this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

setup: .venv/.dev ## make .venv: the package, its extras and the development tools, pinned

demo: setup ## run the example shop on http://127.0.0.1:PORT (PORT=8000); Ctrl-C ends it
	@$(BIN)/python -c 'import socket; socket.create_server(("127.0.0.1", $(PORT))).close()' 2>/dev/null \
		|| { echo "port $(PORT) is taken; choose another: make demo PORT=$$(($(PORT) + 1))"; exit 1; }
	@echo "The shop: http://127.0.0.1:$(PORT)   (Ctrl-C ends it)"
	@trap 'exit 0' INT; $(BIN)/gunicorn --chdir examples --no-control-socket --workers 2 --threads 4 --bind 127.0.0.1:$(PORT) 'shop:create_app()'

test: setup ## run every test (TESTS="tests/stores -k expiry" for some of them)
	@$(BIN)/python -m pytest $(TESTS)

check: lint types docs ## lint, types, docs, and the guards on layers, docs and project files
	@$(BIN)/python -m pytest -q tests/test_layers.py tests/test_docs.py tests/test_project.py

lint: setup
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: setup
	@$(BIN)/mypy
	@$(BIN)/pyright

docs: setup ## build the documentation in docs/_build/html
	@$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going --nitpicky --fresh-env docs docs/_build/html

bench: setup .venv/.bench ## measure against the peers (BENCH="..." is handed on to it)
	@$(BIN)/python -m benchmarks $(BENCH)

services: ## install the servers and the browser that some tests use (Debian; none is left running)
	@.ci/services

lock: setup ## pin requirements/*.in again, in requirements/*.txt
	@$(PIP) install uv
	@$(LOCK) --all-extras pyproject.toml requirements/dev.in --output-file requirements/dev.txt
	@$(LOCK) requirements/bench.in --output-file requirements/bench.txt

clean: ## remove .venv and everything that was built
	@rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist docs/_build
	@find src tests examples benchmarks docs -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

LOCK = $(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --fork-strategy fewest --strip-extras \
	--no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock'

# pip comes last into a new environment, so that one which failed half-way is made again.
$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Flask-Stateful needs Python 3.11 or newer and \"$(PYTHON)\" is $$($(PYTHON) --version 2>&1);" \
			"name another one: make PYTHON=python3.12 ..."; exit 1; }
	@$(PYTHON) -m venv --clear .venv

# What is pinned is installed first, then the package itself with nothing left to look up.
.venv/.dev: $(BIN)/pip pyproject.toml requirements/dev.txt
	@echo "installing what requirements/dev.txt names into .venv ..."
	@$(PIP) install --requirement requirements/dev.txt
	@$(PIP) install --no-build-isolation --no-deps --editable .
	@touch $@

.venv/.bench: .venv/.dev requirements/bench.txt
	@echo "installing what requirements/bench.txt names into .venv ..."
	@$(PIP) install --requirement requirements/bench.txt
	@touch $@
