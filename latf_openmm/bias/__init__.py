"""A bias along collective variables for any OpenMM script; it needs nothing of a run."""
