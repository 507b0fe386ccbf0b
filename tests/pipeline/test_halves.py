"""Test images that are also training images are refused before anything is computed."""

import os
import shutil

import pytest

from ktfast.cli.main import main
from ktfast.config import load_config
from ktfast.errors import ConfigError, DataError
from ktfast.images.index import ImageIndex
from ktfast.images.same_files import same_files
from ktfast.pipeline.halves import check_halves, check_voc_halves
from ktfast.pipeline.run_folder import RunFolder
from ktfast.pipeline.steps.fine_tune_voc import open_sets
from support.pictures import photo_folder
from support.voc_folder import voc_folder


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Folders of training and test images, and the training folder under two more names."""
    place = tmp_path_factory.mktemp("halves")
    photo_folder(place / "train", 6, height=96, width=96)
    shutil.copytree(place / "train", place / "test")  # copies are other files
    os.symlink(place / "train", place / "link")
    voc_folder(place / "voc", n=3)
    return place


def check(place, **folders):
    given = {f"data.{role}": str(place / name) for role, name in folders.items()}
    check_halves(RunFolder(place / "run", load_config(None, given)))


@pytest.mark.parametrize("test", ["train", "link", "link/../train"])
@pytest.mark.parametrize("command", ["run", "prepare", "pretext", "evaluate"])
def test_one_folder_for_both_halves_is_refused(place, tmp_path, command, test, capsys):
    arguments = [command, "--run", str(tmp_path / "run"), "--config", "tiny_cpu"]
    arguments += ["--data.pretext", str(place / "train"), "--data.test", str(place / test)]
    assert main(arguments) == 2
    message = capsys.readouterr().err
    assert f"data.train is not set, and so is the folder of data.test ({place / test})" in message
    assert "give a folder of other images as data.train or data.test" in message
    assert not (tmp_path / "run/prepare").exists()


def test_a_given_training_folder_is_named(place):
    with pytest.raises(ConfigError, match=r"^data\.train is the folder of data\.test"):
        check(place, pretext="test", train="train", test="link")


@pytest.mark.parametrize("how", ["symbolic link", "hard link", "folder inside"])
def test_a_file_of_both_halves_is_refused(place, tmp_path, how):
    shutil.copytree(place / "test", tmp_path / "test")
    first = sorted((place / "train").rglob("*.jpg"))[0]
    link = tmp_path / "test" / first.parent.name / "other name.jpg"
    train = place / "train"
    if how == "folder inside":
        train = tmp_path
    elif how == "hard link":
        os.link(first, link)
    else:
        os.symlink(first, link)
    number = "6 of the 6" if how == "folder inside" else "1 of the 7"
    with pytest.raises(DataError, match=f"^{number} images of data.test .* also images of data.tr"):
        check(tmp_path, pretext=train, test="test")


def test_usual_folders_are_silent(place, tmp_path, caplog):
    check(place, pretext="train", test="test")
    check(place, pretext="test", train="train", test="test/../test")
    check(place, pretext="train")
    check(place, pretext=tmp_path / "gone", test="test")  # prepared earlier
    assert not caplog.records


@pytest.mark.parametrize("protocol", ["classification", "detection", "segmentation"])
def test_a_photograph_of_both_voc_lists_is_refused(place, protocol):
    def halves(test):
        names = {"folder": str(place / "voc"), "train": "few", "test": test}
        given = {f"voc.{protocol}.{name}": value for name, value in names.items()}
        config = load_config(None, given)
        check_voc_halves(protocol, getattr(config.voc, protocol), open_sets(config, protocol))

    halves("other")
    for kind in ("Main", "Segmentation"):
        lists = place / "voc/ImageSets" / kind
        (lists / "mixed.txt").write_text("2008_000000\n2007_000001\n")
    match = f"^voc.{protocol}: 1 of the 2 photographs of the test list 'mixed' .*2007_000001.jpg"
    with pytest.raises(DataError, match=match):
        halves("mixed")
    with pytest.raises(DataError, match="3 of the 3 photographs of the test list 'val'"):
        halves("val")


def test_files_are_told_apart_where_inodes_repeat(place):
    index = ImageIndex.scan(place / "train")
    other = ImageIndex.scan(place / "test")
    other.file_ids[:], other.mtimes_ns[:] = index.file_ids, index.mtimes_ns + 1
    assert same_files(index, other) == []
    assert same_files(index, index) == list(zip(index.paths, index.paths, strict=True))
    assert index.take(index.labels.nonzero()[0]).file_ids.shape == (4, 2)
