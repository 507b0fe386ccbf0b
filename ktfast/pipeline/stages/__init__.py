"""One file per stage; each file is one command of the command line."""
