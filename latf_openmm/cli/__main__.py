"""``python -m latf_openmm.cli``: the command line without its script."""

from latf_openmm.cli import main

if __name__ == "__main__":
    main()
