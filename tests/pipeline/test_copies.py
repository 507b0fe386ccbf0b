"""Test images that are copies of training images are counted in log, result and report."""

import shutil

import numpy as np
import pytest
from PIL import Image

from ktfast.config import load_config
from ktfast.evaluation.copies import Copies, copies_of
from ktfast.evaluation.results import EvaluationSummary
from ktfast.evaluation.voc_results import VocSummary
from ktfast.images.file_records import FileHashes
from ktfast.pipeline.run_folder import RunFolder
from ktfast.pipeline.stages import prepare
from ktfast.pipeline.steps.copied_images import copied_images, copied_photographs
from ktfast.pipeline.steps.fine_tune_voc import open_sets
from ktfast.pipeline.steps.labelled_sets import LabelledSet
from ktfast.report import sections
from support.pictures import photo_folder
from support.voc_folder import voc_folder


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Folders in which the test images are, in part, copies under other names."""
    place = tmp_path_factory.mktemp("copies")
    photographs = sorted(photo_folder(place / "all", 9, height=80, width=80).rglob("*.jpg"))
    for number, path in enumerate(photographs):  # three of each of three classes
        folder = place / ("test" if number % 3 == 2 else "train") / path.parent.name
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder / path.name)
    copied = place / "test" / photographs[0].parent.name / "renamed.jpg"
    shutil.copy(photographs[0], copied)
    (copied.parent / "damaged.jpg").write_bytes(b"no photograph")
    (place / "train" / photographs[0].parent.name / "damaged.jpg").write_bytes(b"no photograph")
    return place


def prepared(place, folder, **options):
    given = {f"data.{role}": str(place / name) for role, name in options.items()}
    sets = {"evaluate.sets.more": {"train": str(place / "train"), "test": str(place / "test")}}
    run = RunFolder(folder, load_config("tiny_cpu", {**given, **sets}))
    prepare.execute(run)
    return run


def test_copies_are_found_under_other_names_and_in_further_sets(place, tmp_path, caplog):
    run = prepared(place, tmp_path, pretext="train", test="test")
    (found,) = copied_images(run, LabelledSet())
    assert (found.n, found.tested, found.labelled) == (1, 4, True)  # the damaged file is no image
    assert (found.test, found.other) == ("data.test", "data.pretext")  # no data.train was given
    assert found.first.endswith("renamed.jpg")
    assert found.copy.endswith("photo 0000 图.jpg")
    (further,) = copied_images(run, LabelledSet("more"))
    assert (further.test, further.other) == ("evaluate.sets.more.test", "evaluate.sets.more.train")
    warnings = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert warnings == [found.sentence(), further.sentence()]
    alone = {"evaluate.models": {"other": {"network": "alexnet"}}}
    alone |= {"data.pretext": str(place / "train"), "data.train": str(place / "train")}
    alone |= {"data.test": str(place / "test")}
    probed = RunFolder(run.folder, load_config("tiny_cpu", alone))
    assert [copies.labelled for copies in copied_images(probed, LabelledSet())] == [True]
    assert "1 of the 4 data.test images has the content of an image of data.pretext" in warnings[0]


def test_unlabelled_copies_are_no_warning(place, tmp_path, caplog):
    run = prepared(place, tmp_path, pretext="all", train="train", test="test")
    labelled, other = copied_images(run, LabelledSet())
    assert (labelled.n, labelled.other) == (1, "data.train")
    assert (other.n, other.other, other.labelled) == (4, "data.pretext", False)
    assert other.sentence().endswith("before the test, without labels.")
    assert other.sentence() not in [r.getMessage() for r in caplog.records if r.levelno >= 30]


def test_other_images_are_no_copies(place, tmp_path):
    run = prepared(place, tmp_path, pretext="train", test="train")
    Image.fromarray(np.zeros((80, 80, 3), np.uint8)).save(tmp_path / "black.jpg")
    (tmp_path / "black" / "black").mkdir(parents=True)
    shutil.move(tmp_path / "black.jpg", tmp_path / "black" / "black")
    run = prepared(place, tmp_path / "run", pretext="train", test=tmp_path / "black")
    assert copied_images(run, LabelledSet()) == []


def test_the_results_and_the_report_keep_copies():
    found = Copies("data.test", "data.train", 2, 4, "a.jpg", "b.jpg", labelled=True)
    own = EvaluationSummary(copies=[found])
    assert EvaluationSummary.from_json(own.to_json()).copies == [found]
    assert "copies" not in EvaluationSummary().to_json()  # results without copies keep their bits
    voc = VocSummary("mAP", {}, {"test": 4}, [found])
    assert VocSummary.from_json(voc.to_json()).copies == [found]
    assert "copies" not in VocSummary("mAP", {}, {}).to_json()
    assert copies_of([found.to_json(), {"n": 1}, 3]) == [found]

    class Reader:
        def evaluation(self):
            return EvaluationSummary(copies=[found], sets={"more": own})

        def voc(self, protocol):
            return voc if protocol == "svm" else None

    assert sections.copies_section(Reader()) == [found.sentence()]
    assert found.sentence().startswith(
        "2 of the 4 data.test images are copies of images of data.tr"
    )


def test_a_photograph_of_voc_under_two_ids_is_found(tmp_path):
    folder = voc_folder(tmp_path / "voc", n=4)
    lists = folder / "ImageSets/Main"
    options = {"voc.svm.folder": str(folder), "voc.svm.train": "train", "voc.svm.test": "test"}
    photographs = sorted((folder / "JPEGImages").iterdir())
    for path in photographs:  # some are equal
        path.write_bytes(path.read_bytes() + path.stem.encode())
    ids = [path.stem for path in photographs]
    (lists / "train.txt").write_text("\n".join(ids[:2]))
    (lists / "test.txt").write_text("\n".join(ids[2:]))
    shutil.copy(photographs[0], photographs[2])
    sets = open_sets(load_config(None, options), "svm")
    (found,) = copied_photographs("svm", sets, FileHashes())
    assert (found.n, found.tested) == (1, len(ids) - 2)
    assert (found.test, found.other) == ("voc.svm.test", "voc.svm.train")
    assert ids[0] in found.copy
