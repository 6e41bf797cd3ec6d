# Every target sets itself up: the first one to run makes .venv and installs into it; later ones do so again only
# when the requirements have changed.

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
PORT ?= 8888
LAB_ARGS ?= # as root, in a container: make lab LAB_ARGS=--allow-root

.PHONY: help course lesson lab test lint format notebooks constraints data/README.md

help:
	@echo "make course        run every lesson on the bundled sample (SEGLIB_PROFILE=tiny), no GPU needed"
	@echo "make lesson N=02   run one lesson"
	@echo "make lab           open the lessons in JupyterLab"
	@echo "make test          lint, unit tests, every lesson"
	@echo "make lint          ruff, on package, tests and notebooks"
	@echo "make format        let ruff put that right"
	@echo "make notebooks     run the lessons and keep their outputs in notebooks/ (for maintainers)"
	@echo "make data/README.md  write it from the cards of the data sets (for maintainers)"
	@echo "make constraints   write down the exact versions that are installed (for maintainers)"

$(READY): requirements.txt constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed, '$(PYTHON)' is older: make PYTHON=python3.12 ..."; exit 1; }
	@echo "Setting up .venv: once, several minutes and up to 7 GB where PyTorch comes with CUDA."
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

course: $(READY)
	$(BIN)/python tools/course.py

lesson: $(READY)
	$(BIN)/python tools/course.py $(N)

lab: $(READY)
	$(BIN)/jupyter lab --port=$(PORT) --notebook-dir=notebooks $(LAB_ARGS)

test: lint
	rm -rf runs/test # else the lessons would find their runs finished and train nothing
	env -u SEGLIB_DATA SEGLIB_PROFILE=tiny SEGLIB_RUNS="$(CURDIR)/runs/test" $(BIN)/pytest --nbmake --nbmake-timeout=900 tests notebooks

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

notebooks: $(READY)
	$(BIN)/python tools/course.py --keep $(N)

data/README.md: $(READY)
	$(BIN)/python -m seglib.datasets readme > $@.new && mv $@.new $@

constraints: $(READY)
	{ echo "# The exact versions that the tests last passed with. Refreshed by: make constraints"; \
		$(BIN)/python -m pip freeze --exclude-editable; } > constraints.txt
