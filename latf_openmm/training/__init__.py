"""Fitting a model to lagged frames."""
