"""Stage 1: decode every image once, resize it, and store it so that feeds read it fast.

What cannot be decoded is listed with its reason; nothing is dropped silently. What would make a
later stage impossible (too few images, labels that do not match) is found here, before the hours.
"""

import time
from functools import partial
from pathlib import Path
from typing import Any

from ktfast.data.index import ImageIndex
from ktfast.data.prepare import prepare
from ktfast.data.source import PreparedSet
from ktfast.errors import ConfigError, DataError
from ktfast.stages.artifacts import Outcome, Run, run_stage
from ktfast.stages.sets import open_set, set_names


def run(run: Run, *, redo: bool = False) -> dict[str, Any]:
    """Prepare every image folder of the configuration.

    Returns
    -------
    the result of each set, by name.
    """
    if not run.config.data.folders():
        raise ConfigError("data.pretext is not set: give the folder of the training images")
    results = {}
    for name in dict.fromkeys(set_names(run.config).values()):
        index = ImageIndex.scan(run.config.data.folders()[name])
        results[name] = run_stage(
            run,
            f"prepare/{name}",
            run.config.data.model_dump(mode="json", include={"short_side", "quality"}),
            {"images": index.fingerprint},
            partial(_prepare, run, index),
            redo=redo,
        )
    check_feasible(run)
    return results


def _prepare(run: Run, index: ImageIndex, folder: Path) -> Outcome:
    data, clock = run.config.data, time.monotonic()
    images = prepare(
        index,
        folder,
        short_side=data.short_side,
        quality=data.quality,
        n_threads=run.config.threads or None,
    )
    return Outcome(
        fingerprint=images.fingerprint,
        outputs={"index": "index.json"},
        summary={
            "folder": str(index.root),
            "images": images.n,
            "classes": len(images.classes),
            "skipped": [[skip.path, skip.reason] for skip in images.skipped],
        },
        throughput=("images/s", images.n / max(time.monotonic() - clock, 1e-9)),
    )


def check_feasible(run: Run) -> None:
    """Refuse what would fail hours later.

    Raises
    ------
    DataError, ConfigError : names the data set or the option, and what to do.
    """
    config = run.config
    sets = {role: open_set(run, role) for role in config.data.folders()}
    for role, images in sets.items():
        if images.n == 0:
            raise DataError(
                f"none of the {len(images.skipped)} images in {config.data.folders()[role]} can be "
                f"decoded; the first: {images.skipped[0].path}: {images.skipped[0].reason}"
            )
    if config.features.source == "pretext" and sets["pretext"].n < 2:
        raise DataError(
            f"{config.data.folders()['pretext']} holds one image; Jigsaw++ needs at least 2 "
            "(occluding tiles come from another image)"
        )
    if config.cluster.features is None and sets["cluster"].n < config.cluster.n_clusters:
        raise ConfigError(
            f"cluster.n_clusters {config.cluster.n_clusters} is more than the "
            f"{sets['cluster'].n} images of {config.data.folders()['cluster']}; choose fewer "
            "clusters or give more images"
        )
    if "test" in sets:
        _check_labels(sets["train"], sets["test"])


def _check_labels(train: PreparedSet, test: PreparedSet) -> None:
    for role, images in (("train", train), ("test", test)):
        if not images.classes:
            raise DataError(
                f"data.{role} has no labels: its images must lie in one folder per class"
            )
    unknown = sorted(set(test.classes) - set(train.classes))
    if unknown:
        raise DataError(
            f"data.test has {len(unknown)} classes that data.train lacks, the first {unknown[0]!r}"
        )
