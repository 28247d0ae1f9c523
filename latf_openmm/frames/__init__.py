"""Frames that walkers have left on disk, and their descriptors."""
