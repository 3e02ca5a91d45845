# Every recurring command by one name. Needs `git make python3-venv` (Debian 12) and nothing else: the first target
# that runs code makes `.venv`. An environment is installed again only when pyproject.toml changed.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check
# Two levels: what the product needs to run, and what it needs to be developed. The second holds the first.
RUN := $(VENV)/.installed-run
DEV := $(VENV)/.installed-dev

SIM_SEEDS ?= 1000
SIM_AGENTS ?=
PYTEST_ARGS ?=
BENCH_ARGS ?=

# Two boots: Debian's usual kernel for limits, and a real-time box with cores, cards, lines and USB for devices.
EDGEBOX := $(PY) test/edgebox/edgebox.py
EDGEBOX_PYTEST = -- $(PY) -m pytest -p no:cacheprovider $(PYTEST_ARGS)
EDGEBOX_V2 := test/edgebox/test_cgroups_v2.py test/edgebox/test_executors_v2.py test/integration/test_cgroups.py
EDGEBOX_REALTIME := --rt --smp 4 --isolate 2-3 --nic e1000e --nic e1000e --modules --usb --memory 4096 \
  --with docker.io --with busybox-static

.PHONY: help demo test check proto docs sim bench test-edgebox clean

help: ## list the targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/\1|\2/p' $(MAKEFILE_LIST) | while IFS='|' read -r name text; do printf '  make %-14s %s\n' "$$name" "$$text"; done

demo: $(RUN) ## a master, two agents and a sample framework on this machine, for less than a minute
	@$(PY) -m edgerm_frameworks.demo

test: check ## all checks, then all tests; as root on Debian it installs what they need of its packages
	@test/install.sh
	@$(PY) -m pytest $(PYTEST_ARGS)

check: $(DEV) ## lint, format, types and import contracts; fast
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(VENV)/bin/lint-imports --no-logo

proto: $(DEV) ## generate edgerm/wire/v1 from proto/
	$(PY) proto/generate.py

docs: $(DEV) ## the pages that strangers read, as a site: docs/_build/html
	$(PY) docs/states.py
	$(PY) docs/build.py

sim: $(DEV) ## the simulator over many seeds: SIM_SEEDS=1000; or one great fleet: SIM_AGENTS=10000
	$(PY) -m edgerm.testing.sim $(if $(SIM_AGENTS),--agents $(SIM_AGENTS),--seeds $(SIM_SEEDS))

bench: $(DEV) ## measure against floors and peers in the same run
	$(PY) test/bench/run.py $(BENCH_ARGS)

test-edgebox: $(DEV) ## tests that need another kernel (cgroup v2, real-time, devices), in throw-away VMs; as root
	@[ "$$(id -u)" -eq 0 ] || { echo "make test-edgebox: needs root, to start the VM: run it with sudo" >&2; exit 2; }
	$(EDGEBOX) --time-limit 180 $(EDGEBOX_PYTEST) $(EDGEBOX_V2)
	$(EDGEBOX) --time-limit 540 $(EDGEBOX_REALTIME) $(EDGEBOX_PYTEST) test/edgebox $(EDGEBOX_V2:%=--ignore=%)

clean: ## remove the environment, caches and what was built
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist docs/_build
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# An environment that cannot run pip (cut short, its Python gone) is made again.
define VENV_READY
@if $(PY) -c 'import pip' 2>/dev/null; then exit 0; fi; \
if ! $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null; then \
  echo "make: no Python that can make virtual environments. Run: apt install git make python3-venv" >&2; exit 2; fi; \
if ! $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then \
  echo "make: $$($(PYTHON) --version) is too old, edgerm needs 3.11. Name a newer one: make PYTHON=python3.11" >&2; exit 2; fi; \
echo "making $(VENV) with $$($(PYTHON) --version)"; $(PYTHON) -m venv --clear $(VENV)
endef

$(RUN): pyproject.toml
	$(VENV_READY)
	@echo "installing edgerm into $(VENV)"
	@$(PIP) install --quiet --editable '.[all]'
	@touch $@

$(DEV): pyproject.toml
	$(VENV_READY)
	@echo "installing edgerm and its development tools into $(VENV)"
	@$(PIP) install --quiet --editable '.[dev]'
	@touch $(RUN) $@
