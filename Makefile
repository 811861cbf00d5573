# One environment of what pyproject.toml names (not of this checkout), kept in a cache folder under the hash of pyproject.toml and used again while that does not change.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
CACHE ?= $(if $(XDG_CACHE_HOME),$(XDG_CACHE_HOME),$(HOME)/.cache)/collegium
HASH := $(shell sha256sum pyproject.toml | cut -c1-16)
VENV ?= $(CACHE)/venv-$(HASH)
BIN := $(VENV)/bin
DATA := data/FashionMNIST/raw/t10k-labels-idx1-ubyte

.PHONY: install data demo test lint types docs accuracy bench bench-serving bench-training bench-store bench-scaling bench-chaos bench-soak clean

install: $(VENV)/.installed
	@echo "the environment is $(VENV); for the commands collegium and mlflow in this shell:"
	@echo "  source $(BIN)/activate && pip install --no-deps ."

$(VENV)/.installed:
	$(PYTHON) scripts/make_environment.py "$(VENV)"

data: $(DATA)

$(DATA): | install
	"$(BIN)/python" scripts/get_fashion_mnist.py data

demo: install data
	"$(BIN)/python" -m orchestrator run orchestrator/recipes/fashion_three_teachers.yaml

test: install
	"$(BIN)/python" -m pytest

lint: install
	"$(BIN)/ruff" check .
	"$(BIN)/ruff" format --check .

types: install
	"$(BIN)/pyright" --pythonpath "$(BIN)/python"

docs: install
	"$(BIN)/python" -m scripts.make_docs

accuracy: install data
	"$(BIN)/python" -m benchmarks.accuracy

bench: bench-serving bench-training bench-store bench-scaling bench-chaos bench-soak

bench-serving bench-training bench-store bench-scaling bench-chaos bench-soak: bench-%: install data
	"$(BIN)/python" -m benchmarks.$*

clean:
	rm -rf "$(VENV)" build dist
