"""Compare the image folders of a run with the images that the stage prepare read from them."""

import dataclasses
import logging
import os
from pathlib import Path
from typing import Any

from ktfast.config import Config
from ktfast.durable import read_json, write_sealed
from ktfast.errors import ConfigError, DataError, shown
from ktfast.images.arrays import ArrayFormat
from ktfast.images.file_records import (
    FileChanges,
    FileRecord,
    compare_files,
    read_records,
)
from ktfast.images.index import UNREADABLE, ImageIndex
from ktfast.images.source import INDEX, Decoding, PreparedSet
from ktfast.images.tars import images_exist, scan_images
from ktfast.pipeline.question import Input, Question, refusal
from ktfast.pipeline.run_folder import RunFolder
from ktfast.pipeline.stage_result import read_begun

logger = logging.getLogger(__name__)

HASHES = "files.json"
"""File in the run folder: hashes of files whose modification time is not the recorded one."""

TARS = "tars.npz"
"""File in the run folder: the images of tar files with their byte offsets."""


def listed_images(run: RunFolder, name: str) -> ImageIndex:
    """List the images of a folder, once in the life of `run`.

    Parameters
    ----------
    run : RunFolder
        The run.
    name : str
        Name of the image set.

    Returns
    -------
    index : ImageIndex
        The images.
    """
    if name not in run.listings:
        folder = run.config.folders()[name]
        arrays = run.config.transfer.channels is not None
        run.listings[name] = scan_images(folder, arrays=arrays, store=run.folder / TARS)
    return run.listings[name]


def array_format(config: Config) -> ArrayFormat | None:
    """Describe the arrays in the image folders of a run; None if they hold photographs."""
    channels = config.transfer.channels
    return None if channels is None else ArrayFormat(channels, *config.transfer.array_range)


def recorded_hashes(run: RunFolder, name: str) -> dict[str, str]:
    """Give the hash of the file of every image of a finished set, as prepare recorded it.

    Parameters
    ----------
    run : RunFolder
        The run.
    name : str
        Name of the image set.

    Returns
    -------
    hashes : dict of str to str
        SHA-256 of each image's file by relative path. Empty if an earlier version of ktfast, which
        recorded no hashes, prepared the set.
    """
    records, _ = _records(run, f"prepare/{name}")
    paths = PreparedSet.open(run.stage(f"prepare/{name}")).paths
    return {path: records[path].sha256 for path in paths if path in records}


def prepare_question(run: RunFolder, name: str) -> tuple[Question, FileChanges | None]:
    """Build the question of the stage prepare for an image set.

    Parameters
    ----------
    run : RunFolder
        The run.
    name : str
        Name of the image set.

    Returns
    -------
    question : Question
        The question. Its fingerprint of the images is the recorded one if no file has changed.
    changes : FileChanges or None
        How the files differ from those of the finished set; None if there is nothing to compare.
    """
    index = listed_images(run, name)
    images = Input(index.fingerprint, _text(index.root))
    recorded = read_begun(run, f"prepare/{name}").get("inputs", {}).get("images")
    changes = _changes(run, name)
    if changes is not None and (detail := changes.text()):
        # Path and size may be those of the record, and only the content differs.
        images = dataclasses.replace(images, fingerprint=f"changed: {detail}", detail=detail)
    elif changes is not None and recorded is not None:
        images = dataclasses.replace(images, fingerprint=recorded)
    return _question(run.config, images, decoding_of(run, name)), changes


def try_again(
    run: RunFolder, name: str, question: Question, changes: FileChanges | None
) -> Question:
    """Reopen a finished set if files that could not be read earlier can be read now.

    The new question is written before the result is removed. After an interruption, the next call
    compares the files that are listed now with the new question, and continues.

    Parameters
    ----------
    run : RunFolder
        The run.
    name : str
        Name of the image set.
    question, changes : Question, FileChanges or None
        What `prepare_question` found.

    Returns
    -------
    question : Question
        The question, whose fingerprint is that of the files that are listed now if the set was
        reopened.
    """
    if changes is not None and changes.readable and not changes.text():
        logger.info(
            "prepare/%s: %d files that could not be read are tried again, the first is %s",
            name,
            len(changes.readable),
            shown(changes.readable[0]),
        )
        index, folder = listed_images(run, name), run.stage(f"prepare/{name}")
        listed = Input(index.fingerprint, _text(index.root))
        question = _question(run.config, listed, decoding_of(run, name))
        write_sealed(folder / "begun.json", question.record())
        (folder / "result.json").unlink()
    return question


