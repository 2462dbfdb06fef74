# make demo    set up .venv and choose features for the built-in pipeline
# make test    set up .venv and run the tests (ARGS="-k bank" picks some) in two processes (JOBS=4: in four)
# make check   set up .venv and run linter, formatter and type checker
# make clean   remove .venv, builds and caches; what diffsift itself wrote stays
#
# PYTHON=python3.12 make demo   takes another interpreter for a new .venv

PYTHON ?= python3
ARGS ?=
JOBS ?= 2
BIN := .venv/bin
SETUP_FILES := pyproject.toml constraints.txt
SUPPORTED := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.NOTPARALLEL:
.PHONY: help demo test check clean

help:
	@sed -n '/^#/!q; s/^# \{0,1\}//p' Makefile

demo: .venv/.ready-run
	$(BIN)/diffsift demo

test: .venv/.ready-test
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal $(ARGS)

check: .venv/.ready-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m mypy
	$(BIN)/pyright --pythonpath $(BIN)/python

clean:
	rm -rf .venv build dist src/diffsift.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis

# A stamp is written last, so a set-up that was interrupted is taken up again by the next make.
.venv/.ready-run: EXTRAS :=
.venv/.ready-test: EXTRAS := [test]
.venv/.ready-dev: EXTRAS := [dev]

.venv/.ready-run .venv/.ready-test .venv/.ready-dev: $(SETUP_FILES)
	@command -v $(PYTHON) >/dev/null || { \
	    echo "make: Python 3.11, 3.12 or 3.13 is needed, but there is no '$(PYTHON)'; install it, or name one: make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(BIN)/python -c '$(SUPPORTED)' 2>/dev/null || $(PYTHON) -c '$(SUPPORTED)' || { \
	    echo "make: Python 3.11, 3.12 or 3.13 is needed, but '$(PYTHON)' is $$($(PYTHON) --version 2>&1); name another: make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	    echo "make: '$(PYTHON)' cannot make virtual environments; install its venv module (on Debian and Ubuntu: apt-get install python3-venv)" >&2; exit 1; }
	@$(BIN)/python -c 'import pip; $(SUPPORTED)' 2>/dev/null || $(PYTHON) -m venv --clear .venv
	@echo "Setting up .venv with diffsift$(EXTRAS); the first time this downloads some hundred packages."
	$(BIN)/python -m pip install -c constraints.txt "setuptools>=77"
	$(BIN)/python -m pip install -c constraints.txt --no-build-isolation -e ".$(EXTRAS)"
	@touch $@
