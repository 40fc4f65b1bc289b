# make lab: set up, make the small data, open JupyterLab.   make test: set up, run every test.   Both resume when interrupted.
PYTHON ?= python3
LAB_ARGS ?=
TESTS_AT_A_TIME ?= 2
PYTEST_ARGS ?=
PIP_ARGS ?=
BIN := .venv/bin
ROOT_MAY := $(if $(filter 0,$(shell id -u)),--allow-root)  # in a container one is often root
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: lab test data notebooks bench clean check format
.DEFAULT_GOAL := lab

# A half-made environment is thrown away: .venv/installing stands while packages are being installed.
.venv/ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v <= (3, 13) else \
	"The course needs Python 3.11 to 3.13, this is %d.%d. Name another one: make PYTHON=python3.12 ..." % v)'
	@if [ -e .venv/installing ]; then echo "the last set-up was interrupted: starting again"; rm -rf .venv; fi
	$(PYTHON) -m venv .venv
	@touch .venv/installing
	@echo "installing about 2 GB into .venv (without a GPU build of PyTorch); pip says what it does:"
	$(BIN)/python -m pip install --progress-bar on --constraint constraints.txt $(PIP_ARGS) --editable '.[test]'
	@mv .venv/installing .venv/ready && touch .venv/ready

data: .venv/ready
	@$(BIN)/course data small

lab: data
	$(BIN)/python -m jupyter lab --ServerApp.ip=127.0.0.1 --ServerApp.root_dir="$(CURDIR)/notebooks" $(ROOT_MAY) \
	  --ServerApp.kernel_websocket_connection_class=course_lib.lab.PromptConnection $(LAB_ARGS)

test: .venv/ready
	$(BIN)/python -m pytest -n $(TESTS_AT_A_TIME) --dist loadfile $(PYTEST_ARGS)

check: .venv/ready
	$(BIN)/ruff format --check . && $(BIN)/ruff check . && $(BIN)/mypy

format: .venv/ready
	$(BIN)/ruff check --fix . && $(BIN)/ruff format .

# Execute every notebook in a profile (PROFILE=cpu by default) and store it with its outputs.
PROFILE ?= cpu
notebooks: data
	$(BIN)/course notebooks --profile $(PROFILE) $(NOTEBOOKS)

bench: data
	$(BIN)/course bench --out data/runs/bench.json --minutes 60 || [ $$? -eq 3 ]  # 3: parts are left
	$(BIN)/python -m pytest tests/benchmarks/bench_*.py -q --timeout 3600 $(PYTEST_ARGS)

clean:
	rm -rf .venv *.egg-info .pytest_cache .ruff_cache .mypy_cache data/generated data/runs
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
