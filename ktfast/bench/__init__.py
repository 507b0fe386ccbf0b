"""Benchmarks against other libraries: one module per subject of `ktfast bench`."""
