# One virtual environment serves every target. PYTHON chooses the interpreter it is made from.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: quickstart test test-slow test-beam lint peers clean

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

## What the tests compare with or compile by: transformers, lm-eval, promptsource, libtpu. Tests that miss one skip,
## with a reason.
peers: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --progress-bar off -r tests/peers.txt -e ".[tpu]"
	$(BIN)/python -m pip install --quiet --progress-bar off --no-deps --ignore-requires-python promptsource==0.2.3

## The tests of Apache Beam, in an environment of its own: it asks for an older protobuf than TensorFlow brings.
test-beam: $(VENV)-beam/.installed
	$(VENV)-beam/bin/python -m pytest tests/test_beam.py

$(VENV)-beam/.installed: setup.py
	$(PYTHON) -m venv $(VENV)-beam
	$(VENV)-beam/bin/python -m pip install --quiet --progress-bar off -e ".[data,beam,test]" "apache-beam[dask]"
	touch $@

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

clean:
	rm -rf $(VENV) $(VENV)-beam runs store
