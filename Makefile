PYTHON ?= python3
BIN := .venv/bin

.PHONY: help install demo test test-fast test-all board clean

help:       ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## */\t/' | expand -t 14

install: $(BIN)/installed  ## make .venv and install

$(BIN)/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	touch $@

demo: install  ## train and evaluate on handwritten digits, in runs/digits
	$(BIN)/python main.py --config configs/digits.py --workdir runs/digits
	@echo 'look: make board, then http://localhost:6006'

test: install  ## the tests, on the CPU
	JAX_PLATFORMS=cpu $(BIN)/python -m pytest -m 'not slow'

test-all: install  ## the tests and the slow rest
	JAX_PLATFORMS=cpu $(BIN)/python -m pytest

board: install  ## TensorBoard on runs/
	$(BIN)/tensorboard --logdir runs

clean:      ## remove .venv; runs/ stays
	rm -rf .venv *.egg-info
