"""Masks of the Semantic Boundaries Dataset join the training photographs of segmentation."""

import numpy as np
import pytest
from scipy.io import savemat
from scipy.sparse import csc_matrix

from ktfast.config import load_config
from ktfast.errors import DataError
from ktfast.pipeline.steps.fine_tune_voc import open_sets
from ktfast.voc.data import VocSet
from ktfast.voc.matlab import read_field
from ktfast.voc.sbd import VocWithSbd
from support.voc_folder import voc_folder


def sbd_mask(path, mask, **options):
    """A file as in the data set: a struct of a mask, sparse boundaries and a list of classes."""
    boundaries = np.empty((20, 1), object)
    for number in range(20):
        boundaries[number, 0] = csc_matrix(mask == number + 1, dtype=bool)
    held = {"Segmentation": mask, "Boundaries": boundaries, "CategoriesPresent": np.array([8.0])}
    savemat(path, {"other": np.ones(3), "GTcls": held}, **options)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A VOC folder with the lists `some` and `tested`, and an SBD folder that overlaps both."""
    root = tmp_path_factory.mktemp("sbd")
    folder, sbd = voc_folder(root / "VOC2012", n=6), root / "dataset"
    ids = (folder / "ImageSets/Main/few.txt").read_text().split()
    lists = folder / "ImageSets/Segmentation"
    (lists / "some.txt").write_text("\n".join(ids[:2]))
    (lists / "tested.txt").write_text(ids[5])
    (sbd / "cls").mkdir(parents=True)
    images = VocSet(folder, "few", "Segmentation")
    for row, key in enumerate(ids):
        mask = np.where(images.mask(row) == 255, 0, images.mask(row)).astype(np.uint8)
        sbd_mask(sbd / f"cls/{key}.mat", mask, do_compression=row % 2 == 0)
    (sbd / "train.txt").write_text("\n".join(ids[1:4]) + "\n")
    (sbd / "val.txt").write_text("\n".join(ids[3:]) + "\n")
    return folder, sbd, ids


def test_photographs_with_masks_of_sbd_are_trained_on_too(folders):
    folder, sbd, ids = folders
    given = {"folder": str(folder), "train": "some", "test": "tested", "sbd": str(sbd)}
    config = load_config(None, {f"voc.segmentation.{name}": text for name, text in given.items()})
    sets = open_sets(config, "segmentation")
    assert sets.test.ids == (ids[5],)
    assert sets.train.ids == tuple(ids[:5])  # the tested photograph is left out
    whole = VocSet(folder, "few", "Segmentation")
    for row in range(5):
        expected, found = whole.mask(row), sets.train.mask(row)
        assert sets.train.mask_shape(row) == expected.shape
        assert (found == 255).any() == (row < 2)  # masks of PASCAL VOC stay
        assert (found == np.where(expected == 255, found, expected)).all()
    without = config.voc.segmentation.model_copy(update={"sbd": None})
    voc = config.voc.model_copy(update={"segmentation": without})
    plain = open_sets(config.model_copy(update={"voc": voc}), "segmentation")
    assert plain.train.ids == tuple(ids[:2])
    assert plain.train.fingerprint != sets.train.fingerprint


def test_what_is_wrong_with_the_folder_is_named(folders, tmp_path):
    folder, _, ids = folders

    def opened(place):
        return VocWithSbd(folder, "some", sbd=place, without=[ids[5]])

    with pytest.raises(DataError, match=r"train\.txt does not exist.*voc\.segmentation\.sbd"):
        opened(tmp_path)
    for name in ("train.txt", "val.txt"):
        (tmp_path / name).write_text("")
    with pytest.raises(DataError, match="name no photograph"):
        opened(tmp_path)
    (tmp_path / "train.txt").write_text("2009_000001")
    with pytest.raises(DataError, match=r"2009_000001\.jpg"):
        opened(tmp_path)
    (tmp_path / "train.txt").write_text(ids[2])
    with pytest.raises(DataError, match=rf"{ids[2]}\.mat"):
        opened(tmp_path)
    (tmp_path / "cls").mkdir()
    sbd_mask(tmp_path / f"cls/{ids[2]}.mat", np.full((4, 4), 21, np.uint8))
    with pytest.raises(DataError, match="holds the value 21"):
        opened(tmp_path).mask(2)
    savemat(tmp_path / f"cls/{ids[2]}.mat", {"GTcls": {"Segmentation": np.ones((2, 2))}})
    with pytest.raises(DataError, match="float64"):
        opened(tmp_path).mask(2)


@pytest.mark.parametrize(
    ("held", "problem"),
    [
        ({"other": 1.0}, "no variable GTcls"),
        ({"GTcls": np.ones(2)}, "must be a single struct"),
        ({"GTcls": {"Boundaries": 1.0}}, "has no field Segmentation"),
        ({"GTcls": {"Segmentation": "text"}}, "must hold numbers"),
    ],
)
def test_what_is_wrong_with_a_struct_is_named(held, problem, tmp_path):
    savemat(tmp_path / "a.mat", held)
    with pytest.raises(ValueError, match=problem):
        read_field((tmp_path / "a.mat").read_bytes(), "GTcls", "Segmentation")
