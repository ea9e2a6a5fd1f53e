"""CUDA forms of the operators: Triton kernels, one lane per (batch, channel) row, the loop over time inside.

A program works on ``BLOCK`` rows. Sounds stay time-last in memory; a program moves 8 samples of its rows at once
through a two-dimensional tile, whose columns are consecutive in memory, and takes them apart in registers
(`psysim.ops.cuda.tiles`). States and coefficients are held as tuples of vectors over the rows. Without a GPU the
kernels run in Triton's interpreter (environment variable ``TRITON_INTERPRET=1``, set before they are imported) under
`psysim.ops.base.using`.
"""
