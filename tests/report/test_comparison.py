"""Compare runs: seeds form a row, only what is comparable is compared, ties are marked."""

import csv
import json
import re

import numpy as np
import pytest
from safetensors.numpy import save_file
from scipy.stats import binomtest

from ktfast.cli.main import main
from ktfast.durable import write_sealed
from ktfast.errors import DataError, InputError
from ktfast.evaluation.copies import Copies
from ktfast.evaluation.paired import by_images, by_seeds
from ktfast.evaluation.unlabelled_result import UnlabelledMeasures
from ktfast.report.comparison.compare import compare_runs
from ktfast.report.comparison.files import write_comparison
from ktfast.report.comparison.networks import ROW, tensor_shapes
from ktfast.report.comparison.table import short_count, short_time
from support.compared_runs import make_compared_run


def runs(folder, *changes):
    return [make_compared_run(folder / f"run{k}", **change) for k, change in enumerate(changes)]


def linear(comparison, part=0):
    return comparison.parts[part].tables[0]


def row(table, start):
    return next(row for row in table.rows if row.group.name.startswith(start))


# --- intervals ------------------------------------------------------------------------------------
def test_the_interval_of_seeds_is_students():
    found = by_seeds([0.01, 0.03])
    # t(0.975, 1) = 12.706, standard error 0.01
    assert (found.difference, found.n, found.basis) == (pytest.approx(0.02), 2, "seeds")
    assert (found.low, found.high) == pytest.approx((0.02 - 0.12706, 0.02 + 0.12706), abs=1e-5)
    assert not found.separates
    assert by_seeds([0.02, 0.021, 0.019]).separates
    assert by_seeds([0.02]) is None
    assert by_seeds([0.02, 0.02]) is None
    assert by_seeds([0.0, 0.0]).separates is False


def test_the_interval_of_images_is_mcnemars():
    labels = np.zeros(100, int)
    first, second = np.ones(100, int), np.ones(100, int)
    first[:30], second[20:40] = 0, 0  # 20 only the first, 10 both, 10 only the second
    found = by_images(labels, first, second, per_class=False)
    gains = np.array([1.0] * 20 + [-1.0] * 10 + [0.0] * 70)
    error = gains.std(ddof=1) / 10
    assert found.difference == pytest.approx(0.1)
    assert found.high - found.difference == pytest.approx(1.984 * error, rel=1e-3)
    assert found.separates == (binomtest(20, 30).pvalue < 0.05)


def test_the_interval_of_images_covers_the_truth(rng):
    """Rates of covering 0 for two equally good networks on small and uneven classes."""
    labels = np.repeat(np.arange(12), [3, 3, 4, 5, 6, 8, 9, 12, 12, 20, 30, 1])
    covered = 0
    for _ in range(600):
        shared = rng.random(len(labels)) < 0.6
        flips = rng.random((2, len(labels))) < 0.2
        first, second = (np.where(shared ^ flip, labels, -1) for flip in flips)
        covered += not by_images(labels, first, second, per_class=True).separates
    assert 0.92 <= covered / 600 <= 0.99


def test_unequal_lengths_are_refused():
    with pytest.raises(InputError, match="one class for each of at least two test images"):
        by_images(np.zeros(3, int), np.zeros(2, int), np.zeros(3, int), per_class=True)


# --- rows -----------------------------------------------------------------------------------------
def test_runs_that_differ_in_the_seed_form_one_row(tmp_path):
    folders = runs(
        tmp_path,
        *({"seed": seed, "accuracy": 0.50 + 0.01 * seed} for seed in range(3)),
        *({"seed": seed, "accuracy": 0.72 + 0.01 * seed, "source": "hog"} for seed in range(3)),
    )
    table = linear(compare_runs(folders))
    assert [r.group.name for r in table.rows] == ["hog", "pretext", "random weights"]
    best = table.rows[0]
    assert (best.rank, best.tied, best.layer, len(best.values)) == (1, False, "conv3", 3)
    assert best.mean == pytest.approx(np.mean(best.values))
    assert best.spread == pytest.approx(np.std(best.values, ddof=1))
    second = table.rows[1]
    assert (second.behind.basis, second.behind.n, second.behind.separates) == ("seeds", 3, True)
    assert (best.seconds, second.seconds) == (70.0, 370.0)  # with the puzzle
    control = table.rows[2]
    assert (control.role, control.layer, control.seconds) == ("control", "conv2", 0.0)
    assert len(control.values) == 3  # the control of both teachers is the same network
    assert best.parameters == 16 * 75 + 16


