# `make demo` and `make test` are all a fresh machine with Python and make needs: both build .venv first.
PYTHON ?= python3
EXTRA ?= cpu
DEMO ?= lj7
RUN = .venv/bin/python -m
# One thread a process: the networks are small, and the tests run two processes.
export OMP_NUM_THREADS = 1

.PHONY: demo test test-slow lint examples clean

.venv/.ready: pyproject.toml
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --editable '.[$(EXTRA),dev]'
	touch $@

demo: .venv/.ready
	.venv/bin/latf-openmm run $(DEMO) --output demo/$(DEMO)
	.venv/bin/latf-openmm report demo/$(DEMO)

test: .venv/.ready
	$(RUN) pytest -n 2 --dist loadfile

test-slow: .venv/.ready
	$(RUN) pytest -m slow

lint: .venv/.ready
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(RUN) mypy

examples: .venv/.ready
	rm -rf demo/examples && mkdir -p demo/examples
	.venv/bin/python examples/active_learning_loop.py --config three_hole --output demo/examples/loop --fast
	.venv/bin/python examples/bias_simulation.py --output demo/examples/biased.csv --fast
	.venv/bin/python examples/generate_ensemble.py demo/examples/lj7 --temperature 0.35 \
		--output demo/examples/ensemble --fast

clean:
	rm -rf .venv demo
