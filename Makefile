# make app    install, prepare the demo, open the dashboard on this machine
# make test   install, run the linters, the type checker and every test
# make serve  the dashboard for colleagues: make serve HOST=0.0.0.0 BASE_URL=http://name:8501
# make reliability KILLS=240 SEED=1   the fault suite and the load, which write docs/reliability.md
# make dev    the dashboard for who changes it: a saved page is drawn again
#
# make app LOCK=1 installs exactly what requirements.lock names, by its hashes; make lock renews that file,
# make audit asks for known weaknesses of what it names, make sbom lists what is installed (CycloneDX)

PORT ?= 8501
HOST ?= localhost
BASE_URL ?=
SERVE :=
WATCH :=
KILLS ?= 240
SEED ?= 1
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile
INSTALLED := $(VENV)/installed
LOCK :=
SUFFIX := $(if $(LOCK),lock,txt)
TOOLS := .venv-tools

.PHONY: app serve dev test suite check setup demo reliability bench docs screenshots looks lock audit sbom clean

app: setup
	BASE_URL=$(BASE_URL) $(WATCH) $(BIN)/sstmerge serve --host $(HOST) --port $(PORT) $(SERVE)

serve: SERVE := --no-browser
serve: app

# Polling looks at the imported files of the project alone; the usual watcher at every folder below, .venv included.
dev: WATCH := STREAMLIT_SERVER_FILE_WATCHER_TYPE=poll STREAMLIT_SERVER_RUN_ON_SAVE=true
dev: app

# Side by side: the type checker is busy for a minute. A third and a fourth worker would cost more processor time (two and
# five minutes of twenty) than they spend waiting for servers and browsers.
test: setup
	$(MAKE) --no-print-directory -j 2 check suite

# Compiled modules are kept even where the environment says otherwise: some hundred processes import them.
suite: setup
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

demo: setup
	$(BIN)/sstmerge demo

# Kills, full disks, damaged files, jumping clocks: an hour; stopped, it goes on where it was. Then ten minutes of load.
reliability: setup
	$(BIN)/python -m benchmarks.reliability --kills $(KILLS) --seed $(SEED)
	$(BIN)/python -m tests.corpus.summary --record
	$(BIN)/python -m benchmarks.load --record

bench: setup
	$(BIN)/sstmerge demo --prepare
	$(BIN)/python -m benchmarks

docs: setup
	$(BIN)/python docs/methods.py
	$(BIN)/python docs/metrics.py
	$(BIN)/python docs/judges.py
	$(BIN)/python docs/suites.py
	$(BIN)/python docs/attacks.py
	$(BIN)/python docs/results.py
	$(BIN)/python docs/notice.py
	$(BIN)/python docs/architectures.py

screenshots: setup
	$(BIN)/python docs/screenshots.py

# Every page, full and empty, light and dark, wide and narrow, into screenshots/
looks: setup
	$(BIN)/python docs/screenshots.py --every screenshots

setup: $(INSTALLED)

# One lock for every system and Python that pyproject.toml allows; no address of a registry is written into it.
lock: $(TOOLS)/installed
	$(TOOLS)/bin/uv pip compile $(LOCKING) requirements.txt --output-file requirements.lock
	$(TOOLS)/bin/uv pip compile $(LOCKING) --no-deps requirements-alone.txt --output-file requirements-alone.lock

LOCKING := --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-annotate --no-emit-index-url \
	--no-emit-find-links --custom-compile-command "make lock"

# Not part of `make test`: it asks a service on the network, and says where it could not.
audit: setup $(TOOLS)/installed
	$(BIN)/python docs/audit.py $(TOOLS)/bin/pip-audit

sbom: setup $(TOOLS)/installed
	$(TOOLS)/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible --of JSON -o sbom.json $(BIN)/python

$(TOOLS)/installed: requirements-tools.txt
	test -x $(TOOLS)/bin/python || python3 -m venv $(TOOLS)
	$(TOOLS)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-tools.txt
	touch $@

$(INSTALLED): requirements.txt requirements-alone.txt pyproject.toml
	test -x $(BIN)/python || python3 -m venv $(VENV)
# The pip that comes with Python 3.11 takes twice as long as one of today, which is no need: without a network it stays.
	$(if $(LOCK),,-$(PIP) --upgrade pip)
# Python compiles a module when it is first imported; pip would take a minute to compile them all.
	$(PIP) $(if $(LOCK),--require-hashes) -r requirements.$(SUFFIX)
	$(PIP) --no-deps $(if $(LOCK),--require-hashes) -r requirements-alone.$(SUFFIX)
	$(PIP) --no-deps --editable .
	touch $(INSTALLED)

clean:
	rm -rf $(VENV) $(TOOLS) sbom.json workspace .pytest_cache .ruff_cache .mypy_cache
