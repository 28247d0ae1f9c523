"""Walkers, stages, annealing, umbrella windows: everything that integrates."""
