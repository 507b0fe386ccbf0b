"""What all benchmarks share: the machine, rows in processes of their own, tables, plots, peaks."""