def test_the_baselines_of_a_grid_have_the_names_of_its_students(tmp_path):
    students = {"small": 0.25, "wide": 0.5}
    folders = runs(
        tmp_path,
        *({"width": width, "source": s} for width in students.values() for s in ("hog", "pretext")),
    )
    names = [(teacher, student) for student in students for teacher in ("hog", "puzzle")]
    for folder, (teacher, student) in zip(folders, names, strict=True):
        write_sealed(folder / ROW, {"names": {"teacher": teacher, "student": student}})
    found = [r.group.name for r in linear(compare_runs(folders)).rows if r.role == "control"]
    assert sorted(found) == ["random weights, small", "random weights, wide"]
    write_sealed(folders[3] / ROW, {"names": {"teacher": "puzzle", "student": "again"}})
    found = [r.group.name for r in linear(compare_runs(folders)).rows if r.role == "control"]
    assert sorted(found) == ["random weights, width=0.25", "random weights, width=0.5"]


def test_the_size_of_a_network_of_a_library_leaves_out_its_classifier(tmp_path):
    folder = runs(tmp_path, {})[0]
    names = {"conv1.0.weight": 30, "stage2.bias": 5, "fc.weight": 70, "stage2.running_var": 5}
    (folder / "transfer/weights.safetensors").unlink()
    save_file({k: np.zeros(n) for k, n in names.items()}, folder / "transfer/weights.safetensors")
    assert linear(compare_runs([folder])).rows[0].parameters == 35


def test_the_table_names_the_objective(tmp_path):
    folders = runs(
        tmp_path,
        {"accuracy": 0.50},  # an earlier version, which recorded no objective
        {"accuracy": 0.51, "seed": 1, "objective": "clusters"},
        {"accuracy": 0.45, "objective": "clusters", "n_clusters": 100},
        {"accuracy": 0.60, "objective": "regression"},
        {"accuracy": 0.61, "objective": "regression", "seed": 1},
    )
    table = linear(compare_runs(folders))
    rows = {r.group.name: len(r.values) for r in table.rows}
    assert rows == {
        "regression": 2, "n_clusters=60, clusters": 2, "n_clusters=100, clusters": 1,
        "random weights": 2,
    }  # fmt: skip
    assert row(table, "regression").seconds == 365.0  # without the stage cluster


def test_rows_that_noise_could_explain_share_a_rank(tmp_path):
    folders = runs(
        tmp_path,
        {"accuracy": 0.61},
        {"accuracy": 0.60, "source": "hog"},
        {"accuracy": 0.40, "width": 0.5},
    )
    comparison = compare_runs(folders)
    table = linear(comparison)
    students = [r for r in table.rows if r.role == "student"]
    assert [(r.rank, r.tied) for r in students] == [(1, True), (1, True), (3, False)]
    assert {r.behind.basis for r in students[1:]} == {"images"}
    text = " ".join(comparison.lines())
    assert "cannot be told apart from it" in text
    assert "pair the test images of one seed" in text
    assert "1=" in text


def test_a_row_shares_the_best_rank_from_which_nothing_tells_it_apart(tmp_path):
    """The third row varies so much between seeds that it may be as good as the first one."""
    gaps = {"pretext": (0.70, 0.70, 0.71), "hog": (0.60, 0.60, 0.61), "sift": (0.30, 0.55, 0.90)}
    folders = runs(
        tmp_path,
        *(
            {"source": source, "seed": seed, "accuracy": accuracy}
            for source, row in gaps.items()
            for seed, accuracy in enumerate(row)
        ),
    )
    comparison = compare_runs(folders)
    ranks = {r.group.name: (r.rank, r.tied) for r in linear(comparison).rows}
    assert ranks["pretext"] == ranks["sift"] == (1, True)
    assert ranks["hog"] == (2, False)
    assert "cannot be told apart from it: sift" in " ".join(comparison.lines())


