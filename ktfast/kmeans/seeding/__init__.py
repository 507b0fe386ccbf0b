"""Initial centres of K-means.

`initial_centers.py` has the entry, which chooses the method, and the method "random".
`parallel.py` has the method "k-means||", and `plus_plus.py` the method "k-means++".
`distinct.py` finds the distinct rows and their weights; all random draws go through them.
`byte_rows.py` computes distances between rounded rows quickly, with the same bits on all machines.
"""

from ktfast.kmeans.seeding.initial_centers import METHODS, initial_centers

__all__ = ["METHODS", "initial_centers"]
