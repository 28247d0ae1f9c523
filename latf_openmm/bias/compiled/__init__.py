"""A bias as one compiled function: a program of loops, its source, and the machine code; it needs no torch."""
