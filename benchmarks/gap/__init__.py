"""Estimates at temperatures whose energies do not overlap with those simulated, and from walkers that do not cross."""
