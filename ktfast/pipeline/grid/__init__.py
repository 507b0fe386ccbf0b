"""Many runs that share their results: a grid of teachers, students, clusters and seeds, or a sweep.

`cells` reads a grid and makes the options of every run. `run_cells` runs them.
"""
