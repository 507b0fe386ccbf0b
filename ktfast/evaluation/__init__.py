"""Evaluation protocols, one per file: linear probe, nearest neighbours, clustering quality.

Import the file of the protocol; `linear`, `softmax`, `knn` and `pooling` need torch, the rest
needs only NumPy and scikit-learn.
"""
