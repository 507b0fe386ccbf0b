"""Questions: what counts as the same, and what a refusal says."""

import os
import re

import pytest
from PIL import Image

import ktfast
from ktfast.config import load_config
from ktfast.config.run import tomllib
from ktfast.durable import read_json, write_json, write_sealed
from ktfast.errors import ConfigError
from ktfast.evaluation.voc_results import VocRow
from ktfast.features.source_code import module_file, source_code
from ktfast.pipeline.chain import check_settings
from ktfast.pipeline.feasibility import check_feasible
from ktfast.pipeline.question import Input, Question
from ktfast.pipeline.run_folder import RunFolder, open_run
from ktfast.pipeline.stage_result import Outcome, complete_stage
from ktfast.pipeline.steps.prepared_images import HASHES
from ktfast.pipeline.steps.questions import evaluate_question, transfer_question
from ktfast.voc.data import VocSet
from support.photographs import squares
from support.pictures import photo_folder
from support.tiny_recipe import TINY
from support.voc_folder import voc_folder

HEX = re.compile("[0-9a-f]{64}")


def images(folder, n=12, first=0):
    folder.mkdir()
    for number, square in enumerate(squares(n + first, 96)[first:]):
        Image.fromarray(square).save(folder / f"{number:02}.bmp")
    return folder


def options(pretext, **more):
    return {**tomllib.loads(TINY), "data.pretext": str(pretext), **more}


def question(settings, inputs=None, **more):
    return Question("transfer", settings, inputs or {}, **more)


def prepared(run):
    return read_json(run / "prepare/pretext/result.json")["fingerprint"]


