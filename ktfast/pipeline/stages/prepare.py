"""Stage 1, `ktfast prepare`: decode every image once, resize it, and store it for fast feeds.

An image that cannot be decoded is listed with the reason.
"""

import time
from functools import partial
from pathlib import Path
from typing import Any

from ktfast.errors import ConfigError, shown
from ktfast.images.index import ImageIndex
from ktfast.images.prepare import prepare
from ktfast.images.source import PreparedSet
from ktfast.pipeline.run_folder import RunFolder
from ktfast.pipeline.stage_result import Outcome, complete_stage
from ktfast.pipeline.steps.image_sets import progress_log, set_names
from ktfast.tables import write_csv


def execute(run: RunFolder, *, redo: bool = False) -> dict[str, Any]:
    """Prepare every image folder of the configuration.

    Parameters
    ----------
    run : RunFolder
        The run.
    redo : bool
        Remove earlier prepared images first.

    Returns
    -------
    results : dict
        Result of each image set by the set's name.

    Raises
    ------
    ConfigError
        No image folder is set.
    """
    if not run.config.data.folders():
        raise ConfigError("data.pretext is not set: give the folder of the training images")
    results = {}
    for name in dict.fromkeys(set_names(run.config).values()):
        index = ImageIndex.scan(run.config.data.folders()[name])
        results[name] = complete_stage(
            run,
            f"prepare/{name}",
            run.config.data.model_dump(mode="json", include={"short_side", "quality"}),
            {"images": index.fingerprint},
            partial(_prepare, run, index, f"prepare/{name}"),
            redo=redo,
            fingerprint=lambda folder: PreparedSet.open(folder).fingerprint,
        )
    return results


def _prepare(run: RunFolder, index: ImageIndex, name: str, folder: Path) -> Outcome:
    data, clock = run.config.data, time.monotonic()
    images = prepare(
        index,
        folder,
        short_side=data.short_side,
        quality=data.quality,
        n_threads=run.config.threads or None,
        progress=progress_log(name),
    )
    skipped = [(skip.path, skip.reason) for skip in images.skipped]
    write_csv(folder / "skipped.csv", ("path", "reason"), skipped)
    return Outcome(
        fingerprint=images.fingerprint,
        outputs={"index": "index.json", "skipped": "skipped.csv"},
        summary={
            "folder": shown(index.root),
            "images": images.n,
            "classes": len(images.classes),
            "skipped": [(shown(path), reason) for path, reason in skipped],
        },
        throughput=("images/s", images.n / max(time.monotonic() - clock, 1e-9)),
    )
