"""The report: complete, self-contained, honest, and calm about what is missing or damaged."""

import html.parser
import json
import re

import numpy as np
import pytest

from ktfast.errors import DataError
from ktfast.evaluation.results import EvaluationSummary
from ktfast.evaluation.voc_results import VocSummary
from ktfast.report import formats, pictures, plots, probes, published, verdict, write_report
from ktfast.report.summaries import MetricsRow
from support.fake_run import (
    curve,
    evaluation,
    make_run,
    puzzle_arrays,
    result,
    voc,
    write,
)


class Page(html.parser.HTMLParser):
    """Text of a page, its addresses, and whether its elements close in order."""

    VOID = frozenset({"meta", "img", "br", "link"})

    def __init__(self, source):
        super().__init__()
        self.source, self.text, self.addresses, self.open = source, "", [], []
        self.rows = [""]  # of the tables, a bar before each cell
        self.feed(source)
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append("")
        self.addresses += [v for k, v in attrs if k in ("href", "src", "xlink:href", "action")]

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] != "style":
            self.text += data
            if self.open and self.open[-1] in ("td", "th"):
                self.rows[-1] += f"|{data.strip()}"


def page_of(folder):
    return Page(write_report(folder).read_text("utf-8"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("run") / "demo <run> & more")


@pytest.fixture(scope="module")
def page(finished):
    return page_of(finished)


def test_page_is_self_contained(page):
    assert all(a.startswith(("#", "data:image/")) for a in page.addresses)
    assert "<script" not in page.source
    assert "url(http" not in page.source
    assert "@import" not in page.source
    assert "default-src 'none'" in page.source
    assert len(page.source) < 2e6


def test_ids_are_unique(page):
    # matplotlib's clip paths and markers are referenced by id: two plots must not share one
    found = re.findall(r'\bid="([^"]+)"', page.source)
    assert len(found) == len(set(found))
    for used in re.findall(r'url\(#([^)]+)\)|xlink:href="#([^"]+)"', page.source):
        assert "".join(used) in found


def test_page_says_what_was_found(page):
    assert "Transfer beat random weights by 7.0 points" in page.text
    for words_in_page in (
        "25.9\u00a0% mean per-class accuracy at the layer conv4",
        "random weights reaches 18.9\u00a0% (conv2)",
        "ahead at 5 of 5 layers",
        "clusters gained 1.2 points",
        "true labels gives 47.1\u00a0%",
        "(Jigsaw++) is right on 70.6\u00a0% of held-out images",
        "0.412 (0.371 for the clusters of an untrained network)",
        "With 2,845 test images, a difference of up to about 2.2 points",
    ):
        assert words_in_page in page.text
    assert "a different data set" in page.text
    assert "CC+vgg-Jigsaw++" in page.text
    assert page.source.count("<svg") == 12 + 2 * 6 + 2 + 2
    assert "could not be read" not in page.text


def test_page_shows_voc_beside_what_is_published(page):
    for row in (
        "|Jigsaw++, clusters of VGG-16|72.5|56.5|57.2|42.6",
        "|transfer (clusters as labels)|69.9|71.9|55.0|40.0",
        "|random weights|53.3|55.3|38.4|23.4",
        "|true labels|57.0|60.0|63.0|69.0|72.0",  # no boats
    ):
        assert row in page.rows
    for words_in_page in (
        "Detection by class, of detection (%)",
        "short sides 480, 600",
        "PASCAL VOC, detection: transfer (clusters as labels)",
    ):
        assert words_in_page in page.text
    assert page.source.count("voc/detection") == 1


def test_page_shows_stages_images_and_setup(page):
    for words_in_page in (
        "40 min 10 s", "2 h 50 min", "181 images/s", "3.1 iterations/s", "baseline_labels",
        "2.15.0+cu132", 'trunk = "vgg16"', "3 images of “pretext” could not be used",
    ):  # fmt: skip
        assert words_in_page in page.text
    assert "Not run" not in page.text


def test_file_names_are_escaped(page):
    assert "<b>öffnen" not in page.source
    assert "watch/zifferblatt <b>öffnen & schließen</b>.jpg" in page.text
    assert "demo <run> & more" in page.text


def test_only_the_first_skipped_images_are_listed(tmp_path):
    skipped = [[f"{k:03}.jpg", "empty file"] for k in range(70)]
    result(tmp_path, "prepare/pretext", 1.0, None, {"images": 5, "skipped": skipped})
    text = page_of(tmp_path).text
    assert "70 images of “pretext” could not be used; the first 50" in text
    assert "049.jpg" in text
    assert "050.jpg" not in text


def test_files_that_are_no_images_are_counted(tmp_path):
    others = {"listed": [["<notes>.txt", "not an image"]], "by_suffix": {".txt": 1, ".xml": 1200}}
    summary = {"images": 5, "skipped": [], "others": others}
    result(tmp_path, "prepare/pretext", 1.0, None, summary)
    text = page_of(tmp_path).text
    assert "1,201 files of “pretext” are no images: 1,200 .xml, 1 .txt; the first 1" in text
    assert "<notes>.txt" in text


def test_stages_that_were_not_run_are_named(tmp_path):
    (tmp_path / "config.toml").write_text("seed = 1\n")
    (tmp_path / "pretext").mkdir()
    page = page_of(tmp_path)
    assert "No groups yet: the images were not clustered" in page.text
    assert page.text.count("Not run.") == 5
    assert re.search(r"pretext</th><td[^>]*>begun, not finished", page.source)
    assert re.search(r"transfer</th><td[^>]*>not run", page.source)


def test_folders_that_hold_no_run_are_refused(tmp_path):
    with pytest.raises(DataError, match="no run folder"):
        write_report(tmp_path / "missing")
    with pytest.raises(DataError, match=r"neither config\.toml"):
        write_report(tmp_path)


@pytest.mark.parametrize(
    "name",
    [
        "environment.json",
        "evaluate/result.json",
        "cluster/result.json",
        "cluster/history.json",
        "cluster/labels.npz",
        "cluster/montage.npz",
        "pretext/examples.npz",
        "metrics.jsonl",
        "config.toml",
    ],
)
@pytest.mark.parametrize("damage", ["truncated", "junk", "empty"])
def test_damaged_artifacts_become_a_note(tmp_path, name, damage, monkeypatch):
    for plot in ("training_curves", "cluster_plots"):
        monkeypatch.setattr(plots, plot, lambda *_, **__: ())
    run = small_run(tmp_path)
    whole = (run / name).read_bytes()
    (run / name).write_bytes(
        {"truncated": whole[: len(whole) // 2 + 7], "junk": b"\xff\xfe{" * 50, "empty": b""}[damage]
    )
    text = page_of(run).text
    # Part of a text is still a text, and a file of no lines has no damaged ones.
    harmless = {("config.toml", "truncated"), ("config.toml", "empty"), ("metrics.jsonl", "empty")}
    assert ("could not be read" in text and name in text) == ((name, damage) not in harmless)
    assert "Traceback" not in text


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("evaluate/result.json", {"summary": {"linear": 3, "knn": {"transfer": "x"}}}),
        ("evaluate/result.json", {"summary": {"linear": {"transfer": {"conv1": "x"}}}}),
        ("evaluate/result.json", {"summary": {"low_label": [3, {"fraction": "x"}]}}),
        ("evaluate/result.json", {"summary": [], "throughput": 5, "started": "now"}),
        ("pretext/result.json", {"seconds": None, "summary": {"accuracy": "high", "chance": 0}}),
        ("voc/detection/result.json", {"summary": {"models": 3}}),
        ("voc/detection/result.json", {"summary": {"models": {"random": 3, "labels": {}}}}),
        (
            "voc/segmentation/result.json",
            {
                "summary": {
                    "images": 1,
                    "models": {"x": {"score": "?", "classes": [], "protocol": 1}},
                }
            },
        ),
        ("prepare/pretext/result.json", {"summary": {"skipped": ["a", [1, 2]], "images": None}}),
        ("environment.json", {"packages": {"numpy": None}, "list": [1, 2]}),
        ("cluster/history.json", [{"inertia": "?"}, 3]),
        ("cluster/result.json", []),
    ],
)
def test_unexpected_values_do_not_break_the_page(tmp_path, name, content, monkeypatch):
    monkeypatch.setattr(plots, "training_curves", lambda *_, **__: ())
    run = small_run(tmp_path)
    (run / name).parent.mkdir(parents=True, exist_ok=True)
    write(run / name, content)
    assert "ktfast" in page_of(run).text


def test_damaged_metrics_lines_are_counted(tmp_path):
    rows = [json.dumps(row) for row in curve("pretext", 40, 3.0, 1.0, 0.5)]
    (tmp_path / "metrics.jsonl").write_text("\n".join([*rows, '{"torn": ', "5"]))
    page = page_of(tmp_path)
    assert "metrics.jsonl has 2 damaged lines" in page.text
    assert "Loss on training batches" in page.text


def small_run(folder):
    """A small run folder, quick to make and to render."""
    (folder / "config.toml").write_text("seed = 1\n")
    write(folder / "environment.json", {"python": "3.11"})
    rows = curve("pretext", 20, 3.0, 1.0, 0.5)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    result(folder, "prepare/pretext", 1.0, None, {"images": 5, "skipped": []})
    result(folder, "pretext", 1.0, ("images/s", 3.0), {"accuracy": 0.5, "chance": 0.1})
    np.savez(folder / "pretext/examples.npz", **puzzle_arrays(2))
    result(folder, "cluster", 1.0, None, {"n_clusters": 2, "nmi": 0.1})
    np.savez(folder / "cluster/labels.npz", sample_ids=np.arange(4), labels=np.arange(4) % 2)
    write(folder / "cluster/history.json", [{"inertia": 3.0}])
    images = np.zeros((2, 3, 8, 8, 3), np.uint8)
    np.savez(folder / "cluster/montage.npz", images=images, clusters=[0, 1], sizes=[2, 2])
    result(folder, "evaluate", 1.0, None, {"linear": {}, "knn": {}})
    return folder


# -- verdict and formats


def summary_of(transfer, random, **more):
    table = {"transfer": {"conv1": transfer}, "random": {"conv1": random}, **more}
    return EvaluationSummary(metric="top-1 accuracy", linear=table)


@pytest.mark.parametrize(
    ("transfer", "random", "n_test", "outcome", "headline"),
    [
        (0.30, 0.20, 1000, "ahead", "Transfer beat random weights by 10.0 points"),
        (0.20, 0.30, 1000, "behind", "did not beat random weights: it is 10.0 points behind"),
        (0.21, 0.20, 1000, "even", "cannot be told apart (+1.0 points)"),
        (0.21, 0.20, None, "ahead", "by 1.0 points"),
        (0.20, 0.20, None, "behind", "did not beat random weights: it is 0.0 points behind"),
    ],
)
def test_verdict_is_honest(transfer, random, n_test, outcome, headline):
    found = verdict.verdict(summary_of(transfer, random), None, None, n_test)
    assert found.outcome == outcome
    assert headline in found.headline


def test_verdict_error_worked_by_hand():
    # sqrt((0.3 * 0.7 + 0.2 * 0.8) / 1000) = 0.01924; twice that is 3.8 points
    found = verdict.verdict(summary_of(0.3, 0.2), None, None, 1000)
    assert "up to about 3.8 points" in found.caveat


def test_verdict_without_evaluation_or_baseline_claims_nothing():
    assert verdict.verdict(None, None, None, None).outcome == "open"
    alone = EvaluationSummary(linear={"transfer": {"conv1": 0.5}})
    alone = verdict.verdict(alone, None, None, None)
    assert alone.outcome == "open"
    assert "not compared with random weights" in alone.headline
    lost = verdict.verdict(summary_of(0.3, 0.2, pretext={"conv1": 0.35}), None, None, None)
    assert "going through clusters lost 5.0 points" in " ".join(lost.sentences)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(4.21, "4.2 s"), (59.99, "60.0 s"), (185, "3 min 05 s"), (4320, "1 h 12 min"),
     (None, "–"), (float("nan"), "–"), ("x", "–")],
)  # fmt: skip
def test_durations(seconds, text):
    assert formats.duration(seconds) == text


