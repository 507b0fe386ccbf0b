"""Alias of `ktfast.kmeans.faiss`, K-means with the interface of `faiss.Kmeans`."""

from ktfast.kmeans.faiss import (
    ClusteringInitMethod_KMEANS_PLUS_PLUS,
    ClusteringInitMethod_RANDOM,
    Kmeans,
)

__all__ = ["ClusteringInitMethod_KMEANS_PLUS_PLUS", "ClusteringInitMethod_RANDOM", "Kmeans"]
