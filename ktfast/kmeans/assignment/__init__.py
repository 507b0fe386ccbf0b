"""The assignment passes of a fit: the nearest centre of every row, again and again.

`assigner` defines the interface and chooses between `cpu` and `gpu`. `phases` holds the kinds of
passes on a CPU, `screen` chooses the screen of a pass, and `snapshots` keeps earlier centres.
"""
