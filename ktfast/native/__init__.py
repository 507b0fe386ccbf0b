"""The compiled modules `_cpu` and `_cuda`, arrays of NumPy, torch and CuPy, and GPU memory."""
