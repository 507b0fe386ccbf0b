"""The ops in plain NumPy: slow, short, and independent of the kernels that they specify.

Only the tests call this package. It imports nothing else of ktfast.
"""
