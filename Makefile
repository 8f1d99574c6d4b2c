# make demo: see it work. make test: check that it does; make quick: what of it takes less than a minute. make
# report: report.pdf and the tables of README and docs from the kept results. All set up what they need in .venv.
# make oldest: the wheel, in an environment of its own with the
# oldest torch that it takes, first with nothing else, then with all that it can ask for but the page; and the tests
# there, but for four files of tests that hardly touch torch. The page is left to make test: gradio asks for an older Pillow, and
# here the newest is tested.
PYTHON ?= python3
BIN := .venv/bin
SUITE := pytest --numprocesses 2 --dist loadfile
OLD := .venv-oldest
HARDLY_TORCH := docs packaging report statistics
OLDEST_TORCH := $(shell sed -n 's/^dependencies = \["torch>=\(.*\)"\]$$/\1/p' pyproject.toml)

.PHONY: demo test quick style report oldest clean

demo: .venv/ready
	$(BIN)/python test.py
	$(BIN)/python -m Miniproject_1 demo
	@echo "Your own pictures, in the browser: $(BIN)/python -m Miniproject_1 page"

test: style
	OMP_NUM_THREADS=1 $(BIN)/$(SUITE)
	$(BIN)/python test.py

quick: style
	OMP_NUM_THREADS=1 $(BIN)/$(SUITE) tests/test_course.py tests/test_docs.py tests/test_metrics.py tests/test_study.py

style: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

report: .venv/ready
	$(BIN)/python -m Miniproject_1 report --pages README.md docs/*.md

oldest:
	rm -rf $(OLD)
	$(PYTHON) -m venv $(OLD)
	$(OLD)/bin/python -m pip wheel --quiet --no-deps --wheel-dir $(OLD) .
	$(OLD)/bin/python -m pip install --quiet 'torch==$(OLDEST_TORCH).*' $(OLD)/*.whl
	cd $(OLD) && bin/python -c "import torch; torch.save((torch.randint(0, 256, (128, 3, 32, 32)).byte(),) * 2, 'pairs.pkl')"
	cd $(OLD) && bin/miniproject-1 train pairs.pkl -o model.pth --epochs 1 && test -s model.pth
	$(OLD)/bin/python -m pip install --quiet "$$(echo $(OLD)/*.whl)[denoise]"
	cd $(OLD) && bin/miniproject-1 demo && bin/miniproject-1 denoise demo.png -o denoised.png --weights model.pth
	$(OLD)/bin/python -m pip install --quiet "$$(echo $(OLD)/*.whl)[test]"
	$(OLD)/bin/python -c "import torch; assert torch.__version__.startswith('$(OLDEST_TORCH).')"
	OMP_NUM_THREADS=1 $(OLD)/bin/$(SUITE) $(HARDLY_TORCH:%=--ignore tests/test_%.py)

.venv/ready: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[test,test-page]'
	touch $@

clean:
	rm -rf .venv $(OLD) build data.partial demo.png