def test_without_predictions_and_seeds_nothing_is_ranked(tmp_path):
    folders = runs(
        tmp_path,
        {"accuracy": 0.7, "predictions": False},
        {"accuracy": 0.4, "source": "hog", "predictions": False},
    )
    comparison = compare_runs(folders)
    assert {(r.rank, r.tied) for r in linear(comparison).rows} == {(1, True)}
    assert "No row can be paired" in "\n".join(comparison.lines())


@pytest.mark.parametrize(
    ("change", "reason"),
    [({"test": "other photographs"}, "the test images differ"), ({"epochs": 5}, "epochs is 5")],
)
def test_what_is_not_comparable_is_separated_with_the_reason(change, reason, tmp_path):
    folders = runs(tmp_path, {}, {"source": "hog"}, {"source": "sift", **change})
    comparison = compare_runs(folders)
    assert len(comparison.parts) == 2
    assert {r.group.name for r in linear(comparison, 1).rows} == {"sift", "random weights"}
    text = " ".join(comparison.lines())
    assert re.search(rf"Not comparable with part 1, because.*{reason}", text)
    assert not re.search("[0-9a-f]{64}", text)


def test_stale_rows_are_marked_and_not_ranked(tmp_path):
    folders = runs(tmp_path, {}, {"source": "hog", "accuracy": 0.9})
    path = folders[1] / "transfer/result.json"
    result = json.loads(path.read_text())
    del result["sha256"]
    write_sealed(path, {**result, "fingerprint": "of another training"})
    comparison = compare_runs(folders)
    stale = row(linear(comparison), "hog")
    assert (stale.rank, stale.behind) == (None, None)
    assert linear(comparison).rows[-1].group.stale or linear(comparison).rows[-2].group.stale
    assert linear(comparison).rows[0].group.name == "pretext"
    assert any("is stale, because transfer was done again after it" in n for n in comparison.notes)


def test_the_layer_is_chosen_on_held_out_images_or_said(tmp_path):
    folders = runs(tmp_path, {"held_out": False}, {"source": "hog"})
    table = linear(compare_runs(folders))
    assert {r.layer for r in table.rows} == {"conv3"}
    assert "last probed layer" in table.layers
    table = linear(compare_runs(folders, layer="conv1"))
    assert {r.layer for r in table.rows} == {"conv1"}
    with pytest.raises(InputError, match="no run has probed layer 'conv9'; there are conv1"):
        compare_runs(folders, layer="conv9")


def test_every_protocol_of_pascal_voc_is_a_part_of_its_own(tmp_path):
    folders = runs(
        tmp_path,
        *(
            {"source": source, "seed": seed, "detection": {"training": score, "multi": score / 2}}
            for source, score in (("hog", 0.2), ("pretext", 0.4))
            for seed in (0, 1)
        ),
        {"detection": {"training": 0.5}, "short_sides": (480,)},
    )
    comparison = compare_runs(folders)
    parts = [(c.part.task, len(c.part.groups), c.part.images) for c in comparison.parts]
    assert parts == [
        ("", 3, 200), ("detection", 2, 38), ("detection", 1, 38), ("detection, multi-scale", 2, 38)
    ]  # fmt: skip
    assert [table.measure for table in comparison.parts[1].tables] == ["detection"]
    table = linear(comparison, 1)
    rows = [(r.group.name, r.mean, r.rank, r.layer) for r in table.rows]
    assert rows == [("pretext", 0.4, 1, "all"), ("hog", 0.2, 1, "all")]
    assert linear(comparison, 3).rows[1].mean == 0.1
    lines = comparison.lines("knn")
    assert any("mAP %" in line for line in lines)
    assert max(map(len, lines)) <= 80
    text = " ".join(lines)
    assert re.search(r"Part 3 of 4: PASCAL VOC detection: 1 row,.*with part 2, because voc", text)
    assert "pretext has the highest mAP, 40.0 %" in text
    (folders[4] / "evaluate/result.json").unlink()
    assert not [note for note in compare_runs(folders).notes if "stage evaluate" in note]
    layers = [
        {r.layer for r in linear(compare_runs(folders, layer="conv1"), n).rows} for n in (0, 1)
    ]
    assert layers == [{"conv1"}, {"all"}]
    page, table, *_ = (p.read_text("utf-8") for p in write_comparison(comparison, tmp_path / "out"))
    assert "mAP against time" in page
    assert {r["measure"] for r in csv.DictReader(table.splitlines())} >= {"linear", "detection"}


