# make demo: see it work. make test: check that it does. make report: typeset report.pdf from the kept
# results. All set up what they need in .venv.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test report clean

demo: .venv/ready
	$(BIN)/python test.py
	$(BIN)/python -m Miniproject_1 demo

test: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses 2 --dist loadfile
	$(BIN)/python test.py

report: .venv/ready
	$(BIN)/python -m Miniproject_1 report

.venv/ready: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	touch $@

clean:
	rm -rf .venv data data.partial demo.png
