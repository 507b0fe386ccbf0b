"""The command line `ktfast`: entry, options, demo and doctor."""
