"""Refuse an evaluation whose test images are also training images.

Such an evaluation measures how well a probe remembers images, and its scores are too good.
"""

import os
from pathlib import Path

from ktfast.config import VocSection
from ktfast.errors import ConfigError, DataError, shown
from ktfast.images.same_files import same_files
from ktfast.pipeline.run_folder import RunFolder
from ktfast.pipeline.steps.fine_tune_voc import Sets
from ktfast.pipeline.steps.image_sets import set_name
from ktfast.pipeline.steps.labelled_sets import LabelledSet, labelled_sets
from ktfast.pipeline.steps.prepared_images import listed_images


def check_halves(run: RunFolder) -> None:
    """Refuse labelled test images that are also labelled training images.

    If a folder was prepared and does not exist any more, its files are not compared.

    Parameters
    ----------
    run : RunFolder
        The run.

    Raises
    ------
    ConfigError
        `data.train` and `data.test` are the same folder, or the folders of a set of
        `evaluate.sets` are.
    DataError
        A file is an image of both folders, also under another name or through a link.
    """
    for images in labelled_sets(run.config):
        if {images.train, images.test} <= run.config.folders().keys():
            _check_set(run, images)


def _check_set(run: RunFolder, images: LabelledSet) -> None:
    """Check the training and test images of one labelled set."""
    folders = run.config.folders()
    train, test = folders[images.train], folders[images.test]
    options = [
        f"evaluate.sets.{role}" if images.name else f"data.{role}"
        for role in (images.train, images.test)
    ]
    if _is_same(train, test):
        is_given = images.name or run.config.data.train
        option = f"{options[0]} is" if is_given else f"{options[0]} is not set, and so is"
        raise ConfigError(
            f"{option} the folder of {options[1]} ({shown(test)}): the probes would be tested on "
            f"the images that they learn from; give a folder of other images as {options[0]} or "
            f"{options[1]}"
        )
    if not (train.is_dir() and test.is_dir()):
        return
    tested = listed_images(run, set_name(run, images.test))
    common = same_files(tested, listed_images(run, set_name(run, images.train)))
    if common:
        first, other = common[0]
        raise DataError(
            f"{len(common)} of the {tested.n} images of {options[1]} ({shown(test)}) are also "
            f"images of {options[0]} ({shown(train)}), the first is {shown(first)}, in "
            f"{options[0]} {shown(other)}: the probes would be tested on images that they learn "
            "from; leave each image, and each link to an image, in one of the two folders"
        )


def check_voc_halves(protocol: str, section: VocSection, sets: Sets) -> None:
    """Refuse a photograph of PASCAL VOC that is both trained on and tested on.

    Parameters
    ----------
    protocol : str
        "classification", "detection" or "segmentation".
    section : VocSection
        The options of the protocol.
    sets : Sets
        The photographs of both lists.

    Raises
    ------
    DataError
        A photograph is in both lists. The message names the lists and the first photograph.
    """
    common = same_files(sets.test.index, sets.train.index)
    if common:
        raise DataError(
            f"voc.{protocol}: {len(common)} of the {sets.test.n} photographs of the test list "
            f"{section.test!r} are also in the training list {section.train!r}, the first is "
            f"{shown(common[0][0])}: the network would be tested on photographs that it learns "
            f"from; give lists without common photographs as voc.{protocol}.train and "
            f"voc.{protocol}.test"
        )


def _is_same(first: Path, second: Path) -> bool:
    if os.path.realpath(first) == os.path.realpath(second):
        return True
    return first.is_dir() and second.is_dir() and os.path.samefile(first, second)
