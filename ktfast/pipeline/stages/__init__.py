"""One file per stage. Each file exports `execute`, which the command of the stage's name calls."""
