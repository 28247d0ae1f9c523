"""The report of a run: one HTML page with its pictures and structures; the status lines of the command line."""
