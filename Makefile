# What the README's commands call. `make demo` and `make test` work on a fresh clone.
PYTHON ?= python3
BIN := .venv/$(if $(filter Windows_NT,$(OS)),Scripts,bin)

.PHONY: setup dev demo test check format docs packages bench torture clean
setup: .venv/installed
dev: .venv/installed-dev

.venv/pyvenv.cfg:
	$(PYTHON) -m venv .venv

.venv/installed: .venv/pyvenv.cfg pyproject.toml constraints.txt
	$(BIN)/pip install --quiet -c constraints.txt -e .
	$(BIN)/python -m compileall -q src
	$(BIN)/python -m folio.recipe.warm_up
	@touch $@

.venv/installed-dev: .venv/pyvenv.cfg pyproject.toml constraints.txt
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev]'
	@touch .venv/installed $@

.venv/installed-bench: .venv/installed-dev
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev,bench]'
	@touch $@

demo: .venv/installed
	$(BIN)/folio train python-docs --minutes 1.5

test: .venv/installed-dev
	$(BIN)/python -m pytest -n 2 --dist loadgroup --no-loadscope-reorder

check: .venv/installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright

format: .venv/installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: .venv/installed-dev
	$(BIN)/python -m scripts.docs

packages: .venv/installed-dev
	$(BIN)/pip install --quiet -c constraints.txt build
	$(BIN)/python -m scripts.packages $(PYTHONS)

torture: .venv/installed-dev
	$(BIN)/python -m pytest -m torture -o addopts='--strict-markers -q'

bench: .venv/installed-bench
	$(BIN)/python -m bench

clean:
	rm -rf .venv
