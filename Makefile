# What a user types; README.md and CONTRIBUTING.md explain.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
# The tests on the cluster with accounting.
ACCOUNTING ?= tests/slurm
PINNED = -m pip install --disable-pip-version-check --quiet --require-hashes
INSTALL = $(BIN)/python $(PINNED)
RESOLVE = uv pip compile --universal --python-version 3.11 --generate-hashes --no-strip-extras --no-annotate --no-emit-index-url \
	--custom-compile-command "make lock" --quiet
STUDY = pyproject.toml workflow/plugins/pyproject.toml --extra study --extra text --group build
# Not the newest JAX: kfac-jax 0.0.8 fails with 0.9.2, and with 0.8.3 its small steps take up to twice the time.
PEERS = .venv-peers
PEERS_PYTHON ?= python3.11

.PHONY: environment quickstart test test-slurm benchmark benchmark-peers docs lint lock clean

environment: $(VENV)/installed  ## the pinned packages in .venv

quickstart: $(VENV)/installed  ## the whole study in small, on embedded data
	$(BIN)/snakemake --configfile workflow/config/quickstart.yaml
	$(BIN)/snakemake --configfile workflow/config/quickstart.yaml --report results/quickstart/report.html
	@echo "Open results/quickstart/index.html; figures, tables and report.html are beside it"

test: $(VENV)/installed-dev  ## every test that needs neither a GPU nor Slurm nor a network
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 --dist loadfile \
		-m "not gpu and not slurm and not network"

test-slurm: $(VENV)/installed-dev  ## the executor on two real Slurm clusters, installed and started for it: needs root
	@tests/slurm/cluster.sh install accounting && tests/slurm/cluster.sh start && \
		tests/slurm/cluster.sh start accounting || \
		echo "There are no test clusters here: the tests say what they skip, or fail where ADAMQLR_NEEDS_SLURM is set"
	@log=$$(mktemp); $(BIN)/python -m pytest -m "slurm and accounting" -rs $(ACCOUNTING) >$$log 2>&1 & accounting=$$!; \
		$(BIN)/python -m pytest -m "slurm and not accounting" -rs tests/slurm; status=$$?; \
		wait $$accounting || status=1; cat $$log; rm $$log; tests/slurm/cluster.sh stop; exit $$status

benchmark: $(VENV)/installed-dev  ## training steps against PyTorch's fused Adam and the device's limits, in minutes
	$(BIN)/python -m tests.benchmarks

benchmark-peers: $(VENV)/installed-dev $(PEERS)/installed  ## the same steps by JAX and kfac-jax beside this project's
	$(BIN)/python -m tests.benchmarks.peers

docs: $(VENV)/installed-dev  ## the documentation, in site/; a link or reference that leads nowhere is an error
	$(BIN)/sphinx-build --conf-dir docs --fail-on-warning --keep-going --quiet . site
	@echo "The documentation is in site/index.html"

lint: $(VENV)/installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/snakefmt --check Snakefile workflow/rules
	$(BIN)/snakemake --lint

lock:  ## resolve the pinned packages anew; needs uv
	$(RESOLVE) $(STUDY) --constraints envs/constraints.txt --output-file envs/requirements.lock
	$(RESOLVE) $(STUDY) --group test --group lint --group docs --constraints envs/requirements.lock \
		--output-file envs/requirements-dev.lock
	printf '%s\n' jax==0.4.30 jaxlib==0.4.30 kfac-jax==0.0.6 | $(RESOLVE) - --output-file envs/peers.lock

clean:  ## remove the environments, the documentation and the quickstart's results
	rm -rf $(VENV) $(PEERS) results/quickstart site

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; name one with: make PYTHON=python3.12" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: envs/requirements.lock pyproject.toml workflow/plugins/pyproject.toml | $(VENV)/bin/python
	@echo "Installing the pinned packages into $(VENV): PyTorch is large, this takes minutes"
	$(INSTALL) -r envs/requirements.lock
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps --no-build-isolation \
		--editable . --editable workflow/plugins
	touch $@

$(VENV)/installed-dev: envs/requirements-dev.lock $(VENV)/installed
	$(INSTALL) -r envs/requirements-dev.lock
	touch $@

$(PEERS)/installed: envs/peers.lock
	@$(PEERS_PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' || \
		{ echo "JAX 0.4.30 needs Python 3.11 or 3.12; name one with: make PEERS_PYTHON=python3.12" >&2; exit 2; }
	$(PEERS_PYTHON) -m venv $(PEERS)
	echo '*' > $(PEERS)/.gitignore
	$(PEERS)/bin/python $(PINNED) -r envs/peers.lock
	touch $@
