"""Write the shards of features on several processes."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from ktfast.errors import shown
from ktfast.features.foreign import Teacher
from ktfast.features.shard_files import converted, write_shard
from ktfast.features.writer import FeatureWriter
from ktfast.images.feeds.base import Feed, Progress
from ktfast.kmeans.distributed.ranks import Ranks
from ktfast.training.delivery import deliver


def write_shards(
    teacher: Teacher,
    feed: Feed,
    folder: Path,
    ranks: Ranks,
    *,
    device: torch.device,
    progress: Progress,
    writer: FeatureWriter | None = None,
) -> None:
    """Write the shards that are missing, in rounds of one shard per process.

    A shard is computed from the batches of a single process, so that its file has the same bits.
    After each round, rank 0 adds the shards to the manifest.

    Parameters
    ----------
    teacher : callable
        Computes features.
    feed : Feed
        Delivers the images in the order of the prepared set.
    folder : Path
        Receives the shards.
    ranks : Ranks
        The processes. All of them call this function.
    device : torch.device
        Where the teacher computes.
    progress : callable
        Called after each round with the number of images done and the number of images.
    writer : FeatureWriter, optional
        The writer of the folder, on rank 0.
    """
    plan = None
    if writer is not None:
        plan = writer.rows_done, writer.shard_rows, str(writer.dtype)
    plan = ranks.broadcast(plan)
    assert plan is not None
    done, size, dtype = plan
    for first in range(done, feed.n, ranks.size * size):
        start = first + ranks.rank * size
        record = None
        if start < feed.n:
            rows = range(start, min(feed.n, start + size))
            record = _shard(teacher, feed, folder, rows, start // size, device, dtype)
        records = ranks.gather(record)
        if writer is not None:
            writer.add_shards([each for each in records if each is not None])
        progress(min(feed.n, first + ranks.size * size), feed.n)
    if writer is not None:
        writer.close()


def _shard(
    teacher: Teacher,
    feed: Feed,
    folder: Path,
    rows: range,
    number: int,
    device: torch.device,
    dtype: str,
) -> dict[str, Any]:
    """Compute and write one shard, from whole batches; return its record."""
    blocks, ids, paths = [], [], feed.source.paths
    start, stop = rows.start // feed.batch_size, -(-rows.stop // feed.batch_size)
    batches = deliver(feed, start, stop, device)
    for batch_number, (_, batch) in enumerate(batches, start):
        first = batch_number * feed.batch_size
        own = slice(max(0, rows.start - first), rows.stop - first)
        block = teacher(batch.images)[own].cpu().numpy()
        row = first + own.start
        blocks.append(converted(block, dtype, lambda i, row=row: shown(paths[row + i])))  # type: ignore[misc]
        ids.append(batch.sample_ids[own].cpu().numpy())
    return write_shard(folder, number, np.concatenate(blocks), np.concatenate(ids))
