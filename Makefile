# make run · test · check · lint.  Everything is set up on first use and not again until its inputs change.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
PY := .venv/bin/python
STAMP := .venv/.installed

.PHONY: run test check lint
run: $(STAMP)
	.venv/bin/spike run

test: $(STAMP)
	$(PY) -m pytest tests

check: $(STAMP)
	rm -rf .build && mkdir -p .build/empty
	$(PY) -m build --wheel --outdir .build/wheels .
	$(PY) -m venv .build/env
	.build/env/bin/python -m pip install -q -c constraints.txt torch
	.build/env/bin/python -m pip install -q -c constraints.txt .build/wheels/*.whl
	cd .build/empty && ../env/bin/spike list-plugins --check && ../env/bin/spike run

lint: $(STAMP)
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PY) -m pip install -q -c constraints.txt torch
	$(PY) -m pip install -q -c constraints.txt -e .[testing] pytest-xdist ruff mypy import-linter build
	touch $@
