"""The rows of a fit: where they lie, how they reach the kernels, and sums over all of them.

`rows` is a matrix or a sequence of shards; `spherical` scales rows to length one. `workspace`
allocates beside the rows and converts results. `streaming` copies blocks of rows from the host to a
GPU, and `memory_plan` divides the GPU's memory. `moments` holds mean and variance of the rows, and
`passes` single passes over all rows.
"""
