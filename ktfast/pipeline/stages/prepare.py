"""Stage 1, `ktfast prepare`: decode every image once, resize it, and store it for fast feeds.

An image that cannot be decoded is listed with the reason, and so is a file that is no image.
"""

import os
import time
from functools import partial
from pathlib import Path
from typing import Any

from ktfast.errors import ConfigError, shown
from ktfast.images.index import ImageIndex
from ktfast.images.prepare import prepare
from ktfast.images.source import PreparedSet
from ktfast.pipeline.run_folder import RunFolder
from ktfast.pipeline.stage_result import Outcome, complete_stage, discard
from ktfast.pipeline.steps.copied_images import log_copies
from ktfast.pipeline.steps.image_sets import progress_line, set_names
from ktfast.pipeline.steps.prepared_images import (
    array_format,
    decoding_of,
    listed_images,
    prepare_question,
    try_again,
)
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
    if not run.config.folders():
        raise ConfigError("data.pretext is not set: give the folder of the training images")
    names = dict.fromkeys(set_names(run.config).values())
    for name in names:
        listed_images(run, name)  # a folder that is missing is refused before anything is removed
    results = {}
    for name in names:
        if redo:
            discard(run.stage(f"prepare/{name}"))
        question, changes = prepare_question(run, name)
        question = try_again(run, name, question, changes)
        results[name] = complete_stage(
            run,
            f"prepare/{name}",
            question,
            partial(_prepare, run, name),
            redo=redo,
            fingerprint=lambda folder: PreparedSet.open(folder).fingerprint,
            # Names and sizes, which the question holds, do not tell two folders of images apart.
            shared_by=_files(listed_images(run, name)),
        )
    log_copies(run)
    return results


def _files(index: ImageIndex) -> list[Any]:
    """Give the folder of the images, and the modification time of each file."""
    return [shown(os.path.realpath(index.root)), index.mtimes_ns.tolist()]


def _prepare(run: RunFolder, name: str, folder: Path) -> Outcome:
    index, data, clock = listed_images(run, name), run.config.data, time.monotonic()
    with progress_line(f"prepare/{name}") as progress:
        images = prepare(
            index,
            folder,
            short_side=data.short_side,
            quality=data.quality,
            max_pixels=data.max_pixels,
            decoding=decoding_of(run, name),
            arrays=array_format(run.config),
            n_threads=run.config.threads or None,
            progress=progress,
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
            "others": images.others.to_json(),
        },
        throughput=("images/s", images.n / max(time.monotonic() - clock, 1e-9)),
    )
