"""`ktfast bench kmeans`: K-means beside faiss, scikit-learn and others."""
