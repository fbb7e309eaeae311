# Everything runs in .venv, which the targets make themselves; a second run
# reuses it. To choose the interpreter: make demo PYTHON=/path/to/python3.12
PYTHON ?=
CANDIDATES := python3 python3.13 python3.12 python3.11
VENV := .venv
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check
# Each worker imports TensorFlow; a file's tests stay together where they can.
WORKERS ?= 2
PYTEST := $(VENV)/bin/python -m pytest -n $(WORKERS) --dist worksteal
# The slow tests in parts: make test-slow PART=graphs
PART := all
SLOW_graphs := tests/surgery
SLOW_files := tests/export tests/fuzz
SLOW_runs := tests/benchmarks/test_benchmarks.py tests/cli tests/docs
SLOW_kills := tests/atomic_files tests/compression tests/pruning \
  tests/test_crash.py
# They need what benchmarks/compare.py trains beside Keras, in .venv-bench.
SLOW_bench := $(wildcard tests/benchmarks/test_comparison_*.py) \
  tests/benchmarks/test_peers.py
SLOW_all := tests $(addprefix --ignore=,$(SLOW_bench))
# What has to hold on JAX and on torch as on TensorFlow.
BACKEND_TESTS := tests/test_identities.py tests/layers/test_masks.py \
  tests/data/test_shuffling.py \
  $(addprefix tests/distillation/test_,exact_swap.py feature_hints.py \
    penalties.py student_state.py terms.py) \
  $(addprefix tests/pruning/test_,activity.py padding.py run.py)
# What has to hold on the oldest versions that pyproject.toml allows.
OLDEST_TESTS := tests/test_compat.py tests/test_identities.py tests/layers \
  tests/pruning/test_run.py tests/surgery \
  $(addprefix tests/distillation/test_,exact_swap.py student_state.py \
    swap_folds.py) \
  $(addprefix tests/export/test_,int8.py microcontroller.py recurrent.py \
    saved_model.py tf_keras_bridge.py tflite.py verify.py)
# PyPI's torch for Linux brings gigabytes of CUDA; a build without it does too.
TORCH := torch

export TF_CPP_MIN_LOG_LEVEL ?= 3

.PHONY: help demo test test-slow test-bench test-oldest test-backends \
  test-jax test-torch benchmark runtimes lint clean

help:
	@echo "make demo       distil, prune and export a digits model: runs/demo"
	@echo "make test       ruff, mypy and the tests, on $(WORKERS) workers"
	@echo "make test-slow  the tests that take minutes; in parts: PART=graphs"
	@echo "                (10 minutes), PART=files (4), PART=runs (10),"
	@echo "                PART=kills (10: runs that are killed everywhere),"
	@echo "                PART=bench (2: data and peers of the benchmark) or"
	@echo "                PART=oldest (about 20: the core on the oldest versions"
	@echo "                that pyproject.toml allows); the last two are also"
	@echo "                make test-bench and make test-oldest"
	@echo "make test-backends  tests on JAX and on torch (15 minutes), each in"
	@echo "                a .venv of its own; or make test-jax, make test-torch"
	@echo "make benchmark  KDDP beside its controls and peers on digits, in"
	@echo "                .venv-bench; or DATA=fashion: hours, in parts of"
	@echo "                MINUTES=100"
	@echo "make runtimes   tflite-runtime beside the rest, for kddp verify"
	@echo "make lint       ruff and mypy only"
	@echo "make clean      remove all .venv, caches and build output; keep runs/"

demo: $(VENV)/.installed-demo
	$(VENV)/bin/kddp demo --out runs/demo --overwrite

test: lint
	$(PYTEST)

ifneq ($(filter bench oldest,$(PART)),)
test-slow: test-$(PART)
else
test-slow: $(VENV)/.installed-test runtimes
	$(PYTEST) -m slow $(or $(SLOW_$(PART)),$(error no part $(PART)))
	$(if $(filter all,$(PART)),$(MAKE) test-bench test-oldest)
endif

test-bench: .venv-bench/.installed
	.venv-bench/bin/python -m pytest -n $(WORKERS) --dist worksteal -m slow \
	  $(SLOW_bench)

# Old libraries deprecate what others of them still use.
test-oldest: .venv-oldest/.installed
	.venv-oldest/bin/python -m pytest -n $(WORKERS) --dist worksteal \
	  -W ignore::DeprecationWarning $(OLDEST_TESTS)

test-backends: test-jax test-torch

# Goes on where it was stopped; MINUTES=60: starts no run after an hour.
benchmark: .venv-bench/.installed
	.venv-bench/bin/python benchmarks/compare.py --data $(or $(DATA),digits) \
	  $(and $(MINUTES),--minutes $(MINUTES))

