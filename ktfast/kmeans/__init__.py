"""K-means clustering.

`KMeans` is an estimator with the interface of scikit-learn. `ktfast.kmeans.faiss` has the interface
of `faiss.Kmeans`. The other modules are internal.
"""

from ktfast.kmeans.estimator import KMeans

__all__ = ["KMeans"]
