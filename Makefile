PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PYTEST := JAX_PLATFORMS=cpu $(BIN)/python -m pytest

.PHONY: help install demo test test-fast test-all test-oldest references board dist release-check clean

help:  ## this list
	@sed -nE 's/^([a-z-]+):[^#]*## (.*)/\1\t\2/p' Makefile | expand -t 16

install: $(VENV)/installed  ## make .venv and install

$(VENV)/installed: pyproject.toml imagenet_jax/images/jpeg.c
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	touch $@

demo: install  ## train and evaluate on handwritten digits, in runs/digits
	$(BIN)/python main.py --config configs/digits.py --workdir runs/digits
	@echo 'to look at it: make board, then http://localhost:6006'

test: install  ## the tests, on the CPU
	$(PYTEST) -m 'not slow'

test-fast: install  ## the tests without those of what models compute, and of many whole runs
	$(PYTEST) -m 'not slow and not runs and not numerics'

test-all: install  ## the tests and the slow rest
	$(PYTEST)

test-oldest:  ## the tests on the oldest versions that pyproject.toml claims, in .venv-oldest
	sed -nE 's/^    "([A-Za-z_-]+)>=([0-9.]+).*/\1==\2/p' pyproject.toml > oldest.txt
	$(PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/python -m pip install --quiet --constraint oldest.txt --editable '.[test]'
	rm oldest.txt
	JAX_PLATFORMS=cpu .venv-oldest/bin/python -m pytest -m 'not slow'

references: install  ## PyTorch and its model libraries, and all that is optional, for the tests that need them
	$(BIN)/python -m pip install --quiet torch==2.13.0
	$(BIN)/python -m pip install --quiet --no-deps torchvision==0.28.0 timm==1.0.31 pytorchcv==0.0.74
	$(BIN)/python -m pip install --quiet --editable '.[hub,notebooks,seam]' pyyaml

board: install  ## TensorBoard on runs/
	$(BIN)/tensorboard --logdir runs

dist: install  ## the wheel and the source archive, in dist/
	rm -rf build dist
	$(BIN)/python -m pip install --quiet build twine setuptools
	$(BIN)/python -m build
	$(BIN)/python -m twine check --strict dist/*

release-check: VERSION = $(shell sed -n "s/^__version__ = '\(.*\)'/\1/p" imagenet_jax/__init__.py)
release-check: install  ## build dist/, and say whether it may be published
	@test -z "$$(git status --porcelain)" || { git status --short; echo 'error: commit these first'; exit 1; }
	@grep -q '^## \[$(VERSION)\]' CHANGELOG.md || { echo 'error: CHANGELOG.md has no $(VERSION)'; exit 1; }
	@! sed '1,/^## \[Unreleased\]/d; /^## \[[0-9]/,$$d' CHANGELOG.md | grep '^-' \
	    || { echo 'error: these are not released as $(VERSION): give them a version of their own'; exit 1; }
	@test -z "$$(git tag --list v$(VERSION))" || { echo 'error: there is a v$(VERSION) already'; exit 1; }
	$(MAKE) dist
	$(PYTEST) tests/test_packaging.py
	@echo 'dist/ may be published as $(VERSION): git tag v$(VERSION), then twine upload dist/*'

clean:  ## remove the environments and what was built; runs/ stays
	rm -rf .venv* *.egg-info build dist
