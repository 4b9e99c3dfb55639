# The commands people type. `make demo` and `make test` need nothing but a Debian 12 clone.
PYTHON ?= python3
BIN := .venv/bin
# As tests/conftest.py does: no process compiles the package again.
unexport PYTHONDONTWRITEBYTECODE
# Tests and lab run in network, mount and PID namespaces of their own: no process remains after them.
ISOLATED := $(BIN)/python -m proxsmtp_tp.lab.isolate
# Tests run in parallel, each process in namespaces of its own. More processes than processors: tests often wait, those in
# containers less.
# A test that takes too long ends its process, and with it the run: xdist would wait for the rest of that process's tests.
TEST_PROCESSES ?= $(shell expr $$(nproc) + $(WAITING))
WAITING := 3
run-test-deploy: WAITING := 1
PYTEST = $(BIN)/python -m pytest --tx "$(TEST_PROCESSES)*popen//python=$(ISOLATED) $(BIN)/python" --dist loadfile \
	--no-loadscope-reorder --max-worker-restart=0 --durations=25
# Options and paths for pytest: make test ARGS="tests/unit/session -k pipelining"
ARGS ?=

# Seconds that a part of the tests may take: twice what a machine with two processors needs. Then it fails and says so.
TEST_SECONDS ?= 1500
MTA_SECONDS ?= 600
DEPLOY_SECONDS ?= 1500
# Run pytest: seconds, arguments.
run-pytest = timeout --kill-after=5 $(1) $(PYTEST) $(2) || { status=$$?; \
	case $$status in 124|137) echo "make $@: not done after $(1) seconds";; esac; exit $$status; }

.PHONY: demo test test-mta test-deploy run-test-deploy prepare-deploy \
	vagrant-test lint lint-deploy bench bench-compare bench-filters format clean deb compiled test-compiled wheel

.venv/ready: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=python3.11"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[demo]'
	@touch $@

.venv/installed: .venv/ready
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[demo,iptables,tls]' --group dev
	@touch $@

.venv/deploy: .venv/installed
	@$(BIN)/pip install --quiet --disable-pip-version-check --group deploy
	@touch $@

demo:
	@.ci/packages demo
	@$(MAKE) --no-print-directory .venv/ready
	@$(BIN)/proxsmtp-tp demo

test:
	@.ci/packages test
	@$(MAKE) --no-print-directory .venv/installed lint
	@$(call run-pytest,$(TEST_SECONDS),--ignore=tests/deploy --ignore=tests/mta $(ARGS))

# Postfix, Exim, sendmail and OpenSMTPD as clients and servers. As root. It fetches the Debian packages that exclude one another.
test-mta:
	@.ci/packages mta
	@.ci/mta-root
	@$(MAKE) --no-print-directory .venv/installed
	@$(call run-pytest,$(MTA_SECONDS),$(or $(ARGS),tests/mta))

# Units, role and migration in containers with systemd. As root: it makes a Debian root of Debian's packages first.
test-deploy:
	@.ci/packages deploy
	@$(MAKE) --no-print-directory .venv/deploy
	@$(MAKE) --no-print-directory --jobs=2 lint-deploy prepare-deploy
	@$(MAKE) --no-print-directory run-test-deploy

# After `make prepare-deploy`.
run-test-deploy: .venv/deploy
	@$(call run-pytest,$(DEPLOY_SECONDS),$(or $(ARGS),tests/deploy))

# `make test-deploy` lints on another processor at the same time.
prepare-deploy: .venv/deploy
	@$(BIN)/python -m tests.deploy.prepare

# A Debian package for each of SUITES (also noble), into dist/. As root: each is built in a root of its release.
SUITES ?= bookworm trixie
deb:
	@.ci/packages deb
	@$(MAKE) --no-print-directory .venv/ready
	@$(BIN)/python -m tools.deb $(SUITES)

# The Vagrantfile brought up for real, in emulated machines: an hour. Not part of what CI runs.
BOX = $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/proxsmtp-tp/box
vagrant-test: export PATH := $(CURDIR)/$(BIN):$(PATH)
vagrant-test:
	@.ci/packages vagrant
	@$(MAKE) --no-print-directory .venv/deploy
	@$(BIN)/python -m tests.deploy.prepare --wheels
	@test -e $(BOX)/proxsmtp-test.box || vagrant/make-box $(BOX)
	@$(ISOLATED) vagrant/emulated

