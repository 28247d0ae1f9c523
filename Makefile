# `make demo` and `make test` are all a fresh machine with Python and make needs: both build .venv first.
PYTHON ?= python3
DEMO ?= lj7/fast
EMPTY ?=
RUN = .venv/bin/python -m
# One thread a process: the networks are small, and the tests run two processes.
export OMP_NUM_THREADS = 1

.PHONY: demo test test-torchforce lint docs examples notebooks wheel clean

.venv/.ready: pyproject.toml
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --editable '.[dev]'
	# ParmEd writes the files that tests of Amber, Gromacs and CHARMM readers need; it wants a C++ compiler.
	-.venv/bin/python -m pip install --quiet --editable '.[formats]'
	touch $@

# The short form, as `latf-openmm demo` has it; with DEMO=lj7, or another system of the library, the whole of it.
demo: .venv/.ready
ifeq ($(DEMO),lj7/fast)
	.venv/bin/latf-openmm demo --output demo/latf-demo
else
	.venv/bin/latf-openmm run $(DEMO) --output demo/$(DEMO)
	.venv/bin/latf-openmm report demo/$(DEMO)
endif

test: .venv/.ready
	$(RUN) pytest -n 2 --dist loadfile

# The oldest versions, with TorchForce: what biases OpenMM, in an environment of its own.
.venv-torchforce/.ready: pyproject.toml
	$(PYTHON) -m venv .venv-torchforce
	.venv-torchforce/bin/python -m pip install --quiet --editable '.[torchforce-cpu,dev]' torch==2.12.* openmm==8.5.*
	touch $@

test-torchforce: .venv-torchforce/.ready
	.venv-torchforce/bin/python -m pytest -n 2 --dist loadfile tests/bias tests/doctor tests/sampling/test_windows.py

lint: .venv/.ready
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(RUN) mypy
	.venv/bin/lint-imports --no-cache --no-logo
	$(RUN) mypy --strict tests/typed_script.py

# The site reads files only: no fonts, no scripts and no inventories from elsewhere.
docs: .venv/.ready
	.venv/bin/python -m pip install --quiet --editable '.[docs]'
	$(RUN) mkdocs build --strict --clean

examples: .venv/.ready
	rm -rf demo/examples && mkdir -p demo/examples
	.venv/bin/python examples/active_learning_loop.py --config three_hole --output demo/examples/loop --fast
	.venv/bin/python examples/bias_simulation.py --output demo/examples/biased.csv --fast
	.venv/bin/python examples/generate_ensemble.py demo/examples/lj7 --temperature 0.35 \
		--output demo/examples/ensemble --fast
	.venv/bin/python examples/chignolin/melting.py --output demo/examples/melting --fast

# Five notebooks, executed two at a time: about two minutes on two cores.
notebooks: .venv/.ready
	.venv/bin/python -m pip install --quiet --editable '.[notebooks]'
	.venv/bin/python examples/notebooks/build.py --output demo/notebooks

# What a release is made of, checked; the installed wheel must work without the checkout (RELEASING.md).
wheel: .venv/.ready
	.venv/bin/python -m pip install --quiet --editable '.[release]'
	rm -rf demo/wheel && mkdir -p demo/wheel
	$(RUN) build --outdir demo/wheel/dist .  # the wheel is built from the source distribution
	$(RUN) twine check --strict demo/wheel/dist/*
	.venv/bin/check-wheel-contents demo/wheel/dist/*.whl
	EMPTY=$(EMPTY) .ci/installed demo/wheel/dist/*.whl

clean:
	rm -rf .venv .venv-torchforce demo
