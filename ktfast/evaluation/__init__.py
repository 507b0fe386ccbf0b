"""Evaluation protocols, one per file, and the typed results that runs store and the report reads.

Import the file of a protocol: `linear` (linear probe), `low_label` (linear probe with few labels),
`knn` (nearest neighbours), `clustering` (clusters against classes), `average_precision` (VOC).
`pooling` computes the features that probes read. `results` holds the results, `paper` the published
figures. `linear`, `low_label`, `softmax`, `knn` and `pooling` need torch; the other files need only
NumPy and scikit-learn.
"""
