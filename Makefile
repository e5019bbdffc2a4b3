# make demo: see it work on the sample.  make test: run the tests.
# Both make .venv if there is none. PIP_ARGS goes to pip, to choose a build of torch for instance.
VENV ?= .venv
PYTHON ?= python3
PIP_ARGS ?=
# cluster: Ray, engines and their tests
EXTRAS ?= dev

.PHONY: demo test check install
demo: install
	$(VENV)/bin/kinshelf demo

test: install
	$(VENV)/bin/python -m pytest

check: install
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy -p kinshelf

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml constraints.txt
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) -c constraints.txt -e '.[$(EXTRAS)]'
	touch $@
