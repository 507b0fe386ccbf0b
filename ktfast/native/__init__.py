"""Access to the compiled modules, and to arrays and memory of NumPy, torch and CuPy.

`modules` loads the compiled modules `_cpu` and `_cuda` and finds the one for an array.
`arrays` finds the library, device and stream of an array, allocates arrays and converts them.
`threads` decides how many CPU threads an op uses.
`gpu_memory` allocates GPU memory for rows that lie in host memory, and copies the rows there.
"""
