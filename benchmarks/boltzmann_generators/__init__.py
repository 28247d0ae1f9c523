"""Alanine dipeptide as papers on Boltzmann generators define it: the same potential, metrics and temperatures."""
