"""What all benchmarks share: harness, rows in processes of their own, figures, peaks."""
