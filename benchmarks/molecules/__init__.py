"""One run of a molecule of the library."""
