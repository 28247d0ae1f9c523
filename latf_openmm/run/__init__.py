"""One run of the loop: configuration, folder, rounds, imports, checks."""
