# `make help` lists what can be made.
PYTHON  ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)
PROFILE ?= quick
BIN     := .venv/bin
READY   := .venv/.ready

export TF_CPP_MIN_LOG_LEVEL ?= 3
export PYTHONUNBUFFERED = 1

.PHONY: help book test bench lint paper lock clean clean-cache

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## */\t/' | expand -t 14

book: $(READY)  ## execute all notebooks here (PROFILE=smoke|quick|paper) and render the book into build/book
	$(BIN)/python -m mitolib.execute --profile $(PROFILE)

test: lint  ## lint, unit tests, every notebook in the smoke profile, the published book with warnings as errors
	$(BIN)/python -m pytest tests
	MITOLIB_PROFILE=smoke $(BIN)/python -m pytest --nbval-lax --nbval-current-env --nbval-cell-timeout=900 notebooks

bench: $(READY)  ## the claims about speed, memory and fidelity, each as a ratio taken in one run on this machine
	set -e; for bench in benchmarks/bench_*.py; do echo "== $$bench"; $(BIN)/python $$bench; done

lint: $(READY)  ## ruff on code and notebooks
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

paper: PROFILE = paper
paper: $(READY)  ## execute into the published edition, book/ (PROFILE=..., CHAPTER=exp1 for one chapter)
	$(BIN)/python -m mitolib.execute --profile $(PROFILE) --book book $(if $(CHAPTER),--chapter $(CHAPTER))

# The lock is made from what pip resolves today; local labels such as +cpu exist on some indexes only.
lock:  ## resolve pyproject.toml afresh and rewrite requirements.lock
	rm -rf build/lock && $(PYTHON) -m venv build/lock && build/lock/bin/pip install -q -e '.[book,test]'
	build/lock/bin/pip freeze --exclude-editable | sed -E 's/\+[a-z0-9.]+$$//' > build/requirements.lock
	mv build/requirements.lock requirements.lock

clean-cache:  ## remove the banks of features; they are computed again when needed
	rm -rf data/cache/features

clean:  ## remove what was built; phantom and weights in data/ stay
	rm -rf build book/_build

# Nothing counts as installed until all of it is: a broken download is tried again at the next call.
$(READY): pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(not ((3, 11) <= sys.version_info < (3, 13)))' || \
	  { echo "$(PYTHON) is not Python 3.11 or 3.12. Give one: make PYTHON=/path/to/python3.11 ..."; exit 1; }
	@echo "installing into .venv: once, a few minutes"
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	touch $@
