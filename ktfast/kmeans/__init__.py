"""K-means clustering.

`KMeans` is an estimator with the interface of scikit-learn. `ktfast.kmeans.faiss` has the interface
of `faiss.Kmeans`. The other modules are internal. Read them in this order:

`estimator` checks with `inputs`, starts from `seeding` (`starts`), and iterates with `lloyd`. An
iteration is an assignment pass (`assignment`) and an update (`sums`, `relocation`) over the rows
(`data`). `minibatch` serves `partial_fit`, `transform` the distances to all centres, and `progress`
the log.
"""

from ktfast.kmeans.estimator import KMeans

__all__ = ["KMeans"]
