# Two commands are enough: `make book` and `make test`. Each sets up .venv by itself.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
BOOK := _build/html/index.html
BUILT := _build/.built
WORKERS ?= 2
PORT ?= 8000
VERSIONS ?= lowest

CHAPTERS := $(sort $(wildcard chapters/[0-9A-Za-z]*.ipynb))
SOURCES := _config.yml _toc.yml references.bib $(wildcard *.md chapters/*.md) $(CHAPTERS) $(wildcard _static/* _ext/*.*)

# One thread a process: chapters run side by side, and sums come out the same on every machine.
export OMP_NUM_THREADS ?= 1
# Tests are compiled once, not by each worker each time.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help book serve test chapters pages slides pdf lint bounds clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' Makefile

book: $(BUILT)  ## build the book; any warning is an error
	@$(BIN)/python -c 'import pathlib; print("The book is at", pathlib.Path("$(BOOK)").resolve().as_uri())'
	@echo "'make serve' shows it at a local address."

serve: book  ## show the book at a local address (PORT=8000)
	$(BIN)/python -m http.server $(PORT) --bind 127.0.0.1 --directory _build/html

test: $(BUILT)  ## unit tests, chapters (outputs compared) and built pages
	$(BIN)/python -m pytest --nbval -m "not slow" -n $(WORKERS) --dist loadfile tests chapters

chapters: $(INSTALLED)  ## execute and tidy all chapters, then make pages
	$(BIN)/python tools/execute.py $(CHAPTERS)
	$(MAKE) pages

pages: $(INSTALLED)  ## renew what is generated, without running a chapter (FAMILY= for the rows of one family alone)
	$(BIN)/python tools/zoo_table.py $(FAMILY:%=--family %)
	$(BIN)/python tools/reference.py
	$(BIN)/python tools/gallery.py
	$(BIN)/python tools/experiments_page.py
	$(BIN)/python tools/family_tree.py

slides: $(BUILT)  ## each chapter's pictures, formulas and questions as slides that run offline, in _build/slides
	$(BIN)/python tools/slides.py

pdf: $(BUILT)  ## the whole book as _build/cnn-architectures.pdf
	$(BIN)/python tools/pdf.py

lint: $(INSTALLED)  ## check the chapter rules
	$(BIN)/python tools/lint_chapters.py $(CHAPTERS)

bounds:  ## the package's tests beside the lowest or the newest versions that it allows (VERSIONS=lowest INSTEAD=)
	$(PYTHON) -m venv --clear .venv-$(VERSIONS)
	.venv-$(VERSIONS)/bin/python tools/bounds.py $(VERSIONS) $(INSTEAD)
	cd tests && PYTHONPATH=../tools ../.venv-$(VERSIONS)/bin/python -m pytest -q -m "not slow" -c ../pyproject.toml --rootdir .. \
	  test_models.py test_analysis_cost.py test_analysis_fields.py test_analysis_memory.py test_data.py test_train.py test_notebook.py

clean:  ## remove the built book; .venv stays
	rm -rf _build

# The environment: made once, renewed when a pin or the package's own metadata changes.
$(INSTALLED): requirements.txt pyproject.toml setup.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; name one with: make PYTHON=python3.12")'
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV) || { \
	  rm -rf $(VENV); \
	  echo "$(PYTHON) cannot make a virtual environment with pip. On Debian and Ubuntu: sudo apt-get install python3-venv"; \
	  exit 1; }
	$(BIN)/python -m pip install --quiet --requirement requirements.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

$(BUILT): $(INSTALLED) $(SOURCES)
	$(BIN)/python -c "from jupyter_book.cli.main import main; main()" build . --all -W --keep-going -n -q
	@touch $@
