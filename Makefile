# One virtual environment serves every target. PYTHON chooses the interpreter it is made from.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: quickstart test test-slow test-beam test-tpu lint peers clean

$(VENV)/.installed: setup.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --progress-bar off -e ".[data,test]"
	touch $@

## Prepare the embedded benchmark, tune a tiny OPT on it, evaluate it before and after.
quickstart: $(VENV)/.installed
	PATH=$(abspath $(BIN)):$$PATH bash launch/quickstart.sh

## The tests that take seconds.
test: $(VENV)/.installed
	$(BIN)/python -m pytest -m "not slow"

## The tests that take minutes.
test-slow: $(VENV)/.installed
	$(BIN)/python -m pytest -m slow

## What the tests compare with: transformers, lm-eval, promptsource. Tests that miss one skip, with a reason.
peers: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --progress-bar off -r tests/peers.txt
	$(BIN)/python -m pip install --quiet --progress-bar off --no-deps --ignore-requires-python promptsource==0.2.3

## The tests of Apache Beam, in an environment of its own: it asks for an older protobuf than TensorFlow brings.
test-beam: $(VENV)-beam/.installed
	$(VENV)-beam/bin/python -m pytest tests/test_beam.py

$(VENV)-beam/.installed: setup.py
	$(PYTHON) -m venv $(VENV)-beam
	$(VENV)-beam/bin/python -m pip install --quiet --progress-bar off -e ".[data,beam,test]" "apache-beam[dask]"
	touch $@

## The tests that compile for TPUs, in an environment of its own: with libtpu JAX looks for a TPU at every start.
test-tpu: $(VENV)-tpu/.installed
	$(VENV)-tpu/bin/python -m pytest tests/training/test_planner.py tests/training/test_loss_program.py

$(VENV)-tpu/.installed: setup.py
	$(PYTHON) -m venv $(VENV)-tpu
	$(VENV)-tpu/bin/python -m pip install --quiet --progress-bar off -e ".[tpu,test]"
	touch $@

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

clean:
	rm -rf $(VENV) $(VENV)-beam $(VENV)-tpu runs store
