"""Evaluation protocols, one per file: linear probe, also with few labels, nearest neighbours,
clustering quality.

Import the file of the protocol; `linear`, `low_label`, `softmax`, `knn` and `pooling` need torch,
the rest needs only NumPy and scikit-learn.
"""
