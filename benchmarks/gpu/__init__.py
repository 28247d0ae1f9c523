"""Whether biases are right on a GPU, and what they cost there."""
