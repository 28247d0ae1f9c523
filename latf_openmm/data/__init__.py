"""From frames on disk to weighted, lagged training data."""
