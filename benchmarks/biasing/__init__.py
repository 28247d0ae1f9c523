"""Biases: surfaces, cost, bias every few steps."""
