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

import numpy as np
import torch

from ktfast.config import Config
from ktfast.errors import ConfigError, DataError, shown
from ktfast.features.foreign import file_of, is_function
from ktfast.features.manifest import MANIFEST
from ktfast.features.store import FeatureStore
from ktfast.features.stream import FeatureStream
from ktfast.features.teachers import (
    Teacher,
    callable_teacher,
    hog_teacher,
    torchvision_teacher,
    trunk_teacher,
)
from ktfast.features.transform import FIT_ROWS, FeatureTransform
from ktfast.features.writer import FeatureWriter
from ktfast.images.feeds.base import Batch, Feed
from ktfast.pipeline.environment import resolve_device
from ktfast.pipeline.run_folder import RunFolder
from ktfast.pipeline.stage_result import Outcome
from ktfast.pipeline.steps.best_weights import best_weights
from ktfast.pipeline.steps.image_sets import open_feed, open_set, progress_line, set_name
from ktfast.pipeline.steps.networks import WEIGHTS, load_all, pretext_trunk
from ktfast.pipeline.steps.questions import feature_crop
from ktfast.tables import write_csv
from ktfast.training.delivery import deliver
from ktfast.training.memory import kept_heap
from ktfast.training.precision import computing_dtype

logger = logging.getLogger(__name__)

# The PCA of features that are stored normalised is fitted on one image in FIT_SHARE, but on at
# least FIT_ROWS_PER_DIMENSION images per dimension that PCA keeps, and on at most FIT_ROWS images.
FIT_SHARE, FIT_ROWS_PER_DIMENSION = 10, 40


def check_trust(run: RunFolder) -> None:
    """Refuse to run the code that a configuration file names, unless the user trusts the file.

    Raises
    ------
    ConfigError
        `features.source` names a function and the run does not trust the name.
    """
    source = run.config.features.source
    if is_function(source) and not run.trust_source:
        file = shown(file_of(source)) or "no file that Python finds"
        raise ConfigError(
            f"the configuration file names features.source {source!r}, which would run code of "
            f"{file}; add --trust-source (trust_source=True in Python) if you trust this code"
        )


def try_teacher(run: RunFolder) -> None:
    """Call a teacher of torchvision or of the user once, on a whole batch of images.

    The puzzle network and HOG are not called. Nothing is done if the features exist already.

    Raises
    ------
    ConfigError
        The teacher fails, or returns anything but one row of features per image.
    """
    config = run.config
    name = set_name(run, "cluster")
    if config.cluster.features is not None or config.features.source in ("pretext", "hog"):
        return
    if (run.stage(f"features/{name}") / "result.json").is_file():
        return
    images, side = open_set(run, "cluster"), feature_crop(config)
    n = min(images.n, config.features.batch_size)
    rows = [images.square(row, short_side=config.data.short_side, size=side) for row in range(n)]
    device = torch.device(resolve_device(config.device))
    with torch.random.fork_rng(devices=[]):  # building a network draws from torch's generator
        in_precision(run, build_teacher(run))(torch.from_numpy(np.stack(rows)).to(device))
    if device.type == "cuda":
        torch.cuda.empty_cache()  # feeds choose by the free memory of the GPU


def check_source(config: Config) -> None:
    """Refuse a `features.source` that is neither a known name nor of the form NAME:NAME."""
    source = config.features.source
    if source not in ("pretext", "hog") and not all(source.partition(":")):
        raise ConfigError(
            f"features.source {source!r} is unknown; expected pretext, hog, torchvision:MODEL or "
            "MODULE:CALLABLE"
        )


def build_teacher(run: RunFolder) -> Teacher:
    """Build the teacher that `features.source` names, on the run's device."""
    config, device = run.config.features, resolve_device(run.config.device)
    check_source(run.config)
    check_trust(run)
    if config.source == "pretext":
        trunk = pretext_trunk(run.config.pretext)
        load_all(trunk, config.weights or _puzzle_weights(run))
        return trunk_teacher(
            trunk.to(device).to(memory_format=torch.channels_last),
            config.layer or trunk.layers[-1],
            pool=config.pool,
            pooling=config.pooling,
        )
    if config.source == "hog":
        return hog_teacher(n_threads=run.config.threads or None)
    if config.source.startswith("torchvision:"):
        return torchvision_teacher(config.source.partition(":")[2], config.weights, device)
    return callable_teacher(config.source)


def _puzzle_weights(run: RunFolder) -> Path:
    """Locate the weights of the run's puzzle network that `features.checkpoint` asks for."""
    if run.config.features.checkpoint == "best":
        return best_weights(run)
    return run.artifact("pretext", WEIGHTS)


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
    config = run.config.features
    teacher = in_precision(run, teacher or build_teacher(run))
    transform = _transform(run, teacher, fitted, folder)
    meta: dict[str, Any] = {"source": config.source}
    if config.source == "pretext":
        meta |= {"layer": config.layer, "pool": config.pool}
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
        )
    store = FeatureStore.open(folder)
    write_csv(folder / "paths.csv", ("path",), ([path] for path in feed.source.paths))
    return Outcome(
        fingerprint=store.fingerprint,
        outputs={"manifest": "manifest.json", "paths": "paths.csv"},
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
        start = first // feed.batch_size
        seen = start * feed.batch_size
        with FeatureStream(writer) as stream:
            for _, batch in deliver(feed, start, feed.batches_per_epoch, device):
                stream.put(teacher(batch.images), batch.sample_ids, batch.rows)
                seen += len(batch)
                progress(seen, feed.n)
    return writer.rows_done - first


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


def in_precision(run: RunFolder, teacher: Teacher) -> Teacher:
    """Run a network in the configured precision. Other teachers choose their own precision."""
    config, device = run.config.features, torch.device(resolve_device(run.config.device))
    dtype = computing_dtype(config.precision, device)
    is_network = config.source == "pretext" or config.source.startswith("torchvision:")
    if dtype == torch.float32 or not is_network:
        return teacher

    def teach(images: torch.Tensor) -> torch.Tensor:
        with torch.autocast(device.type, dtype):
            return teacher(images).float()

    return teach


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
    path = fitted / "transform.npz"
    if fitted != folder and path.is_file():
        return FeatureTransform.load(path)
    if (transform := _stored_transform(path)) is not None:
        return transform
    transform = FeatureTransform.fit_blocks(
        _sample(run, teacher), config.normalize, dim=config.pca, seed=run.config.seed
    )
    fitted.mkdir(parents=True, exist_ok=True)
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


def _sample(run: RunFolder, teacher: Teacher) -> Iterator[torch.Tensor]:
    """Compute features of random images, batch by batch."""
    with _feed(run, "cluster", shuffle=True) as feed:
        wanted = max(feed.n // FIT_SHARE, FIT_ROWS_PER_DIMENSION * run.config.cluster.pca)
        batches = -(-min(FIT_ROWS, wanted) // feed.batch_size)
        for batch in itertools.islice(feed.epoch(0), batches):
            yield teacher(batch.images)
