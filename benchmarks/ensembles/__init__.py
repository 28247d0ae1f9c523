"""Structures at temperatures that were not simulated."""
