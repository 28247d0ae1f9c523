"""Comparisons with other methods and codes; each is run with ``python -m benchmarks.QUESTION.run``."""
