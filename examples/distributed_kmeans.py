"""Cluster rows with one process or with several; the result is the same.

python examples/distributed_kmeans.py
torchrun --nproc-per-node 2 examples/distributed_kmeans.py
"""

import hashlib
import os

import numpy as np

import ktfast

rank, size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))

# In practice, each process opens its part of a file: np.load(path, mmap_mode="r")[first:end].
generator = np.random.default_rng(0)
places = generator.normal(size=(50, 32)) * 3
rows = (places[generator.integers(0, 50, 20_000)] + generator.normal(size=(20_000, 32))).astype(
    "f4"
)
first, end = (len(rows) * i // size for i in (rank, rank + 1))

model = ktfast.KMeans(50, random_state=0, distributed="torch" if size > 1 else None)
model.fit(rows[first:end])

digest = hashlib.sha256(model.cluster_centers_.tobytes()).hexdigest()[:16]
print(f"process {rank} of {size}: rows {first} to {end - 1}, inertia {model.inertia_!r}")
print(f"process {rank} of {size}: centers {digest}, labels {model.labels_[:5].tolist()} ...")
