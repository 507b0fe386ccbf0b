"""Ray actors compute features of a teacher and write the shards; ktfast clusters the folder.

python examples/ray_features.py [PHOTOGRAPHS FEATURES]

With Ray (`pip install ray`), each actor computes whole shards, on any machine of the Ray cluster
that sees both folders under the same path. Without Ray, this process computes all shards. The files
are the same. Without arguments, the script cuts views out of photographs of scikit-image.
"""

import importlib.util
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ktfast.features.shard_files import write_shard
from ktfast.features.teachers import hog_teacher
from ktfast.features.writer import FeatureWriter
from ktfast.images.index import ImageIndex
from ktfast.images.source import FolderSource

SHARD_ROWS = 16  # small, for the example; shards of about 64 MiB are good in practice
ACTORS = 2


class Worker:
    """Hold a teacher, and compute shards with it."""

    def __init__(self, photographs: str, features: str) -> None:
        self.source = FolderSource(ImageIndex.scan(photographs))
        self.folder = Path(features)
        self.teacher = hog_teacher(n_threads=1)  # any function of images uint8 [B, H, W, 3]

    def shard(self, number: int) -> dict[str, Any]:
        """Write a shard; return its entry for the manifest."""
        rows = range(number * SHARD_ROWS, min(self.source.n, (number + 1) * SHARD_ROWS))
        squares = [self.source.square(row, short_side=64, size=64) for row in rows]
        features = self.teacher(torch.from_numpy(np.stack(squares))).numpy()
        ids = self.source.sample_ids[rows.start : rows.stop]
        return write_shard(self.folder, number, features.astype(np.float16), ids)


def extract(photographs: Path, features: Path) -> None:
    """Compute the shards that the folder lacks, and complete the manifest."""
    source = FolderSource(ImageIndex.scan(photographs))
    probe = hog_teacher(n_threads=1)(torch.zeros(1, 64, 64, 3, dtype=torch.uint8))
    writer = FeatureWriter(
        features,
        dim=probe.shape[1],
        meta={"source": "hog"},
        shard_rows=SHARD_ROWS,
        resume=True,
        paths=source.paths,
    )
    numbers = range(writer.rows_done // SHARD_ROWS, -(-source.n // SHARD_ROWS))
    if importlib.util.find_spec("ray") is None:
        print("without Ray (pip install ray)")
        worker = Worker(str(photographs), str(features))
        for number in numbers:
            writer.add_shards([worker.shard(number)])
    else:
        import ray
        from ray.util import ActorPool

        ray.init(ignore_reinit_error=True)
        remote = ray.remote(Worker).options(num_cpus=1)  # num_gpus=1 for a teacher on a GPU
        actors = [remote.remote(str(photographs), str(features)) for _ in range(ACTORS)]
        pool = ActorPool(actors)
        # `map` gives the records in the order of the shards. The manifest names finished shards
        # only, so the script may be stopped and started again.
        for record in pool.map(lambda actor, number: actor.shard.remote(number), numbers):
            writer.add_shards([record])
        ray.shutdown()
    writer.close()
    print(f"{source.n} images, {len(numbers)} shards")


if __name__ == "__main__":
    from ktfast.cli.demo import write_views
    from ktfast.cli.main import main

    if len(sys.argv) == 3:
        extract(Path(sys.argv[1]), Path(sys.argv[2]))
        sys.exit(0)
    work = Path(tempfile.mkdtemp(prefix="ktfast-example-"))
    write_views(work / "views", {"train": 3, "test": 1})
    extract(work / "views" / "train", work / "features")
    command = f"cluster --run {work}/run --features {work}/features --n_clusters 5"
    sys.exit(main([*command.split(), "--data.pretext", f"{work}/views/train"]))
