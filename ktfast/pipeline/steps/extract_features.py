"""Write the features of an image set, for the stages features and evaluate.

The stage features uses the configured teacher. The stage evaluate uses an untrained network.
"""

import contextlib
import itertools
import logging
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any, Literal

import torch

from ktfast.errors import DataError
from ktfast.features.ensemble import fit_part, join
from ktfast.features.foreign import Teacher
from ktfast.features.manifest import MANIFEST
from ktfast.features.store import LIST, FeatureStore
from ktfast.features.stream import FeatureStream
from ktfast.features.transform import FIT_ROWS, FeatureTransform
from ktfast.features.writer import FeatureWriter
from ktfast.images.feeds.base import Batch, Feed
from ktfast.kmeans.distributed.ranks import ALONE, Ranks
from ktfast.pipeline.environment import resolve_device
from ktfast.pipeline.run_folder import RunFolder
from ktfast.pipeline.stage_result import Outcome
from ktfast.pipeline.steps.image_sets import open_feed, open_set, progress_line
from ktfast.pipeline.steps.model_facts import feature_crop, teacher_records
from ktfast.pipeline.steps.shard_rounds import write_shards
from ktfast.pipeline.steps.shared_work import call_helpers
from ktfast.pipeline.steps.teacher import PART, build_teachers, in_precision
from ktfast.tables import write_csv
from ktfast.training.delivery import deliver
from ktfast.training.memory import kept_heap

logger = logging.getLogger(__name__)

# The PCA of features that are stored normalised is fitted on one image in FIT_SHARE, but on at
# least FIT_ROWS_PER_DIMENSION images per dimension that PCA keeps, and on at most FIT_ROWS images.
FIT_SHARE, FIT_ROWS_PER_DIMENSION = 10, 40


def extract(
    run: RunFolder, role: str, folder: Path, *, fitted: Path, teacher: Teacher | None = None
) -> Outcome:
    """Write the features of a role's images; continue after the rows that the folder holds.

    Parameters
    ----------
    run : RunFolder
        The run.
    role : str
        Role of the images.
    folder : Path
        Receives the features.
    fitted : Path
        Folder of the features that are clustered. It holds the fitted PCA.
    teacher : callable, optional
        Computes features. None: the teacher that the options name.

    Returns
    -------
    outcome : Outcome
        Fingerprint, number of rows and images per second.
    """
    config, is_shared = run.config.features, teacher is None and run.team.size > 1
    teacher = in_precision(run, teacher) if teacher else _ensemble(run, fitted, folder)
    transform = _transform(run, teacher, fitted, folder)
    if is_shared:  # the helpers load what was fitted
        call_helpers(run, help_extract, role, folder, fitted)
    meta: dict[str, Any] = {"source": config.source}
    if config.source == "pretext":
        meta |= {"layer": config.layer, "pool": config.pool}
    if described := teacher_records(run.config):
        meta["teachers"] = described
    if transform is not None:
        meta |= {"normalize": transform.choice, "pca": transform.dim}
        teacher = then_transform(teacher, transform)
    clock = time.monotonic()
    with _feed(run, role, shuffle=False) as feed, progress_line(f"features of {role}") as progress:
        done = write_features(
            teacher,
            feed,
            folder,
            device=torch.device(resolve_device(run.config.device)),
            dtype=config.dtype,
            meta=meta,
            progress=progress,
            ranks=run.team.ranks if is_shared else ALONE,
        )
    store = FeatureStore.open(folder)
    write_csv(folder / LIST, ("path",), ([path] for path in feed.source.paths))
    return Outcome(
        fingerprint=store.fingerprint,
        outputs={"manifest": "manifest.json", "paths": LIST},
        summary={"rows": store.n, "dim": store.dim, "dtype": config.dtype, "source": config.source},
        throughput=("images/s", done / max(time.monotonic() - clock, 1e-9)),
    )


def write_features(
    teacher: Teacher,
    feed: Feed,
    folder: Path,
    *,
    device: torch.device,
    dtype: Literal["float16", "float32"],
    meta: dict[str, Any],
    progress: Callable[[int, int], None],
    ranks: Ranks = ALONE,
) -> int:
    """Stream the features of a feed's images into shards; continue after the shards that exist.

    Feed, network and disk work at the same time: batches are copied to a GPU while the network
    computes, and a thread writes the shards.

    Parameters
    ----------
    teacher : callable
        Computes features.
    feed : Feed
        Delivers the images in the order of the prepared set.
    folder : Path
        Receives the shards.
    device : torch.device
        Where the teacher computes.
    dtype : str
        Type of the features on disk, "float16" or "float32".
    meta : dict
        Facts for the manifest, such as the layer.
    progress : callable
        Called with the number of images done and the number of images.
    ranks : Ranks, optional
        The processes that share the shards. Rank 0 calls this function, and the others compute the
        shards of `write_shards`.

    Returns
    -------
    rows : int
        Number of rows that this call wrote.
    """
    heap = kept_heap() if device.type == "cpu" else contextlib.nullcontext()
    with heap:
        with contextlib.closing(_epoch(feed)) as batches:
            dim = teacher(next(batches).part(0, 1).to(device).images).shape[1]
        writer = FeatureWriter(
            folder, dim=dim, dtype=dtype, meta=meta, resume=True, paths=feed.source.paths
        )
        first = writer.rows_done
        if ranks.size > 1:
            write_shards(
                teacher, feed, folder, ranks, device=device, progress=progress, writer=writer
            )
            return writer.rows_done - first
        start = first // feed.batch_size
        seen = start * feed.batch_size
        with FeatureStream(writer) as stream:
            for _, batch in deliver(feed, start, feed.batches_per_epoch, device):
                stream.put(teacher(batch.images), batch.sample_ids, batch.rows)
                seen += len(batch)
                progress(seen, feed.n)
    return writer.rows_done - first


