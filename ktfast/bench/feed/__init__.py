"""`ktfast bench feed`: images per CPU-second beside other loaders."""