def decoding_of(run: RunFolder, name: str) -> Decoding:
    """Say how the stage prepare decodes the JPEG files of an image set.

    If the option `data.decoding` is not set, a set that was begun keeps its decoding. Earlier
    versions of ktfast did not record the decoding, because they decoded every file fully.

    Parameters
    ----------
    run : RunFolder
        The run.
    name : str
        Name of the image set.

    Returns
    -------
    decoding : {"reduced", "full"}
        The decoding.
    """
    if run.config.data.decoding is not None:
        return run.config.data.decoding
    begun = read_begun(run, f"prepare/{name}")
    recorded = (begun.get("settings") or {}).get("decoding", "full")
    return "full" if begun and recorded == "full" else "reduced"


def refuse_other_images(run: RunFolder, name: str) -> None:
    """Refuse if a finished set holds other images than the folder that is asked for.

    If the folder that was prepared does not exist any more, the prepared images stand for it.

    Raises
    ------
    ConfigError
        The images or the options of the set differ. The message names both folders.
    """
    stage, folder = f"prepare/{name}", run.config.folders()[name]
    if not (run.stage(stage) / "result.json").is_file():
        return
    begun = read_begun(run, stage)
    # The record holds the absolute path; that of an earlier version lacks the path.
    was_prepared = (begun.get("named") or {}).get("images") == _text(folder)
    was_prepared = was_prepared or _prepared_folder(run, name) == os.path.realpath(folder)
    if not images_exist(folder) and was_prepared:
        recorded = str(begun.get("inputs", {}).get("images", ""))
        images = Input(recorded, _text(folder))
        question = _question(run.config, images, decoding_of(run, name))
    else:
        question, _ = prepare_question(run, name)
    if begun and (changes := question.changes(begun)):
        raise ConfigError(refusal(run.stage(stage), "prepare", changes))


def _question(config: Config, images: Input, decoding: Decoding) -> Question:
    names = {"short_side", "quality", "max_megapixels"}
    settings, defaults = (
        section.model_dump(mode="json", include=names) for section in (config.data, Config().data)
    )
    settings["decoding"] = decoding
    defaults["decoding"] = "full"  # what a record of an earlier version means
    if (arrays := array_format(config)) is not None:
        settings["arrays"] = [arrays.channels, arrays.low, arrays.high]
    defaults["arrays"] = None
    return Question("data", settings, {"images": images}, defaults)


def _text(folder: Path) -> str:
    return f"the images in {shown(os.path.abspath(folder))}"


def _prepared_folder(run: RunFolder, name: str) -> str:
    """Give the real path of the folder from which a finished set was made."""
    summary: dict[str, Any] = run.result(f"prepare/{name}").get("summary") or {}
    return os.path.realpath(str(summary.get("folder", "")))


def _changes(run: RunFolder, name: str) -> FileChanges | None:
    """Compare the files of a finished set with its folder.

    None: the set has no records, or a file of the set is damaged, so that the stage prepares the
    images again.
    """
    try:
        records, unreadable = _records(run, f"prepare/{name}")
    except DataError:
        return None
    if not records:
        return None
    index = listed_images(run, name)
    states = zip(index.sizes.tolist(), index.mtimes_ns.tolist(), strict=True)
    files = dict(zip(index.paths, states, strict=True))
    hashes = index.hashes(run.folder / HASHES)
    changes = compare_files(index.root, files, records, hashes)
    hashes.save()
    readable = tuple(path for path in changes.added if path in unreadable)
    added = tuple(path for path in changes.added if path not in unreadable)
    return dataclasses.replace(changes, added=added, readable=(*changes.readable, *readable))


def _records(run: RunFolder, stage: str) -> tuple[dict[str, FileRecord], set[str]]:
    """Read the records of a finished set, and the paths that the system did not let ktfast read.

    Raises
    ------
    DataError
        The set is not finished, or a file is damaged.
    """
    records: dict[str, FileRecord] = {}
    for file in sorted(run.result(stage).get("files", {})):
        if file.startswith("sources-"):
            records |= read_records(run.artifact(stage, file))
    skipped = read_json(run.artifact(stage, INDEX), lambda index: dict(index["skipped"]))
    unreadable = {path for path, reason in skipped.items() if str(reason).startswith(UNREADABLE)}
    return records, unreadable
