"""ktfast: fast, dependable self-supervised knowledge transfer on one GPU or CPU."""
