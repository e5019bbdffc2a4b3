# make demo: see it work on the sample.  make test: run the tests.  make test-quick: while editing.
# All make .venv if there is none. PIP_ARGS goes to pip, to choose a build of torch for instance.
VENV ?= .venv
PYTHON ?= python3
PIP_ARGS ?=
# What the tests need besides: engines, Ray, a browser (make test installs what it may).
EXTRAS ?= dev
TEST_EXTRAS ?= dev,cluster,cluster-tests
WORKERS ?= 3

.PHONY: demo test test-quick check docs install browser
demo: install
	$(VENV)/bin/kinshelf demo

test: EXTRAS = $(TEST_EXTRAS)
test: $(VENV)/installed-tests browser
	$(VENV)/bin/python -m pytest -n $(WORKERS) --dist worksteal

test-quick: install
	$(VENV)/bin/python -m pytest -n $(WORKERS) --dist worksteal -m "not slow and not wide"

check: install
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy -p kinshelf

docs: EXTRAS = dev,docs
docs: $(VENV)/installed-docs
	$(VENV)/bin/python docs/generate.py --check
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --quiet --strict --site-dir $(VENV)/site
	$(VENV)/bin/python docs/run_notebook.py
	$(VENV)/bin/hadolint Dockerfile
	$(VENV)/bin/python -c "import yaml; yaml.safe_load(open('compose.yaml'))"

install: $(VENV)/installed

# Playwright's own installer where it reaches its server, else the system's packages where it may.
browser:
	@command -v chromium chromium-browser google-chrome >/dev/null || \
	timeout 120 $(VENV)/bin/playwright install chromium >/dev/null 2>&1 || \
	{ [ "$$(id -u)" = 0 ] && apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
	  apt-get install -y -qq --no-install-recommends chromium; } >/dev/null 2>&1 || \
	echo "no Chromium could be installed: the tests of the page will be skipped"

$(VENV)/installed $(VENV)/installed-tests $(VENV)/installed-docs: pyproject.toml constraints.txt
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) -c constraints.txt -e '.[$(EXTRAS)]'
	touch $(VENV)/installed $@
