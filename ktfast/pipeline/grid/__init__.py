"""Many runs that share results: a grid of teachers, students, clusters and seeds, or a sweep.

`cells` reads a grid, or the varied options of a sweep, and makes the options of every run.
`run_cells` does the runs.
"""
