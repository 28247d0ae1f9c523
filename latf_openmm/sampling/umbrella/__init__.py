"""Umbrella sampling: settings and order of windows, their Context, files and frames."""