# JAX has no float64 unless it is asked for.
test-jax: export JAX_ENABLE_X64 := 1
test-jax test-torch: test-%: .venv-%/.installed
	KERAS_BACKEND=$* .venv-$*/bin/python -m pytest -n $(WORKERS) \
	  --dist worksteal -m "not slow and not no_$*" $(BACKEND_TESTS)

# tflite-runtime needs NumPy below 2 and Python 3.11.
runtimes: $(VENV)/tflite-runtime/.installed

lint: $(VENV)/.installed-test
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

clean:
	rm -rf $(VENV) .venv-oldest .venv-jax .venv-torch .venv-bench build dist *.egg-info
	rm -rf .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp is newer than pyproject.toml when what that lists is installed.
$(VENV)/.installed-demo: pyproject.toml | $(VENV)/.created
	@echo "Installing keras-kddp into $(VENV): minutes on the first run."
	$(PIP) install --quiet --editable '.[micro]'
	@touch $@

$(VENV)/.installed-test: pyproject.toml | $(VENV)/.created
	@echo "Installing keras-kddp[dev] into $(VENV): minutes on the first run."
	$(PIP) install --quiet --editable '.[dev]'
	@touch $@

# A backend beside TensorFlow, which Keras loads where it finds it.
.venv-jax/.installed: EXTRA := .[jax,test]
.venv-torch/.installed: EXTRA := .[torch,test]
.venv-bench/.installed: EXTRA := .[bench,test]
.venv-bench/.installed .venv-jax/.installed \
  .venv-torch/.installed: pyproject.toml | $(VENV)/.created
	@echo "Installing keras-kddp into $(@D): minutes, and gigabytes."
	@$(VENV)/bin/python -m venv $(@D)
	@$(@D)/bin/python -m pip --disable-pip-version-check install --quiet \
	  --editable '$(EXTRA)' $(if $(findstring jax,$@),,'$(TORCH)')
	@touch $@

# Makes $(@D) with Python 3.11, which $(1) needs.
define make_venv_of_311
@for python in $(VENV)/bin/python python3.11; do \
  "$$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' \
    >/dev/null 2>&1 || continue; \
  "$$python" -m venv --clear $(@D) && exit 0; \
  exit 1; \
done; \
echo "error: $(1) Python 3.11, and there is none here." >&2; \
exit 1
endef

# A new one each time: what is installed and new enough would be kept.
.venv-oldest/.installed: pyproject.toml | $(VENV)/.created
	@echo "Installing the oldest versions into $(@D): minutes, and gigabytes."
	$(call make_venv_of_311,the oldest versions need)
	@$(@D)/bin/python -m pip --disable-pip-version-check install --quiet uv
	@$(@D)/bin/uv pip install --quiet --python $(@D) \
	  --resolution lowest-direct --editable \
	  '.[data,tfmot,micro,vela,int4,hub,report,test]'
	@touch $@

$(VENV)/tflite-runtime/.installed: | $(VENV)/.created
	$(call make_venv_of_311,tflite-runtime needs)
	@$(@D)/bin/python -m pip --disable-pip-version-check install --quiet \
	  'tflite-runtime==2.14.0' 'numpy<2'
	@touch $@

# Keeps a .venv that works; else takes $(PYTHON), or the first candidate that
# is new enough and has venv.
IS_NEW := import sys; sys.exit(sys.version_info < (3, 11))

$(VENV)/.created:
	@if $(VENV)/bin/python -c '$(IS_NEW)' >/dev/null 2>&1; then \
	  $(VENV)/bin/python -c 'import pip' >/dev/null 2>&1 \
	    || $(VENV)/bin/python -m ensurepip || exit 1; \
	  touch $@; exit 0; \
	fi; \
	unfit=; \
	for python in $(if $(PYTHON),'$(PYTHON)',$(CANDIDATES)); do \
	  "$$python" -c '$(IS_NEW)' >/dev/null 2>&1 || continue; \
	  unfit="$${unfit:-$$python}"; \
	  "$$python" -c 'import ensurepip, venv' >/dev/null 2>&1 || continue; \
	  echo "Making $(VENV) with $$python ($$("$$python" --version))."; \
	  "$$python" -m venv --clear $(VENV) && touch $@ && exit 0; \
	  exit 1; \
	done; \
	if [ -n "$$unfit" ]; then \
	  echo "error: $$unfit lacks the module venv or ensurepip; install it" \
	    "(Debian, Ubuntu: apt-get install python3-venv) or pass" \
	    "PYTHON=/path/to/python." >&2; \
	else \
	  found="$$('$(or $(PYTHON),python3)' --version 2>&1 | head -n 1)"; \
	  echo "error: Python 3.11 or newer is needed, found:" \
	    "$${found:-none}; pass PYTHON=/path/to/python." >&2; \
	fi; \
	exit 1
