# Every target installs what it needs. `make install` does nothing if no requirement has changed.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
CONSTRAINTS ?= constraints/cpu.txt
PIP_FLAGS ?=
BIN := .venv/bin
STAMP := .venv/installed-$(notdir $(CONSTRAINTS))

.PHONY: install demo test check texts up migration clean

install: $(STAMP)

$(STAMP): pyproject.toml constraints/base.txt $(CONSTRAINTS)
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11) and "securetune needs Python 3.11 or newer: make PYTHON=/path/to/python3.11 ...")'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "Installing securetune and its requirements into .venv (takes a few minutes the first time) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --only-binary :all: $(PIP_FLAGS) -c $(CONSTRAINTS) -e '.[worker,local,dev]'
	@touch $@

# On your own data: make demo DATA=rows.jsonl ROWS=300 STEPS=100. All options: securetune demo --help
demo: install
	@$(BIN)/securetune demo $(if $(DATA),--data $(DATA)) $(if $(ROWS),--rows $(ROWS)) $(if $(STEPS),--steps $(STEPS))

# Some of the tests: make test ARGS="tests/core -k search". WORKERS is the number of test processes; 0 runs one without
# xdist. Each test file runs in one process, because its tests share services.
WORKERS ?= 2

test: install
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

check: install
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/ruff check --quiet .
	@$(BIN)/pyrefly check --summary=none
	@$(BIN)/lint-imports --no-cache --verbose > .lint-imports.log 2>&1 || { cat .lint-imports.log; exit 1; }
	@echo "check: format, lint, types and import rules passed"

# Collects every text that users read in one file.
texts: install
	@mkdir -p build
	@$(BIN)/python -m research.texts > build/texts.txt
	@echo "build/texts.txt: $$(wc -l < build/texts.txt) lines"

# Another port or state folder: make up PORT=8000 STATE=/var/lib/securetune
up: install
	@$(BIN)/securetune up $(if $(PORT),--port $(PORT)) $(if $(STATE),--state $(STATE))

# Writes the next migration from core/db/models.py: make migration MESSAGE="add a column"
migration: install
	@$(BIN)/python -m migrations.new "$(MESSAGE)"

clean:
	rm -rf .venv var build *.egg-info .pytest_cache .ruff_cache .import_linter_cache
