"""Find test images whose content is also in a folder that the networks or the probes learn from.

Files that are in both folders, also through links, are refused: see `ktfast.pipeline.halves`.
Copies are allowed, because some published data sets have them. The log and the report name their
number.
"""

import logging
from collections.abc import Mapping

from ktfast.evaluation.copies import Copies
from ktfast.images.file_records import UNREAD, FileHashes
from ktfast.pipeline.run_folder import RunFolder
from ktfast.pipeline.steps.fine_tune_voc import Sets
from ktfast.pipeline.steps.image_sets import set_names
from ktfast.pipeline.steps.labelled_sets import LabelledSet, labelled_sets
from ktfast.pipeline.steps.prepared_images import recorded_hashes
from ktfast.pipeline.steps.probed_models import stands_alone

logger = logging.getLogger(__name__)

_UNLABELLED = ("pretext", "cluster", "transfer")


def copied_images(run: RunFolder, images: LabelledSet) -> list[Copies]:
    """Compare the content of prepared test images with that of the images that are learnt from.

    The stage prepare has recorded the hash of every file, so no image is read.

    Parameters
    ----------
    run : RunFolder
        The run. The image sets of all roles are prepared.
    images : LabelledSet
        The labelled set whose test images are compared.

    Returns
    -------
    copies : list of Copies
        One entry per folder that holds copies: that of the labelled training images first.
    """
    names, found = set_names(run.config), []
    test = recorded_hashes(run, names[images.test])
    compared: set[str] = set()
    roles = (images.train,) if stands_alone(run) else (images.train, *_UNLABELLED)
    for role in roles:
        if role in names and names[role] not in compared:
            compared.add(names[role])
            pairs = _equal(test, recorded_hashes(run, names[role]))
            labelled = role == images.train
            own = images if labelled else LabelledSet()
            options = images.option_of(images.test, run.config), own.option_of(role, run.config)
            found += _described(pairs, len(test), *options, labelled=labelled)
    return found


def log_copies(run: RunFolder) -> None:
    """Log the copies of the test images of every labelled set, when the images are prepared."""
    for images in labelled_sets(run.config):
        for copies in copied_images(run, images):
            log(copies)


def copied_photographs(protocol: str, sets: Sets, hashes: FileHashes) -> list[Copies]:
    """Compare the content of the photographs of a test list of PASCAL VOC with the training list.

    Parameters
    ----------
    protocol : str
        "classification", "detection", "segmentation" or "svm".
    sets : Sets
        The photographs of both lists.
    hashes : FileHashes
        Hashes of files that were read before.

    Returns
    -------
    copies : list of Copies
        One entry, or none.
    """
    train, test = (
        dict(
            zip(
                images.index.paths,
                hashes.sha256(images.name(row) for row in range(images.n)),
                strict=True,
            )
        )
        for images in (sets.train, sets.test)
    )
    options = f"voc.{protocol}.test", f"voc.{protocol}.train"
    return _described(_equal(test, train), len(test), *options, labelled=True)


def log(copies: Copies) -> None:
    """Warn of copies whose labels are learnt; mention other copies."""
    (logger.warning if copies.labelled else logger.info)("%s", copies.sentence())


def _equal(test: Mapping[str, str], other: Mapping[str, str]) -> list[tuple[str, str]]:
    """Pair each test image with an image of the same content."""
    known = {sha256: path for path, sha256 in other.items() if sha256 != UNREAD}
    return [(path, known[sha256]) for path, sha256 in test.items() if sha256 in known]


def _described(
    pairs: list[tuple[str, str]], tested: int, test: str, other: str, *, labelled: bool
) -> list[Copies]:
    if not pairs:
        return []
    first, copy = pairs[0]
    return [Copies(test, other, len(pairs), tested, first, copy, labelled)]