class TestImages:
    """Up to date means the same content."""

    @pytest.fixture
    def photos(self, tmp_path):
        return images(tmp_path / "photos")

    @pytest.fixture
    def run(self, photos, tmp_path):
        ktfast.run(options(photos), tmp_path / "run", stages=["prepare"])
        return tmp_path / "run"

    def test_an_image_of_equal_size_is_another_image(self, photos, run):
        size = (photos / "03.bmp").stat().st_size
        (photos / "03.bmp").write_bytes((photos / "04.bmp").read_bytes())
        assert (photos / "03.bmp").stat().st_size == size
        for stage in ("prepare", "pretext", "features"):
            with pytest.raises(ConfigError, match=r"changed since \(03\.bmp has other content\)"):
                ktfast.run(options(photos), run, stages=[stage])
        before = prepared(run)
        ktfast.run(options(photos), run, stages=["prepare"], redo=["prepare"])
        assert prepared(run) != before

    def test_touching_and_moving_change_nothing(self, photos, run, caplog):
        for path in photos.iterdir():
            os.utime(path)
        photos.rename(photos.with_name("moved"))
        with caplog.at_level("INFO"):
            ktfast.run(options(photos.with_name("moved")), run, stages=["prepare"])
        assert "up to date" in caplog.text
        assert len(read_json(run / HASHES)["paths"]) == 12  # the next call reads no file

    def test_new_and_lost_images_are_named(self, photos, run):
        (photos / "00.bmp").rename(photos / "zz.bmp")
        with pytest.raises(ConfigError, match=r"zz\.bmp is new; 00\.bmp is gone") as caught:
            ktfast.run(options(photos), run, stages=["prepare"])
        assert not HEX.search(str(caught.value))

    def test_an_interrupted_prepare_notices_it_too(self, photos, run):
        whole = prepared(run)
        (run / "prepare/pretext/result.json").unlink()
        old = (photos / "03.bmp").read_bytes()
        (photos / "03.bmp").write_bytes((photos / "04.bmp").read_bytes())
        ktfast.run(options(photos), run, stages=["prepare"])
        assert prepared(run) != whole
        (run / "prepare/pretext/result.json").unlink()
        (photos / "03.bmp").write_bytes(old)
        ktfast.run(options(photos), run, stages=["prepare"])
        assert prepared(run) == whole

    def test_a_file_that_could_not_be_read_is_tried_again(self, photos, tmp_path, monkeypatch):
        from ktfast.images import index

        def fails(path):
            if str(path).endswith("05.bmp"):
                raise PermissionError(13, "Permission denied", str(path))
            return read(path)

        read, run = index.read_recorded, tmp_path / "run"
        with monkeypatch.context() as patch:
            patch.setattr(index, "read_recorded", fails)
            ktfast.run(options(photos), run, stages=["prepare"])
        summary = read_json(run / "prepare/pretext/result.json")["summary"]
        assert summary["skipped"] == [["05.bmp", "cannot be read: Permission denied"]]
        ktfast.run(options(photos), run, stages=["prepare"])
        summary = read_json(run / "prepare/pretext/result.json")["summary"]
        assert (summary["images"], summary["skipped"]) == (12, [])

    def test_a_link_that_is_mended_is_tried_again(self, photos, tmp_path):
        (photos / "02.bmp").rename(tmp_path / "elsewhere")
        (photos / "02.bmp").symlink_to(tmp_path / "target")
        run = tmp_path / "run"
        ktfast.run(options(photos), run, stages=["prepare"])
        (tmp_path / "elsewhere").rename(tmp_path / "target")
        ktfast.run(options(photos), run, stages=["prepare"])
        assert read_json(run / "prepare/pretext/result.json")["summary"]["images"] == 12

    def test_a_run_of_an_earlier_version_stays_up_to_date(self, photos, run, caplog):
        for path in (run / "prepare/pretext").glob("sources-*.json"):
            path.unlink()
        begun, result = (
            read_json(run / f"prepare/pretext/{name}.json") for name in ("begun", "result")
        )
        write_json(
            run / "prepare/pretext/begun.json",
            {"settings": begun["settings"], "inputs": begun["inputs"]},
        )
        new = ("files", "named", "from", "sha256")  # an earlier version wrote no manifest
        write_json(
            run / "prepare/pretext/result.json",
            {key: value for key, value in result.items() if key not in new},
        )
        with caplog.at_level("INFO"):
            ktfast.run(options(photos), run, stages=["prepare"])
        assert "prepare/pretext: up to date" in caplog.text

    def test_images_of_an_earlier_version_stay_fully_decoded(self, tmp_path, caplog):
        """Earlier versions decoded fully, and did not record how they decoded."""
        photos, run = photo_folder(tmp_path / "photos", 12, height=280, width=300), tmp_path / "run"
        asked = options(photos)
        ktfast.run({**asked, "data.decoding": "full"}, run, stages=["prepare"])
        begun = read_json(run / "prepare/pretext/begun.json")
        assert begun["settings"].pop("decoding") == "full"
        write_sealed(run / "prepare/pretext/begun.json", begun)
        with caplog.at_level("INFO"):
            ktfast.run(asked, run, stages=["prepare"])
        assert "prepare/pretext: up to date" in caplog.text
        fully = prepared(run)
        (run / "prepare/pretext/result.json").unlink()  # an interrupted run goes on as it began
        ktfast.run(asked, run, stages=["prepare"])
        assert prepared(run) == fully
        with pytest.raises(ConfigError, match=r"data\.decoding was 'full', is now 'reduced'"):
            ktfast.run({**asked, "data.decoding": "reduced"}, run, stages=["prepare"])
        ktfast.run(asked, run, stages=["prepare"], redo=["prepare"])
        assert prepared(run) != fully
        begun = read_json(run / "prepare/pretext/begun.json")
        assert begun["settings"]["decoding"] == "reduced"

    def test_another_folder_is_refused_with_both_names(self, photos, run, tmp_path):
        other, config = images(tmp_path / "other", first=12), (run / "config.toml").read_bytes()
        ktfast.run(options(photos, **{"features.source": "hog"}), run, stages=["features"])
        config = (run / "config.toml").read_bytes()
        features = read_json(run / "features/pretext/result.json")
        asked = options(other, **{"features.source": "hog"})
        with pytest.raises(ConfigError) as caught:
            ktfast.run(asked, run, stages=["features"], redo=["features"])
        message = str(caught.value)
        assert f"it read the images in {photos}, and now the images in {other}" in message
        assert "redo the stage prepare" in message
        assert not HEX.search(message)
        assert (run / "config.toml").read_bytes() == config
        assert read_json(run / "features/pretext/result.json") == features

    def test_trying_a_file_again_may_be_interrupted(self, photos, tmp_path, monkeypatch):
        def killed(*_, **__):
            raise KeyboardInterrupt

        (photos / "zz.bmp").symlink_to(tmp_path / "later.bmp")
        ktfast.run(options(photos), tmp_path / "run", stages=["prepare"])
        (tmp_path / "later.bmp").write_bytes((photos / "03.bmp").read_bytes())
        with monkeypatch.context() as patch:
            patch.setattr("ktfast.pipeline.stages.prepare.complete_stage", killed)
            with pytest.raises(KeyboardInterrupt):
                ktfast.run(options(photos), tmp_path / "run", stages=["prepare"])
        ktfast.run(options(photos), tmp_path / "run", stages=["prepare"])
        summary = read_json(tmp_path / "run/prepare/pretext/result.json")["summary"]
        assert (summary["images"], summary["skipped"]) == (13, [])

    @pytest.mark.parametrize("name", [b"photos", b"phot\xe9s"])
    def test_the_folder_that_is_gone_may_be_given_by_any_path(self, name, tmp_path, monkeypatch):
        folder = images(tmp_path / os.fsdecode(name))
        monkeypatch.chdir(tmp_path)
        ktfast.run(options(folder.name), tmp_path / "run", stages=["prepare"])
        folder.rename(tmp_path / "away")
        monkeypatch.chdir("/")
        ktfast.run(
            options(folder, **{"features.source": "hog"}), tmp_path / "run", stages=["features"]
        )

    def test_a_folder_that_is_gone_is_replaced_by_the_prepared_images(self, photos, run):
        photos.rename(photos.with_name("away"))
        ktfast.run(options(photos, **{"features.source": "hog"}), run, stages=["features"])


