# Every target sets up what it needs. PYTHON names the interpreter that makes the environment; TORCH_INDEX, where
# torch comes from: https://download.pytorch.org/whl/cpu spares Linux without a GPU gigabytes of CUDA.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export HF_HUB_OFFLINE = 1
export PIP_CONSTRAINT = $(CURDIR)/constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK = 1
SHARED := ../shared/datasets

.PHONY: install fix check test test-slow cov docs demo serve bench wheel train eval clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet torch $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX))
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@

# The main job: a real gateway between the official client and a canned upstream.
demo: install
	$(BIN)/airlock demo

serve: install
	$(BIN)/airlock serve

test: install
	$(BIN)/pytest -m "not slow"

test-slow: install
	$(BIN)/pytest

check: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python docs/generate.py --check

fix: install
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/python docs/generate.py

cov: install
	$(BIN)/coverage run -m pytest -m "not slow"
	$(BIN)/coverage report --skip-covered

docs: install
	$(BIN)/python docs/generate.py

# Build the wheel, install it outside the tree, import and run it.
wheel: install
	PYTHON=$(BIN)/python docs/wheel_check.sh

bench: install
	$(BIN)/python benchmarks/upstream_client.py
	$(BIN)/python benchmarks/latency.py

# The shipped classifier, as it was trained; takes about an hour on one core.
train: install
	$(BIN)/airlock train classifier --taxonomy data/taxonomies/airlock.yaml --data $(SHARED)/tiers.jsonl \
		--out runs/tiers-minilm

eval: install
	$(BIN)/airlock eval classifier --data $(SHARED)/tiers.jsonl
	$(BIN)/airlock eval rag

clean:
	rm -rf $(VENV) dist build
