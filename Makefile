# `make demo` and `make test` set up everything they need in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
SGLANG_VENV := .venv-sglang
SGLANG_INSTALLED := $(SGLANG_VENV)/.installed
VERIFIERS_VENV := .venv-verifiers
VERIFIERS_INSTALLED := $(VERIFIERS_VENV)/.installed
TRACKERS_VENV := .venv-trackers
TRACKERS_INSTALLED := $(TRACKERS_VENV)/.installed
ORACLES_VENV := .venv-oracles
ORACLES_INSTALLED := $(ORACLES_VENV)/.installed
DOCS_VENV := .venv-docs
DOCS_INSTALLED := $(DOCS_VENV)/.installed
REAL_MODEL := .real-model

.PHONY: demo chaos hostile test test-all test-fast test-sglang test-verifiers test-trackers test-real oracles lint docs install clean

demo: $(INSTALLED)
	$(BIN)/python -m llmgym.agents.grpo --env AIOpsTriage $(ARGS)

# Leaves out the long variations: more algorithms, options and moments of what the other tests show.
SHORT = -m "not long"

# A process for every core, each on one thread: faster than one process on all of them. A test that takes a quarter of an
# hour hangs: it fails, and the others go on.
test: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --dist loadfile --timeout 900 $(SHORT) $(ARGS)

test-all:
	$(MAKE) test test-sglang test-real SHORT=

test-fast: $(INSTALLED)
	$(BIN)/python -m pytest -q -m "not slow and not long" $(ARGS)

# Kills a hundred runs at random moments, and compares each with one that nobody killed: about a quarter of an hour.
chaos: $(INSTALLED)
	LLMGYM_CHAOS_KILLS=100 $(BIN)/python -m pytest -q tests/train/test_chaos.py tests/train/test_ranks.py $(ARGS)

# Servers, files, models, templates and texts that mean harm.
hostile: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --dist loadfile -m hostile $(ARGS)

# The real SGLang on a CPU; tests/sglang_cpu/README.md says how.
test-sglang: $(SGLANG_INSTALLED)
	OMP_NUM_THREADS=1 SGLANG_USE_CPU_ENGINE=1 $(SGLANG_VENV)/bin/python -m pytest -q tests/engines/test_sglang_engine.py tests/engines/test_sglang_calls.py tests/engines/test_sglang_judge.py tests/engines/test_sglang_endpoint.py tests/engines/test_sglang_reward_model.py tests/engines/test_sglang_workers.py $(SHORT) $(ARGS)

# The environments of verifiers, which needs an older openai than the one that other packages bring.
test-verifiers: $(VERIFIERS_INSTALLED)
	$(VERIFIERS_VENV)/bin/python -m pytest -q tests/envs/adapters/test_verifiers.py $(ARGS)

# What needs libraries that no other test does: trackers, and trees that look for shortcuts in the reference task.
# scikit-learn stays out of .venv because transformers imports it where it is, which takes seconds.
test-trackers: $(TRACKERS_INSTALLED)
	OMP_NUM_THREADS=1 $(TRACKERS_VENV)/bin/python -m pytest -q tests/train/test_tracking.py tests/envs/aiops/test_shortcuts.py $(ARGS)

# Everything with a real pretrained model, which is made once; the second half samples with the real SGLang.
test-real: export LLMGYM_REAL_MODEL := $(CURDIR)/$(REAL_MODEL)
test-real: $(REAL_MODEL)/model.safetensors $(SGLANG_INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q tests/real $(SHORT) $(ARGS)
	OMP_NUM_THREADS=1 SGLANG_USE_CPU_ENGINE=1 $(SGLANG_VENV)/bin/python -m pytest -q tests/real/test_sglang.py $(SHORT) $(ARGS)

# Losses and advantages beside those of verl and TRL.
oracles: $(ORACLES_INSTALLED)
	$(ORACLES_VENV)/bin/python -m pytest -q tests/oracles $(ARGS)

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m tools.words

# The documentation as a site, in site/; `python3 -m http.server -d site` shows it with its search.
docs: export NO_MKDOCS_2_WARNING := 1
docs: $(DOCS_INSTALLED)
	$(DOCS_VENV)/bin/mkdocs build --strict

install: $(INSTALLED)

# torch comes first: with it in place nothing below pulls in another build of it.
$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev,openenv,reasoning-gym,textarena,textworld-express]"
	touch $@

PURELIB := -c "import sysconfig; print(sysconfig.get_path('purelib'))"

$(SGLANG_INSTALLED): $(INSTALLED) tests/sglang_cpu/requirements.txt
	$(PYTHON) -m venv --clear $(SGLANG_VENV)
	echo "import site; site.addsitedir('$$($(BIN)/python $(PURELIB))'); site.addsitedir('$(CURDIR)/tests/sglang_cpu')" \
		> "$$($(SGLANG_VENV)/bin/python $(PURELIB))/base.pth"
	$(SGLANG_VENV)/bin/pip install --quiet --disable-pip-version-check --no-deps -c constraints.txt \
		sglang -r tests/sglang_cpu/requirements.txt
	touch $@

$(VERIFIERS_INSTALLED): $(INSTALLED)
	$(PYTHON) -m venv --clear $(VERIFIERS_VENV)
	echo "import site; site.addsitedir('$$($(BIN)/python $(PURELIB))')" \
		> "$$($(VERIFIERS_VENV)/bin/python $(PURELIB))/base.pth"
	$(VERIFIERS_VENV)/bin/pip install --quiet --disable-pip-version-check -c constraints.txt verifiers
	touch $@

$(TRACKERS_INSTALLED): $(INSTALLED)
	$(PYTHON) -m venv --clear $(TRACKERS_VENV)
	echo "import site; site.addsitedir('$$($(BIN)/python $(PURELIB))')" \
		> "$$($(TRACKERS_VENV)/bin/python $(PURELIB))/base.pth"
	$(TRACKERS_VENV)/bin/pip install --quiet --disable-pip-version-check -c constraints.txt \
		tensorboard trackio wandb mlflow-skinny sqlalchemy alembic scikit-learn
	touch $@

$(DOCS_INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv --clear $(DOCS_VENV)
	$(DOCS_VENV)/bin/pip install --quiet --disable-pip-version-check -c constraints.txt latex2mathml mkdocs mkdocs-material
	touch $@

# Made once: newer packages are no reason to make it again.
$(REAL_MODEL)/model.safetensors: tests/real/make_model.py | $(INSTALLED)
	$(BIN)/python tests/real/make_model.py $(REAL_MODEL)

# verl asks for much that its functions do not import.
$(ORACLES_INSTALLED): $(INSTALLED) tests/oracles/requirements.txt
	$(PYTHON) -m venv --clear $(ORACLES_VENV)
	echo "import site; site.addsitedir('$$($(BIN)/python $(PURELIB))')" \
		> "$$($(ORACLES_VENV)/bin/python $(PURELIB))/base.pth"
	$(ORACLES_VENV)/bin/pip install --quiet --disable-pip-version-check -c constraints.txt -r tests/oracles/requirements.txt
	$(ORACLES_VENV)/bin/pip install --quiet --disable-pip-version-check --no-deps verl==0.9.1
	touch $@

clean:
	rm -rf $(VENV) $(SGLANG_VENV) $(VERIFIERS_VENV) $(TRACKERS_VENV) $(ORACLES_VENV) $(DOCS_VENV) $(REAL_MODEL) $(REAL_MODEL).partial build dist site *.egg-info
