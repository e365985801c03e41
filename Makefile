# `make demo` and `make test` set up everything they need in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
SGLANG_VENV := .venv-sglang
SGLANG_INSTALLED := $(SGLANG_VENV)/.installed

.PHONY: demo test test-fast test-sglang lint install clean

demo: $(INSTALLED)
	$(BIN)/python -m llmgym.agents.grpo --env AIOpsTriage $(ARGS)

test: $(INSTALLED)
	$(BIN)/python -m pytest -q $(ARGS)

test-fast: $(INSTALLED)
	$(BIN)/python -m pytest -q -m "not slow" $(ARGS)

# The real SGLang on a CPU; tests/sglang_cpu/README.md says how.
test-sglang: $(SGLANG_INSTALLED)
	SGLANG_USE_CPU_ENGINE=1 $(SGLANG_VENV)/bin/python -m pytest -q tests/rollout/test_sglang_engine.py $(ARGS)

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

install: $(INSTALLED)

# torch comes first: with it in place nothing below pulls in another build of it.
$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@

PURELIB := -c "import sysconfig; print(sysconfig.get_path('purelib'))"

$(SGLANG_INSTALLED): $(INSTALLED) tests/sglang_cpu/requirements.txt
	$(PYTHON) -m venv --clear $(SGLANG_VENV)
	echo "import site; site.addsitedir('$$($(BIN)/python $(PURELIB))'); site.addsitedir('$(CURDIR)/tests/sglang_cpu')" \
		> "$$($(SGLANG_VENV)/bin/python $(PURELIB))/base.pth"
	$(SGLANG_VENV)/bin/pip install --quiet --disable-pip-version-check --no-deps -c constraints.txt \
		sglang -r tests/sglang_cpu/requirements.txt
	touch $@

clean:
	rm -rf $(VENV) $(SGLANG_VENV) build dist *.egg-info
