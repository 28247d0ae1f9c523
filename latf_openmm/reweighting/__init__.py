"""Weighted frames to estimates with errors."""