def test_amounts():
    assert [formats.amount(v) for v in (5784, 1234.5, 0.4123, 7.0, True, "", 1e300)] == [
        "5,784", "1,234", "0.412", "7", "–", "–", f"{1e300:,.0f}"
    ]  # fmt: skip


# -- pictures and plots


def test_montage_leaves_padding_out_and_puts_large_clusters_first():
    images = np.zeros((2, 4, 8, 8, 3), np.uint8)
    arrays = {"images": images, "clusters": np.array([7, 3]), "sizes": np.array([2, 50])}
    found = pictures.montages(arrays, {7: ["a", "b"], 3: ["of other images"]}, None)
    assert [(m.cluster, m.size, len(m.images)) for m in found] == [(3, 50, 4), (7, 2, 2)]
    assert [[image.path for image in m.images] for m in found] == [[""] * 4, ["a", "b"]]


def test_plots_are_svg_in_the_colours_of_the_page():
    rows = [MetricsRow.from_json(row) for row in curve("x", 900, 5.0, 1.0, 0.5)]
    loss, accuracy = plots.training_curves(rows, chance=0.01, name="x")
    for svg in (loss, accuracy):
        assert svg.startswith("<svg")
        assert "var(--ink)" in svg
        assert "DejaVu" not in svg
        assert "<metadata" not in svg
    assert "guessing" in loss
    assert "cross-entropy (nats)" in loss
    assert "accuracy (%)" in accuracy


