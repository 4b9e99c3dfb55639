# The commands people type. `make demo` and `make test` need nothing but a Debian 12 clone.
PYTHON ?= python3
BIN := .venv/bin
# Tests and lab run in network, mount and PID namespaces of their own: nothing outlives them, whatever happens.
ISOLATED := $(BIN)/python -m proxsmtp_tp.lab.isolate

.PHONY: demo test test-deploy lint bench format clean

.venv/ready: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=python3.11"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable .
	@touch $@

.venv/installed: .venv/ready
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[iptables]' --group dev
	@touch $@

demo:
	@.ci/packages demo
	@$(MAKE) --no-print-directory .venv/ready
	@$(BIN)/proxsmtp-tp demo

test:
	@.ci/packages test
	@$(MAKE) --no-print-directory .venv/installed lint
	@$(ISOLATED) $(BIN)/python -m pytest --ignore=tests/deploy

# The role in containers with systemd. Apart from `make test`: it makes a Debian root, which takes minutes and the network.
test-deploy: export PATH := $(CURDIR)/$(BIN):$(PATH)
test-deploy:
	@.ci/packages deploy
	@$(MAKE) --no-print-directory .venv/installed
	@$(BIN)/pip install --quiet --disable-pip-version-check --group deploy
	@cd ansible && yamllint . && ansible-lint --offline --profile production --quiet
	@$(BIN)/python -m tests.deploy.prepare
	@$(ISOLATED) $(BIN)/python -m pytest tests/deploy

bench:
	@.ci/packages bench
	@$(MAKE) --no-print-directory .venv/ready
	@$(ISOLATED) $(BIN)/python bench/throughput.py

lint: .venv/installed
	@$(BIN)/ruff format --check --quiet . || { echo "not formatted: make format"; $(BIN)/ruff format --diff --quiet .; exit 1; }
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/lint-imports --no-cache --no-logo >.venv/imports.log 2>&1 || { cat .venv/imports.log; exit 1; }

format: .venv/installed
	@$(BIN)/ruff format --quiet .
	@$(BIN)/ruff check --fix --quiet .

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist
