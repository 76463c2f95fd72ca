# make quickstart   train on embedded data on the CPU, about three minutes, and print a table
# make test         the default test suite, in minutes (make test-all: also whole runs, processes and signals)
# make test-notebooks   the notebooks of colab/, run top to bottom
# make test-extras  the tests that need optional packages, in a virtual environment of their own
# make docs         the documentation, into build/docs, in a virtual environment of its own
# make lint         ruff; mypy; shellcheck
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
WORKDIR ?= runs/quickstart
TEST_WORKERS ?= 2
# A file's tests share what they have made, so one worker runs them; tests/conftest.py puts long files first.
BY_FILE := --dist loadfile --no-loadscope-reorder
# TensorFlow and torchvision have a process each: loading torchvision after TensorFlow ends Python.
TENSORFLOW_TESTS := tests/data/sources/test_tfrecords.py tests/data/pipeline/test_tfdata.py
EXTRAS := huggingface_hub mlflow tensorflow timm torch torchvision wandb
EXTRAS_TESTS := tests/interop/test_torch_import.py tests/interop/test_torch_file.py tests/interop/test_encoder_function.py \
	tests/benchmark/test_against_torch.py tests/nn/test_trunks.py tests/training/test_trackers.py \
	tests/interop/test_hub.py

.PHONY: quickstart test test-all test-notebooks test-extras docs lint clean

# The virtual environment, made anew when the dependencies change.
$(VENV)/.installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

quickstart: $(VENV)/.installed
	$(BIN)/python -m hamjepa_jax.main --config=configs/quickstart.py --workdir=$(WORKDIR)

test: $(VENV)/.installed
	$(BIN)/python -m pytest -n $(TEST_WORKERS) $(BY_FILE) -m 'not slow'

test-all: $(VENV)/.installed
	$(BIN)/python -m pytest -n $(TEST_WORKERS) $(BY_FILE)

test-notebooks: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --editable '.[notebooks]'
	$(BIN)/python -c 'import ipywidgets'  # Without it the sliders would be passed over.
	$(BIN)/python -m pytest -n $(TEST_WORKERS) tests/test_colab.py

# All other tests run without TensorFlow, PyTorch, wandb, mlflow and huggingface_hub.
$(VENV)-extras/.installed: pyproject.toml Makefile
	test -x $(VENV)-extras/bin/python || $(PYTHON) -m venv $(VENV)-extras
	$(VENV)-extras/bin/python -m pip install --quiet --upgrade pip
	$(VENV)-extras/bin/python -m pip install --quiet --editable '.[dev,tf,torch,wandb,mlflow,hub]' timm torchvision
	touch $@

test-extras: $(VENV)-extras/.installed
	for name in $(EXTRAS); do $(VENV)-extras/bin/python -c "import $$name" || exit 1; done  # Without them tests would be passed over.
	$(VENV)-extras/bin/python -m pytest -m 'not slow' $(TENSORFLOW_TESTS)
	$(VENV)-extras/bin/python -m pytest -n $(TEST_WORKERS) $(BY_FILE) -m 'not slow' $(EXTRAS_TESTS)

$(VENV)-docs/.installed: pyproject.toml
	test -x $(VENV)-docs/bin/python || $(PYTHON) -m venv $(VENV)-docs
	$(VENV)-docs/bin/python -m pip install --quiet --upgrade pip
	$(VENV)-docs/bin/python -m pip install --quiet --editable '.[docs]'
	touch $@

# Warnings are errors: a reference, link or anchor that leads nowhere among them.
docs: $(VENV)-docs/.installed
	JAX_PLATFORMS=cpu $(VENV)-docs/bin/python -m sphinx --fail-on-warning --keep-going --jobs auto --quiet docs build/docs

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/shellcheck launch/*.sh launch/*.sbatch .ci/run

clean:
	rm -rf build dist .pytest_cache .ruff_cache
