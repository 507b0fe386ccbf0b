"""Executable specification of the ops in plain NumPy: slow, short, independent of the kernels."""