class TestOptions:
    """Options are compared by their meaning."""

    def test_an_option_that_is_new_had_its_default(self, tmp_path):
        config = load_config(None, {})
        known = config.transfer.model_dump(mode="json")
        recorded = {"settings": {"width": 1.0, "training": {"log_every": 3, "epochs": 90.0}}}
        now = {"width": 1.0, "balanced": False, "training": {"epochs": 90.0}}
        assert question(now, defaults=known).changes(recorded) == []
        assert question({**now, "balanced": True}, defaults=known).changes(recorded) == [
            "transfer.balanced was False, is now True"
        ]

    def test_a_finished_stage_of_an_earlier_version_is_up_to_date(self, tmp_path):
        known = {"k": 2, "balanced": False}

        def outcome(folder):
            return Outcome(fingerprint="f", outputs={}, summary={})

        with open_run(tmp_path, load_config(None, {})) as run:
            complete_stage(run, "transfer", question({"k": 2}), outcome)
            now = question({"k": 2, "balanced": False}, defaults=known)
            complete_stage(run, "transfer", now, lambda _: 1 / 0)
            code = {"source": Input("1", "the code", optional=True)}
            complete_stage(run, "transfer", question({"k": 2}, code), lambda _: 1 / 0)
            code = {"source": Input("2", "the code", optional=True)}
            with pytest.raises(ConfigError, match="the code changed since"):
                complete_stage(run, "transfer", question({"k": 2}, code), lambda _: 1 / 0)

    def test_hashes_are_never_shown(self):
        recorded = {"settings": {"a": "0" * 64}, "inputs": {"x": "1" * 64, "y": "2" * 64}}
        changes = question({"a": "f" * 64}, {"x": Input("3" * 64, "the file x")}).changes(recorded)
        assert len(changes) == 3
        assert not HEX.search("".join(changes))