def help_extract(run: RunFolder, role: str, folder: Path, fitted: Path) -> None:
    """Write some of the shards that rank 0 writes with `extract`."""
    teacher = _ensemble(run, fitted, folder)
    transform = _transform(run, teacher, fitted, folder)
    if transform is not None:
        teacher = then_transform(teacher, transform)
    device = torch.device(resolve_device(run.config.device))
    heap = kept_heap() if device.type == "cpu" else contextlib.nullcontext()
    with heap, _feed(run, role, shuffle=False) as feed:
        write_shards(teacher, feed, folder, run.team.ranks, device=device, progress=lambda *_: None)


def _epoch(feed: Feed) -> Generator[Batch]:
    """Deliver one epoch as a generator, which can be closed early."""
    yield from feed.epoch(0)


def _feed(run: RunFolder, role: str, *, shuffle: bool) -> Feed:
    """Open the feed of a role's images as the teacher sees them."""
    return open_feed(
        run,
        open_set(run, role),
        size=feature_crop(run.config),
        batch_size=run.config.features.batch_size,
        shuffle=shuffle,
    )


def then_transform(teacher: Teacher, transform: FeatureTransform) -> Teacher:
    """Apply a transform to the features of a teacher."""
    return lambda images: transform.apply_tensor(teacher(images))


def _transform(
    run: RunFolder, teacher: Teacher, fitted: Path, folder: Path
) -> FeatureTransform | None:
    """Load the transform of features that are stored normalised, or fit it on random images."""
    config = run.config.cluster
    if not run.config.features.normalized or config.normalize == "none":
        return None

    def fit() -> FeatureTransform:
        rows = _sample(run, teacher, config.pca)
        return FeatureTransform.fit_blocks(
            rows, config.normalize, dim=config.pca, seed=run.config.seed
        )

    return _fitted_once(fitted / "transform.npz", folder, fit)


def _ensemble(run: RunFolder, fitted: Path, folder: Path) -> Teacher:
    """Join the teachers of the run; load the PCA of each, or fit it on random images."""
    teachers = build_teachers(run)
    if len(teachers) == 1:
        return teachers[0]

    def transform_of(number: int, teacher: Teacher) -> FeatureTransform:
        def fit() -> FeatureTransform:
            seed, most = run.config.seed, run.config.features.part_pca
            return fit_part(_sample(run, teacher, most), most, seed=seed)

        return _fitted_once(fitted / PART.format(number), folder, fit)

    return join([(teacher, transform_of(n, teacher)) for n, teacher in enumerate(teachers)])


def _fitted_once(path: Path, folder: Path, fit: Callable[[], FeatureTransform]) -> FeatureTransform:
    """Load a fitted transform, or fit and save it.

    Parameters
    ----------
    path : Path
        File of the transform.
    folder : Path
        Folder of the features that are extracted now.
    fit : callable
        Fits the transform.

    Returns
    -------
    transform : FeatureTransform
        The transform.
    """
    if path.parent != folder and path.is_file():
        return FeatureTransform.load(path)
    if (transform := _stored_transform(path)) is not None:
        return transform
    transform = fit()
    path.parent.mkdir(parents=True, exist_ok=True)
    transform.save(path)
    return transform


def _stored_transform(path: Path) -> FeatureTransform | None:
    """Load the transform of an interrupted call; None if there is none, or it is damaged.

    Without the transform, the features beside it are made again too, because a transform that is
    fitted again on a GPU may differ in the last bits.
    """
    problem = "is missing"
    if path.is_file():
        try:
            transform = FeatureTransform.load(path)
        except DataError as error:
            problem = str(error)
        else:
            transform.save(path)  # also undoes a change of bytes that carry no values
            return transform
    if (manifest := path.with_name(MANIFEST)).is_file():
        logger.warning("%s (%s): all features are made again", path, problem)
        manifest.unlink()
    return None


def _sample(run: RunFolder, teacher: Teacher, dim: int) -> Iterator[torch.Tensor]:
    """Compute features of random images, batch by batch, for a PCA that keeps `dim` dimensions."""
    with _feed(run, "cluster", shuffle=True) as feed:
        wanted = max(feed.n // FIT_SHARE, FIT_ROWS_PER_DIMENSION * dim)
        batches = -(-min(FIT_ROWS, wanted) // feed.batch_size)
        for batch in itertools.islice(feed.epoch(0), batches):
            yield teacher(batch.images)
