"""K-means with the interface of `faiss.Kmeans`: an existing script changes one import.

`kmeans` holds the class, `index` the index of its centroids, `inputs` the checks of options and
points.
"""

from ktfast.kmeans.faiss.kmeans import (
    ClusteringInitMethod_KMEANS_PLUS_PLUS,
    ClusteringInitMethod_RANDOM,
    Kmeans,
)

__all__ = ["ClusteringInitMethod_KMEANS_PLUS_PLUS", "ClusteringInitMethod_RANDOM", "Kmeans"]
