# `make help` lists what can be made.
PYTHON  ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)
PROFILE ?= quick
BIN     := .venv/bin
READY   := .venv/.ready
CLUSTER := .venv-cluster
RENDER   = $(BIN)/jupyter-book build book -W -n --keep-going -q
# Two processes of one thread each, which take whole files. One that dies ends the run: by files, pytest-xdist waits
# for ever for those of a process that it has replaced.
PYTEST   = OMP_NUM_THREADS=1 TF_NUM_INTRAOP_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --max-worker-restart=0
SMOKE    = $(PYTEST) --nbval-lax --nbval-current-env --nbval-cell-timeout=900
BROWSER ?= $(shell command -v chromium || command -v chromium-browser || command -v google-chrome)
RELEASE  = build/release/mitolib-$(shell sed -n 's/^version: *//p' CITATION.cff)

export TF_CPP_MIN_LOG_LEVEL ?= 3
# TensorFlow uses oneDNN by itself on some processors only; with AVX2 alone it halves the time of a head's step.
export TF_ENABLE_ONEDNN_OPTS ?= 1
export PYTHONUNBUFFERED = 1
# Python compiles what it imports, and keeps that beside it. Told not to, as many containers tell it, it would compile
# TensorFlow and all the rest again in each of a hundred processes: 8 seconds of 12 that an import takes.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help book test lint unit smoke bench paper cluster cluster-test site pdf links release lock clean clean-cache

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## */\t/' | expand -t 14

book: $(READY)  ## execute all notebooks here (PROFILE=smoke|quick|paper) and render the book into build/book
	$(BIN)/python book/_tools/execute.py --profile $(PROFILE) $(if $(JOBS),--jobs $(JOBS))

test: lint unit smoke  ## lint, unit tests, every notebook in the smoke profile, the published book with warnings as errors

lint: $(READY)  ## ruff on code and notebooks; the gates of the published edition
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python book/_tools/gates.py

unit: $(READY)  ## unit tests, and the published book with warnings as errors
	$(PYTEST) tests --ignore tests/cluster

smoke: $(READY)  ## every notebook in the smoke profile, with a report in build/smoke.xml; two of them on PyTorch too, with the same entries in their results
	rm -rf build/results/smoke* build/results/torch* && mkdir -p build/results/smoke build/results/torch
	MITOLIB_PROFILE=smoke MITOLIB_RESULTS=$(CURDIR)/build/results/smoke $(SMOKE) --junitxml=build/smoke.xml notebooks
	MITOLIB_PROFILE=smoke KERAS_BACKEND=torch MITOLIB_RESULTS=$(CURDIR)/build/results/torch $(SMOKE) notebooks/exp1.ipynb notebooks/exp2.ipynb
	cp build/results/smoke-*/*.json build/results/smoke && cp build/results/torch-*/*.json build/results/torch
	$(BIN)/python tests/same_results.py --entries build/results/torch build/results/smoke

bench: $(READY)  ## the claims about speed, memory and fidelity, each as a ratio taken in one run on this machine
	set -e; for bench in benchmarks/bench_*.py; do echo "== $$bench"; $(BIN)/python $$bench; done

paper: PROFILE = paper
paper: $(READY) $(if $(ON),$(CLUSTER)/.ready)  ## execute into the published edition, book/ (PROFILE=..., CHAPTER=exp1 for one chapter, ON=workflow/slurm for a cluster)
	$(if $(ON),$(CLUSTER)/bin/snakemake --profile $(ON) --config profile=$(PROFILE) book=book $(CONFIG) \
	  -- $(if $(CHAPTER),build/jobs/$(PROFILE)/$(CHAPTER)/done),\
	  $(BIN)/python book/_tools/execute.py --profile $(PROFILE) --book book $(if $(CHAPTER),--chapter $(CHAPTER)) $(if $(JOBS),--jobs $(JOBS)))

cluster: $(CLUSTER)/.ready  ## install Snakemake into an environment of its own, for make paper ON=...

cluster-test: $(READY) $(CLUSTER)/.ready  ## Snakemake on a SLURM of this machine (root, Debian's slurmctld slurmd slurm-client munge); not part of make test
	$(BIN)/python -m pytest tests/cluster tests/test_cluster.py

site: $(READY)  ## render the published edition into build/site, without running a notebook
	$(RENDER) --all --path-output build/site
	@echo build/site/_build/html/index.html

pdf: $(READY)  ## print the published edition into build/book.pdf, through a browser (BROWSER=...)
	@test -n "$(BROWSER)" || { echo "make pdf prints through Chromium or Chrome, and finds neither. Install one, or give it: make pdf BROWSER=/path/to/chrome"; exit 1; }
	rm -f build/book.pdf
	$(RENDER) --builder singlehtml --path-output build/print
	"$(BROWSER)" --headless --no-sandbox --disable-gpu --no-pdf-header-footer --virtual-time-budget=60000 \
	  --user-data-dir=$(CURDIR)/build/print/browser --print-to-pdf=build/book.pdf file://$(CURDIR)/build/print/_build/singlehtml/index.html \
	  2> build/print/browser.log || { tail build/print/browser.log; exit 1; }
	@test -s build/book.pdf && echo build/book.pdf

# To a folder of its own: the link checker writes its report among the pages.
links: $(READY)  ## try every link of the published edition; the report is build/links/_build/html/output.txt
	$(BIN)/jupyter-book build book --builder linkcheck --path-output build/links

# Until a release a chapter may lag behind its notebook; then a gate refuses it before anything is built.
# Sorted, dated and owned alike, so that the same edition gives the same checksums.
release: $(READY)  ## if no chapter lags: site, executed chapters, lock file and checksums, in build/release
	$(BIN)/python book/_tools/gates.py --release
	$(MAKE) site
	rm -rf $(RELEASE) && mkdir -p $(RELEASE)
	cp requirements.lock CITATION.cff LICENSE $(RELEASE)
	tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -C build/site/_build/html -c . | gzip -n > $(RELEASE)/site.tar.gz
	tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -C book -c chapters results | gzip -n > $(RELEASE)/chapters.tar.gz
	cd $(RELEASE) && sha256sum * > SHA256SUMS && cat SHA256SUMS

# The lock is made from what pip resolves today; local labels such as +cpu exist on some indexes only.
lock:  ## resolve pyproject.toml afresh and rewrite requirements.lock
	rm -rf build/lock && $(PYTHON) -m venv build/lock && build/lock/bin/pip install -q -e '.[book,test]'
	build/lock/bin/pip freeze --exclude-editable | sed -E 's/\+[a-z0-9.]+$$//' > build/requirements.lock
	mv build/requirements.lock requirements.lock

clean-cache:  ## remove the banks of features; they are computed again when needed
	rm -rf data/cache/features

clean:  ## remove what was built; phantom and weights in data/ stay
	rm -rf build book/_build

# Nothing counts as installed until all of it is: a broken download is tried again at the next call. Python compiles
# what is imported when it is; to compile all that is installed takes pip half of its time.
$(READY): pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(not ((3, 11) <= sys.version_info < (3, 13)))' || \
	  { echo "$(PYTHON) is not Python 3.11 or 3.12. Give one: make PYTHON=/path/to/python3.11 ..."; exit 1; }
	@echo "installing into .venv: once, a few minutes"
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --no-compile --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	touch $@

$(CLUSTER)/.ready: workflow/requirements.txt $(READY)
	test -x $(CLUSTER)/bin/python || $(BIN)/python -m venv $(CLUSTER)
	$(CLUSTER)/bin/python -m pip install --quiet --disable-pip-version-check -r workflow/requirements.txt
	touch $@