def test_a_repeated_run_counts_once(tmp_path):
    folders = runs(tmp_path, {}, {"accuracy": 0.8})
    comparison = compare_runs(folders)
    assert len(row(linear(comparison), "transfer").values) == 1
    assert any("same options and the same seed 0, and other" in note for note in comparison.notes)


def test_a_run_without_an_evaluation_is_left_out(tmp_path):
    folders = runs(tmp_path, {}, {"source": "hog"})
    (folders[1] / "evaluate/result.json").unlink()
    comparison = compare_runs(folders)
    assert any("has no finished stage evaluate" in note for note in comparison.notes)
    unlabelled = UnlabelledMeasures().to_json()  # `ktfast evaluate` would not help as it is
    (folders[1] / "unlabelled").mkdir()
    write_sealed(folders[1] / "unlabelled/result.json", {"summary": unlabelled})
    comparison = compare_runs(folders)
    assert any("was measured without labels" in note for note in comparison.notes)
    (folders[0] / "evaluate/result.json").unlink()
    with pytest.raises(InputError, match="no run can be compared"):
        compare_runs(folders)


def test_copies_among_the_test_images_are_noted(tmp_path):
    folders = runs(tmp_path, {}, {"source": "hog"})
    path = folders[1] / "evaluate/result.json"
    value = json.loads(path.read_text())
    for labelled in (True, False):
        found = Copies("data.test", "data.train", 2, 4, "a.jpg", "b.jpg", labelled)
        value["summary"]["copies"] = [found.to_json()]
        write_sealed(path, {key: item for key, item in value.items() if key != "sha256"})
        notes = [note for note in compare_runs(folders).notes if found.sentence() in note]
        assert notes == ([f"{folders[1]}: {found.sentence()}"] if labelled else [])


def test_damaged_predictions_pair_nothing(tmp_path):
    folders = runs(tmp_path, {"accuracy": 0.7}, {"accuracy": 0.4, "source": "hog"})
    path = folders[1] / "evaluate/predictions-transfer.npz"
    path.write_bytes(path.read_bytes()[:-3])
    comparison = compare_runs(folders)
    assert row(linear(comparison), "hog").behind is None
    assert any("predictions-transfer.npz is damaged" in note for note in comparison.notes)


# --- files and the terminal -----------------------------------------------------------------------
@pytest.fixture
def many(tmp_path):
    return runs(
        tmp_path,
        {"accuracy": 0.61},
        {"accuracy": 0.60, "source": "my_package.with_a_long_name:teacher_function"},
        {"accuracy": 0.40, "width": 0.5, "source": "<b>&"},
        {"accuracy": 0.40, "width": 0.5, "source": "hog", "seed": 1},
        {"accuracy": 0.40, "epochs": 3},
    )


def test_the_terminal_has_80_columns(many, tmp_path, capsys):
    assert main(["compare", *map(str, many), "--out", str(tmp_path / "out")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines[:-1])) <= 80
    assert lines[-1] == str(tmp_path / "out/compare.html")
    shown = "".join(line.strip() for line in lines)
    assert "my_package.with_a_long_name:teacher_function" in re.sub(r"\s|\d.*?\n", "", shown) or (
        "teacher_function" in shown
    )


