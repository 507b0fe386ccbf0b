"""K-means clustering.

`KMeans` is an estimator with the interface of scikit-learn. `ktfast.kmeans.faiss` has the interface
of `faiss.Kmeans`. The other modules are internal. Read them in this order:

- `estimator` holds `KMeans`, and `inputs` checks what the user gives.
- `starts` and `seeding` choose the initial centres.
- `lloyd` iterates. An iteration is an assignment pass (`assignment`) and an update of the centres
  (`sums`, and `relocation` of empty clusters).
- `data` reads the rows, wherever they lie.
- `minibatch` computes `partial_fit`, and `transform` the distances to all centres.
- `progress` writes the log.
"""

from ktfast.kmeans.estimator import KMeans

__all__ = ["KMeans"]
