"""What is computed from frames and a model: pools, free energies, references, ensembles."""
