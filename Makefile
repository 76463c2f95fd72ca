# make quickstart   train on embedded data on the CPU, about three minutes, and print a table
# make test         the default test suite (make test-all: also the slow ones)
# make test-notebooks   the notebooks of colab/, run top to bottom
# make lint         ruff
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
WORKDIR ?= runs/quickstart
TEST_WORKERS ?= 2

.PHONY: quickstart test test-all test-notebooks lint clean

# The virtual environment, made anew when the dependencies change.
$(VENV)/.installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

quickstart: $(VENV)/.installed
	$(BIN)/python -m hamjepa_jax.main --config=configs/quickstart.py --workdir=$(WORKDIR)

test: $(VENV)/.installed
	$(BIN)/python -m pytest -n $(TEST_WORKERS) -m 'not slow'

test-all: $(VENV)/.installed
	$(BIN)/python -m pytest -n $(TEST_WORKERS)

test-notebooks: $(VENV)/.installed
	$(BIN)/python -m pytest tests/test_colab.py

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

clean:
	rm -rf runs build dist .pytest_cache .ruff_cache
