# Every target sets itself up: the first one to run creates .venv and installs into it. Later ones install again only
# when the requirements have changed.

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
PORT ?= 8888
LAB_ARGS ?= # in a container, as root: make lab LAB_ARGS=--allow-root
REF ?= main

.PHONY: help course lesson results lab test kill lint format notebooks badges constraints data/README.md

help:
	@echo "make course        run every lesson on the bundled sample (SEGLIB_PROFILE=tiny), no GPU needed"
	@echo "make lesson N=02   run one lesson; N=a1: an appendix"
	@echo "make results       list the experiments that are computed once; NAME=unet_stages runs or resumes one"
	@echo "make lab           open the lessons in JupyterLab"
	@echo "make test          lint, unit tests, every lesson"
	@echo "make kill          kill trainings at every named point and resume them"
	@echo "make lint          check style and types"
	@echo "make format        format the code and fix what ruff can fix"
	@echo ""
	@echo "For maintainers:"
	@echo "make notebooks     run the lessons (SEGLIB_PROFILE=demo) and keep their outputs; N=02: only of one"
	@echo "make badges REPO=owner/name REF=v0.1.0   write the repository address into notebooks and README.md"
	@echo "make data/README.md   write the data sets' part of that file from their cards"
	@echo "make constraints   record the exact versions that are installed"

$(READY): requirements.txt constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed, but '$(PYTHON)' is older. Try: make PYTHON=python3.12 ..."; exit 1; }
	@echo "Setting up .venv. This happens once, takes several minutes and needs about 7 GB of disk (PyTorch with CUDA)."
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

course: $(READY)
	$(BIN)/python tools/course.py

lesson: $(READY)
	$(BIN)/python tools/course.py $(N)

results: $(READY)
	$(BIN)/python tools/results.py $(NAME)

lab: $(READY)
	$(BIN)/jupyter lab --port=$(PORT) --notebook-dir=notebooks $(LAB_ARGS)

# On one thread each: beside another busy process, torch's threads wait for one another and are ten times slower.
test: lint
	rm -rf runs/test # a lesson trains nothing if it finds its runs finished
	env -u SEGLIB_DATA SEGLIB_PROFILE=tiny OMP_NUM_THREADS=1 SEGLIB_RUNS="$(CURDIR)/runs/test" $(BIN)/pytest --nbmake --nbmake-timeout=900 tests notebooks
	rm -rf runs/test

kill: $(READY)
	$(BIN)/pytest tests/faults/test_kills.py --kills=all

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

notebooks: $(READY)
	$(BIN)/python tools/course.py --keep $(N)

badges: $(READY)
	$(BIN)/python tools/badges.py "$(REPO)" "$(REF)"

data/README.md: $(READY)
	$(BIN)/python tools/cards.py

constraints: $(READY)
	{ echo "# The exact versions that the tests last passed with. Refreshed by: make constraints"; \
		$(BIN)/python -m pip freeze --exclude-editable; } > constraints.txt
