# Everything a person does in this repository. `make help` lists it.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Extra arguments for pip, for instance a mirror or a wheel folder.
PIP_ARGS ?=
# A folder of parity vectors; `make test` includes them where it is set.
PARITY_DIR ?=
export PARITY_DIR

# More options of `make bench`, for instance --against ../other_checkout.
BENCH_ARGS ?=

DEMO_DATA ?= data/fake_mug
DEMO_RUN ?= runs/lfdm_mug_demo
DEMO_CONFIG := --config lightning_configs/lfdm_mug.yaml --config lightning_configs/tiny/lfdm_mug.yaml

KILLS ?= 20
SEED ?=

# Two pytest workers with one thread each: more threads only fight over the same cores.
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1
PYTEST := $(ONE_THREAD) $(BIN)/python -m pytest -q

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-all lint format type schema parity smoke torture bench gpu-check clean

help:  ## list the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "vgen needs Python 3.11 or newer: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) -c constraints.txt -e '.[dev]'
	@touch $@

setup: $(STAMP)  ## make .venv with the vgen command and everything it needs

demo: setup  ## train both LFDM stages on drawn clips, sample videos, write the report (10 minutes on 2 cores)
	@test -f $(DEMO_DATA)/landmarks.json || $(BIN)/vgen data make-fake mug --out $(DEMO_DATA) --processes 2
	$(BIN)/vgen fit $(DEMO_CONFIG) --run_dir $(DEMO_RUN) --resume
	$(BIN)/vgen sample $(DEMO_RUN) --gif
	$(BIN)/vgen evaluate $(DEMO_RUN) --clips 98 --classifier-steps 150
	$(BIN)/vgen report $(DEMO_RUN)
	@if [ -n "$$DISPLAY$$WAYLAND_DISPLAY" ] || [ "$$(uname)" = Darwin ]; then \
	  $(BIN)/python -m webbrowser -t "file://$(abspath $(DEMO_RUN))/report.html" > /dev/null; fi

test: setup  ## lint, then all tests that fit into 15 minutes on 2 cores
	$(BIN)/ruff check .
	$(PYTEST) -n 2 -m "not slow"

test-all: setup  ## make test, and the tiny trainings that must learn
	$(BIN)/ruff check .
	$(PYTEST) -n 2

lint: setup  ## ruff: style, imports, docstrings
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: setup  ## ruff: rewrite in the house format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

type: setup  ## mypy over package and benchmarks
	$(BIN)/mypy

schema: setup  ## lightning_configs/schema.json, by which editors complete and check recipes
	$(BIN)/vgen schema --out lightning_configs/schema.json

parity: setup  ## every vector of PARITY_DIR (or the small ones in tests/golden) against our networks
	$(PYTEST) $(if $(PARITY_DIR),tests/parity,tests/golden)

torture: setup  ## 20 random kills (KILLS=, SEED=), each resumed and compared with an uninterrupted run (5 minutes)
	$(ONE_THREAD) $(BIN)/python -m tests.mechanics.torture --kills $(KILLS) $(if $(SEED),--seed $(SEED))

smoke: setup  ## every recipe with its tiny overlay, three steps per stage
	$(PYTEST) tests/configs

bench: setup  ## time and peak memory of a training step, one thread -> benchmarks/results (BENCH_ARGS: more options)
	$(BIN)/python -m benchmarks.step_time $(BENCH_ARGS)

gpu-check: setup  ## on a machine with CUDA: bf16 drift, full-size step times, memory, compile, a short training
	$(BIN)/python -m benchmarks.gpu_check

clean:  ## remove .venv, the demo's run and caches (data and other runs stay)
	rm -rf $(VENV) $(DEMO_RUN) .pytest_cache .mypy_cache .ruff_cache build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
