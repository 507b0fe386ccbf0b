"""First centres of K-means: random rows, greedy k-means++, k-means||."""

from ktfast.kmeans.seeding.first_centers import METHODS, first_centers

__all__ = ["METHODS", "first_centers"]
