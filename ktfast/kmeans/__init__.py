"""K-means: a scikit-learn estimator on the native kernels, and the interface of `faiss.Kmeans`."""

from ktfast.kmeans.estimator import KMeans

__all__ = ["KMeans"]
