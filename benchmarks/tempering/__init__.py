"""Walkers that move in temperature, beside replica exchange, at equal force evaluations."""
