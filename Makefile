# `make demo` and `make test` are all a fresh machine with Python and make needs: both build .venv first.
PYTHON ?= python3
DEMO ?= lj7
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

demo: .venv/.ready
	.venv/bin/latf-openmm run $(DEMO) --output demo/$(DEMO)
	.venv/bin/latf-openmm report demo/$(DEMO)

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

# Five notebooks, executed: three to seven minutes.
notebooks: .venv/.ready
	.venv/bin/python -m pip install --quiet --editable '.[notebooks]'
	.venv/bin/python examples/notebooks/build.py --output demo/notebooks

# The installed wheel must work without the checkout: it carries the system library.
wheel: .venv/.ready
	rm -rf demo/wheel && mkdir -p demo/wheel
	.venv/bin/pip wheel --quiet --no-deps --wheel-dir demo/wheel .
	.venv/bin/pip install --quiet --no-deps --target demo/wheel/site demo/wheel/*.whl
	cd demo/wheel && PYTHONPATH=site ../../.venv/bin/python -c "import latf_openmm; \
		assert latf_openmm.__file__.endswith('demo/wheel/site/latf_openmm/__init__.py'), latf_openmm.__file__; \
		from latf_openmm.run.config import load_config; from latf_openmm.systems import library_names, library_root; \
		assert library_root().name == 'system_library'; [load_config(name) for name in library_names()]; \
		print('wheel:', ', '.join(library_names()))"

clean:
	rm -rf .venv .venv-torchforce demo
