"""A script for faiss that runs with ktfast. Only the import was changed."""

import numpy as np
from sklearn.datasets import load_digits

from ktfast import faiss_compat as faiss  # instead of: import faiss

x = load_digits().data.astype(np.float32)

kmeans = faiss.Kmeans(x.shape[1], 10, niter=20, nredo=3, seed=0)
kmeans.train(x)
distances, labels = kmeans.index.search(x, 1)

print("objective:", round(float(kmeans.obj[-1])))
print("images per cluster:", np.bincount(labels.ravel()).tolist())