# Rates, CPU time and latency beside haproxy and others, into README.md, in at most 20 minutes. As root: Postfix runs.
# QUICK=1: each figure once, README.md stays as it is. COMPILED=0: without the compiled core.
COMPILED ?=
bench:
	@.ci/packages bench
	@$(MAKE) --no-print-directory .venv/installed
	@[ "$(COMPILED)" = 0 ] || $(BIN)/python -m tools.compiled >&2
	@$(ISOLATED) $(BIN)/python -m bench.run $(if $(filter 0,$(COMPILED)),,--compiled build/compiled) $(if $(QUICK),--quick,--readme) $(ARGS)

# A revision beside the tree as it is. COMPILED=1: both with the compiled core. QUICK=1: short samples.
bench-compare: REVISION = $(or $(BASE),$(error which revision? make bench-compare BASE=HEAD~1))
bench-compare: FORM = $(if $(filter 1,$(COMPILED)),--compiled build/compiled)
bench-compare:
	@.ci/packages bench
	@$(MAKE) --no-print-directory .venv/installed
	@[ -z "$(FORM)" ] || $(BIN)/python -m tools.compiled >&2
	@$(ISOLATED) $(BIN)/python -m bench.compare --base "$(REVISION)" $(FORM) $(if $(QUICK),--quick) $(ARGS)

# What each type of filter costs, beside Postfix with the same milter. As root: Postfix runs.
bench-filters:
	@.ci/packages bench
	@$(MAKE) --no-print-directory .venv/installed
	@$(ISOLATED) $(BIN)/python -m bench.filters $(ARGS)

lint: .venv/installed
	@$(BIN)/ruff format --check --quiet . || { echo "not formatted: make format"; $(BIN)/ruff format --diff --quiet .; exit 1; }
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/lint-imports --no-cache --no-logo >.venv/imports.log 2>&1 || { cat .venv/imports.log; exit 1; }

# What is not Python. ansible-lint runs with the programs beside it.
lint-deploy: export PATH := $(CURDIR)/$(BIN):$(PATH)
lint-deploy: export VAGRANT_HOME := $(CURDIR)/.venv/vagrant
lint-deploy: export VAGRANT_DOTFILE_PATH := $(CURDIR)/.venv/vagrant/dot
lint-deploy: .venv/deploy
	@cd ansible && yamllint . ../vagrant && ansible-lint --offline --profile production -q . ../vagrant/gateway.yml
	@cd vagrant && VAGRANT_DEFAULT_PROVIDER=libvirt vagrant validate >$(CURDIR)/.venv/vagrant.log 2>&1 || { cat $(CURDIR)/.venv/vagrant.log; exit 1; }

format: .venv/installed
	@$(BIN)/ruff format --quiet .
	@$(BIN)/ruff check --fix --quiet .

# A copy of the tree with the compiled core, in build/compiled: `cd build/compiled && .venv/bin/python -m pytest ...`
compiled:
	@.ci/packages test
	@$(MAKE) --no-print-directory .venv/installed
	@$(BIN)/python -m tools.compiled

# The suites that run compiled code, in that copy.
COMPILED_TESTS = $(addprefix tests/unit/,smtp tls session telemetry net filters service) tests/unit/tools/test_compiled_modules.py \
	tests/fuzz tests/faults tests/conformance
test-compiled: compiled
	@cd build/compiled && $(call run-pytest,$(TEST_SECONDS),$(or $(ARGS),$(COMPILED_TESTS)))

# The wheel for any Python, and the compiled one for that of .venv, into dist/. pip takes the one that fits.
wheel:
	@.ci/packages test
	@$(MAKE) --no-print-directory .venv/ready
	@rm -f dist/proxsmtp_tp-*.whl
	@$(BIN)/pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist .
	@HATCH_BUILD_HOOK_ENABLE_CUSTOM=true $(BIN)/pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist .
	@ls dist/proxsmtp_tp-*.whl

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist
