"""The command line `ktfast`: its entry, its options and its commands."""
