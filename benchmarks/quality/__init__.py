"""Densities from little data beside other estimators."""
