"""Every fault of the files of PASCAL VOC is named before a training, all in one error."""

import logging
import zlib

import numpy as np
import pytest
from PIL import Image

from ktfast.config import load_config
from ktfast.errors import DataError
from ktfast.pipeline.run_folder import RunFolder
from ktfast.pipeline.steps.fine_tune_voc import open_sets
from ktfast.pipeline.steps.inspect_voc import inspect_voc
from ktfast.voc.data import VocSet
from ktfast.voc.inspection import faults_of, refuse
from support.pictures import bomb
from support.voc_folder import annotation, voc_folder


@pytest.fixture
def folder(tmp_path):
    return voc_folder(tmp_path / "VOC2007")


def test_a_whole_folder_has_no_fault(folder):
    assert faults_of(VocSet(folder, "few"), uses="boxes") == []
    assert faults_of(VocSet(folder, "few"), uses="classes") == []
    assert faults_of(VocSet(folder, "few", "Segmentation"), uses="masks") == []


def spoil(folder):
    """Give six of eight photographs a fault each."""
    photographs, masks = folder / "JPEGImages", folder / "SegmentationClass"
    cut = photographs / "2007_000000.jpg"
    cut.write_bytes(cut.read_bytes()[:900])  # the header is whole
    with Image.open(photographs / "2007_000001.jpg") as image:
        exif = Image.Exif()
        exif[0x0112] = 6
        image.save(photographs / "2007_000001.jpg", exif=exif.tobytes())
    for key, box in (("2007_000002", (0, 5, 20, 20)), ("2007_000003", (100, 50, 161, 90))):
        text = annotation([("cat", *box, 0)], 160, 120)
        if key == "2007_000003":  # this photograph is 110 x 150
            text = annotation([("cat", 1, 1, 110, 150, 0), ("cat", 90, 1, 111, 9, 0)], 110, 150)
        (folder / f"Annotations/{key}.xml").write_text(text)
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(masks / "2007_000004.png")
    Image.fromarray(np.full((120, 160), 99, np.uint8)).save(masks / "2007_000005.png")
    return folder


def test_boxes_and_photographs(folder):
    faults = faults_of(VocSet(spoil(folder), "few"), uses="boxes")
    assert len(faults) == 4
    for fault, words in zip(
        faults,
        [
            "2007_000000.jpg cannot be decoded",
            "2007_000001.jpg is turned by its EXIF orientation 6",
            "2007_000002.jpg has a box x 0 to 20, y 5 to 20, outside of the photograph of 160 x 1",
            "2007_000003.jpg has a box x 90 to 111, y 1 to 9, outside of the photograph of 110 x",
        ],
        strict=True,
    ):
        assert words in fault


def test_masks_and_photographs(folder):
    faults = faults_of(VocSet(spoil(folder), "few", "Segmentation"), uses="masks")
    names = ["_000000", "_000001", "_000001", "_000004", "_000005"]
    assert [key in fault for key, fault in zip(names, faults, strict=True)] == [True] * 5
    assert "160 x 120 pixels, its photograph 120 x 160" in faults[2]
    assert "9 x 9 pixels, its photograph" in faults[3]
    assert "holds the value 99" in faults[4]


def test_classification_needs_photographs_only(folder):
    faults = faults_of(VocSet(spoil(folder), "few"), uses="classes")
    assert len(faults) == 1
    assert "2007_000000.jpg" in faults[0]


def test_the_first_ten_faults_are_named():
    refuse([])
    with pytest.raises(DataError, match=r"have 12 faults: 0; 1; .*; 9; and 2 more; correct"):
        refuse([str(k) for k in range(12)])


def test_both_halves_are_told_at_once_and_whole_ones_remembered(folder, tmp_path, caplog):
    lists = folder / "ImageSets/Main"
    ids = (lists / "few.txt").read_text().split()
    (lists / "first.txt").write_text("\n".join(ids[:3]))
    (lists / "second.txt").write_text("\n".join(ids[3:]))
    options = {
        "voc.detection.folder": folder,
        "voc.detection.train": "first",
        "voc.detection.test": "second",
    }
    run = RunFolder(tmp_path, load_config(None, options))

    def inspected():
        caplog.clear()
        with caplog.at_level(logging.INFO):
            inspect_voc(run, {"detection": open_sets(run.config, "detection")})
        return caplog.text.count("inspecting")

    assert (inspected(), inspected()) == (2, 0)
    spoil(folder)
    with pytest.raises(DataError, match=r"have 4 faults: .*000000.*000001.*000002.*000003"):
        inspected()


def test_sizes_are_read_up_to_the_limit_of_the_options(folder):
    """Pillow by itself refuses images of more than 179 million pixels."""
    (folder / "JPEGImages/2007_000000.jpg").write_bytes(bomb(20_000))
    mask = folder / "SegmentationClass/2007_000000.png"
    head = bytearray(mask.read_bytes())
    head[16:24] = (20_000).to_bytes(4, "big") * 2
    head[29:33] = zlib.crc32(head[12:29]).to_bytes(4, "big")
    mask.write_bytes(head)
    images = VocSet(folder, "few", "Segmentation")
    images.pixel_limit = 401_000_000
    assert images.shape(0) == images.mask_shape(0) == (20_000, 20_000)
