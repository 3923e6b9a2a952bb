# Every target sets itself up: it makes .venv, installs what it needs, and runs.
#   PYTHON       the interpreter to build .venv with (3.11 or newer)
#   TORCH_INDEX  an index that has PyTorch's build for CPUs; see README.md
PYTHON ?= python3
TORCH_INDEX ?=
VENV ?= .venv

ifeq ($(OS),Windows_NT)
BIN := $(VENV)/Scripts
else
BIN := $(VENV)/bin
endif
RUN := $(BIN)/python
PIP := $(RUN) -m pip --disable-pip-version-check install --quiet \
	$(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) --constraint constraints.txt
# Silences a notice of Material for MkDocs; see CONTRIBUTING.md.
export NO_MKDOCS_2_WARNING := 1

PROMPT ?= Once upon a time
OUT ?= runs/demo
SMOLLM2 := SmolLM2-135M-Instruct.Q4_1.gguf

.DEFAULT_GOAL := help
.PHONY: help demo generate smollm2 fixtures test check lint course serve notebook figures pages bench clean

help:
	@echo "make demo | generate PROMPT=\"...\" | smollm2 | test | course | serve | notebook"
	@echo "make check | lint | fixtures | figures | pages | bench | clean"
	@echo "README.md says what each does."

$(VENV)/made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "minillm needs Python 3.11 or newer: make PYTHON=python3.11"; exit 2; }
	@$(PYTHON) -m venv $(VENV) || { echo "could not make $(VENV): on Debian and" \
		"Ubuntu, install the package python3-venv"; rm -rf $(VENV); exit 2; }
	@touch $@

# One mark for each set of extras, renewed when what is asked for changes.
$(VENV)/has-%: $(VENV)/made pyproject.toml constraints.txt
	@echo "installing minillm[$*] into $(VENV) ..."
	@$(PIP) --editable ".[$*]"
	@touch $@

demo: $(VENV)/has-plots
	$(RUN) -m minillm demo --out $(OUT)

# The prompt goes through the environment, so that no quote in it can end the command.
export PROMPT
generate: $(VENV)/has-plots
	@$(RUN) -m minillm generate $(OUT) "$$PROMPT"

smollm2: $(VENV)/has-gguf
	$(RUN) tests/fixtures.py $(SMOLLM2) models
	@echo "now: minillm generate models/$(SMOLLM2) \"Once upon a time\""

fixtures: $(VENV)/has-dev
	$(RUN) tests/fixtures.py

# Two processes of one thread each: two of two threads wait for each other.
test: $(VENV)/has-dev
	OMP_NUM_THREADS=1 $(RUN) -m pytest -q -n 2 --durations 10 -m "not check"

check: $(VENV)/has-dev lint
	OMP_NUM_THREADS=1 $(RUN) -m pytest -q -n 2 --durations 20 --dist loadfile -m check --deselect tests/runs/test_demo.py
	$(RUN) -m pytest -q -m check tests/runs/test_demo.py  # trains with all threads

lint: $(VENV)/has-dev
	$(RUN) -m ruff check
	$(RUN) -m ruff format --check
	$(RUN) -m mypy
	$(RUN) tests/vocabulary.py

course: $(VENV)/has-docs
	OFFLINE=true $(RUN) -m mkdocs build --strict

serve: $(VENV)/has-docs
	$(RUN) -m mkdocs serve --livereload

notebook: $(VENV)/has-notebook
	$(RUN) -m minillm notebook all --out notebooks
	$(RUN) -m jupyterlab notebooks

figures: $(VENV)/has-plots
	$(RUN) -m minillm.drawing.figures

# Pages that are written by a program; a test compares them.
pages: $(VENV)/has-dev
	$(RUN) -m typer minillm.cli.app utils docs --name minillm --title "The commands" \
		--output docs/commands.md
	$(RUN) -m minillm.drawing.widgets
	$(RUN) -m minillm.exercises.pages
	$(RUN) -m benchmarks.page

# Five minutes; nothing else should run meanwhile.
bench: $(VENV)/has-bench $(VENV)/has-docs
	$(RUN) -m benchmarks
	$(RUN) -m benchmarks.page

clean:
	rm -rf $(VENV) site build dist .cache .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