class TestSourceCode:
    """The code of a teacher belongs to the question."""

    def test_edited_code_gives_other_features(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        photos, run = images(tmp_path / "photos"), tmp_path / "run"
        code = tmp_path / "teacher_of_mine.py"
        text = "def f(images):\n    return images[:, :2, :2, 0].reshape(len(images), 4).float()"
        code.write_text(text)
        asked = options(photos, **{"features.source": "teacher_of_mine:f"})
        ktfast.run(asked, run, stages=["features"])
        ktfast.run(asked, run, stages=["features"])
        code.write_text(text + " + 1\n")
        with pytest.raises(ConfigError, match=r"the code in .*teacher_of_mine\.py changed since"):
            ktfast.run(asked, run, stages=["features"])
        with pytest.raises(ConfigError, match=r"teacher_of_mine\.py changed since"):
            ktfast.run(asked, run, stages=["cluster"])

    def test_a_module_is_found_without_running_it(self, tmp_path, monkeypatch):
        package = tmp_path / "odd_teachers"
        package.mkdir()
        (package / "__init__.py").write_text("__version__ = '1.2'\nraise SystemExit")
        (package / "inner.py").write_text("raise SystemExit")
        monkeypatch.chdir(tmp_path)
        assert module_file("odd_teachers.inner") == package / "inner.py"
        assert source_code("odd_teachers.inner:f").text.endswith("inner.py, version 1.2")
        before = source_code("odd_teachers.inner:f").fingerprint
        (package / "__init__.py").write_text("__version__ = '1.3'\n")
        assert source_code("odd_teachers.inner:f").fingerprint != before
        assert module_file("odd_teachers.none") is None
        assert module_file("no_such_package.at.all") is None


def test_photographs_and_masks_of_voc_are_compared_by_content(tmp_path, monkeypatch):
    from ktfast.pipeline.stages import voc

    done = []

    def score(*arguments):
        done.append(arguments)
        return VocRow(score=0.5, classes={}, more={}, steps=1, protocol={})

    monkeypatch.setattr(voc, "METHODS", {"segmentation": score})
    folder, run = voc_folder(tmp_path / "voc"), tmp_path / "run"
    asked = options(images(tmp_path / "photos"), **{"voc.models": ["random"]})
    asked |= {"voc.segmentation.train": "few", "voc.segmentation.test": "other"}
    asked |= {"voc.segmentation.folder": str(folder)}

    def again():
        ktfast.run(asked, run, stages=["voc"])

    again()
    mask = folder / "SegmentationClass/2007_000002.png"
    os.utime(mask)
    again()
    # An earlier version recorded sizes instead of content.
    begun = run / "voc/segmentation/begun.json"
    record = read_json(begun)
    lists = {"train": "few", "test": "other"}
    old = {half: VocSet(folder, name, "Segmentation") for half, name in lists.items()}
    sizes = {half: found.fingerprint_by_size for half, found in old.items()}
    write_json(begun, {**record, "inputs": sizes})
    again()
    assert read_json(begun) == record
    content = mask.read_bytes()
    mask.write_bytes(content[:-1] + b"x")
    with pytest.raises(ConfigError, match=r"photographs and annotations of .* changed since"):
        again()
    mask.write_bytes(content)
    again()
    assert len(done) == 1


def test_an_evaluation_without_labels_ignores_the_record_of_earlier_probes(tmp_path):
    given = {"data.pretext": str(tmp_path), "data.test": str(tmp_path)}
    labelled = RunFolder(tmp_path, load_config(None, given))
    for stage in ("transfer", "evaluate"):
        (tmp_path / stage).mkdir()
    write_sealed(tmp_path / "evaluate/begun.json", evaluate_question(labelled).record())
    unlabelled = RunFolder(tmp_path, load_config(None, {"data.pretext": str(tmp_path)}))
    check_settings(unlabelled, ["evaluate"], [])
    changed = RunFolder(tmp_path, load_config(None, {**given, "evaluate.probe_epochs": 3}))
    with pytest.raises(ConfigError, match=r"evaluate was begun with other options"):
        check_settings(changed, ["evaluate"], [])


def test_options_of_a_later_stage_are_refused_before_an_earlier_stage_is_redone(tmp_path):
    def run(**options):
        return RunFolder(tmp_path, load_config(None, {"data.pretext": str(tmp_path), **options}))

    (tmp_path / "transfer").mkdir()
    write_sealed(tmp_path / "transfer/begun.json", transfer_question(run()).record())
    changed = run(**{"transfer.width": 0.5})
    check_settings(run(), ["pretext", "transfer"], ["pretext"])
    check_settings(changed, ["pretext", "transfer"], ["pretext", "transfer"])
    check_settings(changed, ["pretext"], ["pretext"])
    with pytest.raises(ConfigError, match=r"transfer\.width was 1\.0, is now 0\.5"):
        check_settings(changed, ["pretext", "transfer"], ["pretext"])


def test_missing_features_are_refused_before_images_are_prepared(tmp_path):
    photo_folder(tmp_path / "photos", 3)
    given = {"data.pretext": str(tmp_path / "photos"), "cluster.features": str(tmp_path / "no.npz")}
    run = RunFolder(tmp_path / "run", load_config(None, given))
    with pytest.raises(ConfigError, match=r"cluster\.features .*no\.npz does not exist"):
        check_feasible(run, ["prepare", "cluster"], prepared=False)
    check_feasible(run, ["prepare"], prepared=False)  # the file may be made from these images


def test_a_lost_transfer_is_no_change_of_the_options_of_evaluate(tmp_path):
    given = {"data.pretext": str(tmp_path), "data.test": str(tmp_path)}
    given["evaluate.models"] = {"other": {"network": "alexnet"}}
    run = RunFolder(tmp_path, load_config(None, given))
    (tmp_path / "transfer").mkdir()
    (tmp_path / "evaluate").mkdir()
    write_sealed(tmp_path / "evaluate/begun.json", evaluate_question(run).record())
    (tmp_path / "transfer").rmdir()
    check_settings(run, ["transfer", "evaluate"], [])
