"""CPU forms of the operators: numba kernels on explicit vectors over lanes."""