def test_plots_of_nothing_are_none_and_of_one_point_are_one():
    assert plots.training_curves([], chance=None, name="x") == ()
    assert len(plots.training_curves([MetricsRow(epoch=1, loss=2.0)], chance=None, name="x")) == 1
    assert plots.cluster_plots(np.zeros(0, np.int64), []) == ()
    assert len(plots.cluster_plots(np.array([3]), [1.0])) == 2


def test_the_features_of_a_puzzle_network_are_compared_with_those_of_random_weights(tmp_path):
    make_run(tmp_path)
    path = tmp_path / "pretext/result.json"
    judged = json.loads(path.read_text())
    judged["summary"]["neighbours"] = {"untrained": 0.152, "trained": 0.224}
    write(path, judged)
    rows = [
        {"stage": "pretext", "step": 500 * k, "epoch": 5 * k, "neighbours": 0.15 + k / 50}
        for k in range(4)
    ]
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write("".join(json.dumps(row) + "\n" for row in rows))
    page = page_of(tmp_path)
    assert "22.4\u00a0% of the training images, and those of random weights of" in page.text
    assert page.text.count("Nearest neighbours of the features") == 1
    assert "has not made the features better" not in page.text
    judged["summary"]["neighbours"]["trained"] = 0.15
    write(path, judged)
    assert "has not made the features better" in page_of(tmp_path).text


