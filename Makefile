# Everything is set up on first use, and not again until its inputs change.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
PY := .venv/bin/python
STAMP := .venv/.installed

.PHONY: run test test-full check check-and-test conformance first-hour lint catalogue doors support docs site release bench bench-gpu figures figures-rl fuzz attacks
run: $(STAMP)             # train a small net on real data
	.venv/bin/spike run

test: $(STAMP)            # core, each plugin alone, torch-free on other Pythons; one closing summary
	$(PY) -m tests.suites test

test-full: $(STAMP)       # with the slow products; every neuron of every plugin compiled for GPUs
	SPIKE_FULL=1 $(PY) -m tests.suites test
	SPIKE_FULL=1 $(PY) -m tests.suites run check-integration -k gpu_neurons
	SPIKE_FULL=1 $(PY) -m tests.suites run check-first-hour

check: $(STAMP)           # wheels, examples, new plugins, README and tutorials, site, other libraries, a browser, all plugins together
	$(PY) -m tests.suites check

check-and-test: $(STAMP)  # both in one pool, as in .ci/run
	$(PY) -m tests.suites check test

lint: $(STAMP)            # style, types, import contracts; figures on density
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports --no-cache
	$(PY) -m tests.tools.density

catalogue: $(STAMP)       # which component is in which plugin: spikecore/registry/known.json
	$(PY) -m tests.tools.catalogue

doors: $(STAMP)           # the names that core exports to plugins: tests/tools/doors.txt
	$(PY) -m tests.tools.doors

support: $(STAMP)         # what each plugin needs and where it is tested: docs/reference/support.md
	$(PY) -m tests.tools.support

conformance: $(STAMP)     # after `make test`: what each component's suite executed: docs/reference/conformance.csv
	$(PY) -m tests.tools.conformance

first-hour: $(STAMP)      # README and every tutorial, word by word, in a clone with an environment of its own
	SPIKE_FULL=1 $(PY) -m tests.suites run check-first-hour

docs: $(STAMP)            # draws the figures of the docs
	set -e; for figure in docs/figures/*.py; do $(PY) $$figure; done

site: $(STAMP)            # the documentation as a web site: .build/site/html/index.html
	$(PY) -c "from tests.suites.environments import site_environment; site_environment()"
	.build/envs/site/bin/python -m tests.tools.site

release: $(STAMP)         # builds and checks sdists and wheels in .build/release; publishes nothing
	$(PY) -m tests.tools.release

bench: $(STAMP)           # measures, with every plugin and other libraries, and writes docs/benchmarks/*.csv
	$(PY) -m tests.suites bench

FUZZ_S ?= 600
fuzz: $(STAMP)            # mutated files through every parser for FUZZ_S seconds; a later call goes on: docs/benchmarks/fuzz.csv
	set -e; python=$$($(PY) -c "from tests.suites.environments import plugins_environment as e; print(e() / 'bin/python')"); \
	$(PY) -m pip --python $$python install -q -c constraints.txt atheris==3.0.0 aedat rosbags; $$python -m tests.fuzz --seconds $(FUZZ_S)

attacks: $(STAMP)         # kills, full disks, damaged runs, load: docs/benchmarks/attacks.csv; 10 minutes, as root (small disks are mounted)
	set -e; python=$$($(PY) -c "from tests.suites.environments import plugins_environment as e; print(e() / 'bin/python')"); \
	OMP_NUM_THREADS=1 $$python -m tests.benchmarks.attacks

GPU_PYTHON ?= $(PY)
bench-gpu: $(STAMP)       # on a machine with an NVIDIA GPU, with a GPU_PYTHON that has torch for CUDA, triton, cupy and the plugins
	$(GPU_PYTHON) tests/benchmarks/gpu.py

ALGORITHM ?= ppo
figures-rl: $(STAMP)      # trains agents of ALGORITHM (ppo, a2c, dqn, td3) for up to 75 minutes: docs/benchmarks/rl-*.csv
	$(PY) -c "from tests.suites.environments import plugins_environment; plugins_environment()"
	.build/envs/plugins/bin/python plugins/rl-agents/figures/measure.py $(ALGORITHM)

figures: $(STAMP)         # the plugins' published figures, into docs/benchmarks/*.csv: long; some need data in SPIKECORE_DATA; agents: figures-rl
	set -e; python=$$($(PY) -c "from tests.suites.environments import plugins_environment as e; print(e() / 'bin/python')"); \
	for figure in $(filter-out plugins/rl-agents/%,$(wildcard plugins/*/figures/*.py)); do $$python $$figure; done

$(STAMP): pyproject.toml constraints.txt $(wildcard plugins/*/pyproject.toml)
	$(PYTHON) -m venv .venv
	$(PY) -m pip install -q -c constraints.txt torch
	$(PY) -m pip install -q -c constraints.txt -e .[testing] pytest-timeout ruff mypy import-linter build setuptools
	rm -rf *.egg-info  # of the build; read before the installed metadata by whatever runs in this directory
	touch $@