def test_the_files_name_measure_layer_and_split(many, tmp_path):
    paths = write_comparison(compare_runs(many), tmp_path / "out")
    page, table, pairs, text = (path.read_text("utf-8") for path in paths)
    assert "&lt;b&gt;&amp;" in page
    assert "<b>&" not in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "https://" not in page
    svgs = re.findall(r"<svg[^>]*>", page)
    assert svgs != []
    assert all("aria-label=" in svg for svg in svgs)
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    rows = list(csv.DictReader(table.splitlines()))
    assert {r["measure"] for r in rows} == {"linear", "linear_top1", "knn"}
    assert {r["split"] for r in rows} == {"test"}
    assert all(r["layer"] and r["layer_chosen_on"] for r in rows)
    assert {r["paired"] for r in csv.DictReader(pairs.splitlines())} == {"images"}
    assert "linear probe, mean per-class accuracy, test images" in text.lower()
    assert text.count("| rank |") == 6


def test_report_of_several_runs_compares_them(many, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["report", str(many[0]), str(many[1])]) == 0
    assert (tmp_path / "comparison/compare.html").is_file()
    assert main(["report"]) == 2
    assert "give run folders" in capsys.readouterr().err


def test_short_numbers():
    assert [short_time(s) for s in (None, 0, 4.21, 59, 600, 5000, 90000)] == [
        "–", "0s", "4.2s", "59s", "10m", "1.4h", "1.0d"
    ]  # fmt: skip
    assert [short_count(n) for n in (None, 950, 1200, 12345, 3_700_000)] == [
        "–", "950", "1.2k", "12k", "3.7M"
    ]  # fmt: skip


def test_a_damaged_weight_file_is_named(tmp_path):
    path = tmp_path / "weights.safetensors"
    for content in (b"", b"\xff" * 20, b"\x04" + b"\0" * 7 + b"[[]]"):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"weights\.safetensors"):
            tensor_shapes(path)


def test_rows_that_lack_the_layer_are_named(tmp_path):
    folders = runs(tmp_path, {}, {"source": "hog"})
    path = folders[1] / "evaluate/result.json"
    result = json.loads(path.read_text())
    del result["sha256"]
    for name in ("linear", "linear_top1", "knn"):
        for layers in result["summary"].get(name, {}).values():
            layers.pop("conv1", None)
    write_sealed(path, result)
    text = " ".join(" ".join(compare_runs(folders, layer="conv1").lines()).split())
    assert "Left out, because a run lacks the measure or the layer: hog." in text


def test_a_folder_that_is_no_run_is_left_out_with_a_note(tmp_path):
    (tmp_path / "failed").mkdir()
    comparison = compare_runs([*runs(tmp_path, {}), tmp_path / "failed"])
    assert any("failed is no run folder" in note for note in comparison.notes)
    assert len(comparison.parts) == 1
    with pytest.raises(DataError, match="there is no run folder"):
        compare_runs([*runs(tmp_path / "more", {}), tmp_path / "absent"])


def test_equal_runs_that_were_probed_at_other_layers_are_told_apart(tmp_path):
    folders = runs(tmp_path, {}, {})
    path = folders[1] / "evaluate/result.json"
    result = json.loads(path.read_text())
    del result["sha256"]
    for layers in result["summary"]["linear"].values():
        layers.pop("conv1", None)
    write_sealed(path, result)
    notes = " ".join(compare_runs(folders).notes)
    assert "the same seed 0, and was probed at other layers." in notes
    del result["summary"]["knn"]
    write_sealed(path, result)
    assert "the same seed 0, and other measures." in " ".join(compare_runs(folders).notes)


@pytest.mark.parametrize("change", [{"shots": [1]}, {"samples": 3}, {"train": "photographs"}])
def test_choices_and_names_do_not_part_runs_on_pascal_voc(tmp_path, change):
    folders = runs(
        tmp_path,
        {"detection": {"training": 0.4}},
        {"source": "hog", "detection": {"training": 0.2}},
    )
    path = folders[1] / "voc/detection/result.json"
    result = json.loads(path.read_text())
    del result["sha256"]
    result["config"] |= change
    write_sealed(path, result)
    assert [len(c.part.groups) for c in compare_runs(folders).parts if c.part.task] == [2]