def test_size_bins_hold_equally_many_sizes():
    for sizes in (np.array([5]), np.array([1, 1000]), np.arange(41)):
        bins = plots._size_bins(sizes)
        assert np.histogram(sizes, bins)[0].sum() == len(sizes)
        assert len(set(np.diff(bins))) == 1
        assert len(bins) <= 43


def test_low_label_regimes_have_a_table_each(tmp_path):
    text = page_of(make_run(tmp_path)).text
    assert "1 % of the labels (101 images)" in text


def test_retrained_layers_stand_beside_the_published_ones(tmp_path):
    text = page_of(make_run(tmp_path)).text
    assert "All layers above the column's layer trained anew, mean per-class accuracy (%)" in text
    assert "ImageNet, all layers above the column's layer trained anew" in text
    assert "Layers above conv5 trained anew: random weights" in text
    assert "Protocol of the trainings above a layer:" in text
    (tmp_path / "other").mkdir()
    folder = make_run(tmp_path / "other")
    path = folder / "evaluate/result.json"
    result = json.loads(path.read_text())
    del result["summary"]["retrained"]
    path.write_text(json.dumps(result))
    assert "the column's layer trained anew" not in page_of(folder).text


def test_typed_results_keep_what_is_stored():
    """The JSON of a summary survives being read and written, key by key and in order."""
    stored = evaluation()
    stored["low_label"] = [{**regime, "protocol": {"epochs": 9}} for regime in stored["low_label"]]
    stored["retrained_top1"] = stored["retrained"]
    again = EvaluationSummary.from_json(stored).to_json()
    assert again == stored
    short = {key: value for key, value in stored.items() if "retrained" not in key}
    short["random_clusters"] = {}  # of images without classes
    assert EvaluationSummary.from_json(short).to_json() == short
    stored = voc("detection")
    for row in stored["models"].values():
        row["mean_area"] = None
    assert VocSummary.from_json(stored).to_json() == stored


