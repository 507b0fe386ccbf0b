"""Hierarchical K-means: many small clusters, and levels of clusters of clusters above them.

- `estimator` holds `HierarchicalKMeans`. `plan` checks what its parameters ask for.
- `division` finds very many clusters group by group. `resampling` fits the clusters of one level.
- `levels` holds one level of a fitted hierarchy, `sizes` measures how equal cluster sizes are, and
  `sampling` draws balanced samples of the rows.
"""