def chained(folder, **fingerprints):
    """A run whose results name their inputs, as the stages write them."""
    made = {"cluster": "c1", "transfer": "t1", "evaluate": "e1"} | fingerprints
    inputs = {"transfer": {"labels": "c1"}, "evaluate": {"transfer": "t1"}}
    make_run(folder)
    for stage, fingerprint in made.items():
        path = folder / stage / "result.json"
        value = json.loads(path.read_text()) | {"fingerprint": fingerprint}
        write(path, value | {"inputs": inputs.get(stage, {})})
    return folder


def test_stale_stages_are_marked_and_never_compared(tmp_path):
    page = page_of(chained(tmp_path / "same"))
    assert "stale" not in page.text.lower()
    page = page_of(chained(tmp_path / "again", cluster="c2"))
    assert "|transfer|stale: cluster was done again after it" in "".join(page.rows)
    assert "|evaluate|stale: transfer is stale" in "".join(page.rows)
    assert "the evaluation is stale, because transfer is stale" in page.text
    assert "Stale: evaluate belongs to an earlier state of this run" in page.text
    for mixed in ("Transfer beat random", "The same network with random", "untrained network"):
        assert mixed not in page.text
    assert "agree with the true classes" in page.text  # of the new clusters alone
    begun = chained(tmp_path / "begun")
    (begun / "cluster/result.json").unlink()
    assert "|transfer|stale: cluster is being done again" in "".join(page_of(begun).rows)


def test_a_table_with_spreads_takes_the_width_of_the_page():
    layers = {f"conv{number}": 0.5 for number in range(1, 6)}
    draws = {"transfer": {name: [0.4, 0.6] for name in layers}}
    regime = {"fraction": None, "count": 1, "images": 4, "linear": {"transfer": layers}}
    found = EvaluationSummary.from_json(
        {
            "models": ["transfer"],
            "linear": {"transfer": layers},
            "low_label": [{**regime, "draws": draws}, {**regime, "count": 5}],
        }
    )
    section = probes.probe_section(found, published.published_beside(None, None))
    assert [table.is_wide for table in section.tables] == [False, True, False]
    titles = [table.title for table in section.tables]
    assert titles[1].startswith("Linear probe with 1 label per class (4 images, mean of 2 draws)")
    assert "5 labels per class" in titles[2]
