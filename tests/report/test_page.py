"""The page: readable at 400 px and without eyes, with file names, and beside rows that fit."""

import html
import html.parser
import json
import os
import re
import shutil
import subprocess

import numpy as np
import pytest

from ktfast.config import load_config
from ktfast.durable import write_sealed
from ktfast.images.by_cluster import link_clusters
from ktfast.report import plots, write_report
from ktfast.report.published import published_beside
from support.fake_run import CONFIG, make_run, photographs, result, write

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
BAD = os.fsdecode(b"caf\xe9 <1> & #2.jpg")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("page") / "run")


@pytest.fixture(scope="module")
def source(finished):
    return write_report(finished).read_text("utf-8")


@pytest.fixture
def without_plots(monkeypatch):
    """The drawings take most of the time of a page."""
    monkeypatch.setattr(plots, "_svg", lambda *_: "<svg></svg>")


def text_of(page):
    return re.sub("[ \n]+", " ", html.unescape(re.sub(r"<[^>]+>", " ", page)))


def attributes(page, tag):
    """The attributes of every element of a kind."""
    found = []

    class Parser(html.parser.HTMLParser):
        def handle_starttag(self, name, attrs):
            if name == tag:
                found.append(dict(attrs))

    Parser().feed(page)
    return found


# -- narrow, and in words


def test_every_picture_has_words(source):
    images, drawings = attributes(source, "img"), attributes(source, "svg")
    assert len(images) == 80
    assert all(image["alt"].endswith(".jpg") for image in images)
    assert all(drawing["role"] == "img" and drawing["aria-label"] for drawing in drawings)
    words = " ".join(drawing["aria-label"] for drawing in drawings)
    for part in (
        "This run, its own data: mean per-class accuracy (%) by layer. transfer (clusters as "
        "labels): conv1 17.2, conv2 24.1, conv3 26.8",
        "Loss on training batches, from ",
        "Histogram of the sizes of 60 clusters",
        "Inertia of K-means over 34 iterations, from 4,750 to 3,5",
    ):
        assert part in words


def test_every_number_has_the_name_of_its_column(source):
    """In a narrow place, a row of a table becomes a list of values with the names of columns."""
    cells = attributes(source, "td")
    assert len(cells) > 300
    assert all("data-column" in cell and cell["role"] == "cell" for cell in cells)
    assert {"conv4", "conv5", "time", "throughput"} <= {cell["data-column"] for cell in cells}


CHECK = """
const frame = document.querySelector('iframe');
frame.onload = () => {
  const page = frame.contentDocument, width = page.documentElement.clientWidth, wide = [];
  page.querySelectorAll('details').forEach(element => { element.open = true; });
  for (const element of page.querySelectorAll('body *')) {
    const style = frame.contentWindow.getComputedStyle(element);
    if (element.closest('thead') || element.closest('svg') !== null && element.tagName !== 'svg')
      continue;
    const box = element.getBoundingClientRect();
    const scrolls = style.display !== 'inline' && element.scrollWidth > element.clientWidth + 1;
    if (box.width && (box.right > width + 1 || scrolls))
      wide.push(element.tagName + '.' + element.className + ' ' + element.textContent.trim().slice(0, 40));
  }
  const widest = page.documentElement.scrollWidth;
  document.body.innerHTML = '<pre>' + JSON.stringify({width, widest, wide}) + '</pre>';
};
frame.srcdoc = PAGE;
"""  # noqa: E501


@pytest.mark.timeout(200)
def test_nothing_is_cut_off(source, tmp_path):
    browser = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if browser is None:
        pytest.skip("needs chromium")
    for width in (400, 800, 1440):
        content = json.dumps(source).replace("</", "<\\/")
        frame = f'<iframe style="width:{width}px;height:900px;border:0"></iframe>'
        (tmp_path / "frame.html").write_text(
            f"<body>{frame}<script>const PAGE = {content};{CHECK}</script></body>", "utf-8"
        )
        command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
        command += [f"--user-data-dir={tmp_path / 'browser'}", (tmp_path / "frame.html").as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        found = json.loads(html.unescape(re.search(r"<pre>(.*)</pre>", done.stdout, re.S)[1]))
        assert found == {"width": found["width"], "widest": found["width"], "wide": []}
        assert width - 20 <= found["width"] <= width


# -- file names


def cluster_run(folder, names, images_folder):
    """A run of the stage cluster, and the files that it clustered."""
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text(f'[data]\npretext = "{images_folder}"\n')
    counts = {"n_clusters": 2, "used": 2, "largest": 3, "smallest": 1, "median": 2.0}
    result(folder, "cluster", 1.0, None, counts)
    value = json.loads((folder / "cluster/result.json").read_text())
    write_sealed(folder / "cluster/result.json", value | {"fingerprint": "f", "version": "1"})
    labels = np.array([0] * (len(names) - 1) + [1])
    np.savez(folder / "cluster/labels.npz", sample_ids=np.arange(len(names)), labels=labels)
    pictures = photographs(4, 16, 0).reshape(2, 2, 16, 16, 3)
    np.savez(folder / "cluster/montage.npz", images=pictures, clusters=[0, 1], sizes=[3, 1])
    rows = [f"{names[0]},0\n", f"{names[1]},0\n", f"{names[-1]},1\n"]
    table = "path,cluster\n" + "".join(rows)
    (folder / "cluster/montage.csv").write_bytes(table.encode("utf-8", "surrogateescape"))
    return folder


def test_clusters_show_file_names_and_link_to_the_files(tmp_path, without_plots):
    names = ["a/one.jpg", f"b/{BAD}", "c/none.jpg", "d/gone.jpg"]
    for name in names[:2]:
        (tmp_path / "photos" / name).parent.mkdir(parents=True)
        (tmp_path / "photos" / name).write_bytes(b"")
    run = cluster_run(tmp_path / "run", names, tmp_path / "photos")
    page = write_report(run).read_text("utf-8")
    links = [a["href"] for a in attributes(page, "a") if not a["href"].startswith("#")]
    assert links == [(tmp_path / "photos" / name).as_uri() for name in names[:2]]
    assert "caf%E9%20%3C1%3E" in links[1]
    alts = [image["alt"] for image in attributes(page, "img")]
    assert alts == ["a/one.jpg", r"b/caf\xe9 <1> & #2.jpg", "d/gone.jpg"]
    assert "gone.jpg" in text_of(page)
    (run / "cluster/montage.csv").unlink()  # of an earlier version
    page = write_report(run).read_text("utf-8")
    assert attributes(page, "img")[0]["alt"] == "image 1 of cluster 0"
    assert not [a for a in attributes(page, "a") if not a["href"].startswith("#")]
    (run / "cluster/montage.csv").write_text("path,cluster\na,b,c\n")
    assert "montage.csv is damaged" in text_of(write_report(run).read_text("utf-8"))


def test_clusters_link_to_their_folders_of_links(tmp_path, without_plots):
    names = ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]
    run = cluster_run(tmp_path / "run", names, tmp_path)
    for name in names:
        (tmp_path / name).write_bytes(b"")
    rows = [(name, int(name == "d.jpg"), 0.0) for name in names]
    for fingerprint, expected in (("f", ["by_cluster/0/", "by_cluster/1/"]), ("other", [])):
        link_clusters(run / "by_cluster", tmp_path, rows, n_clusters=2, fingerprint=fingerprint)
        page = write_report(run).read_text("utf-8")
        folders = [a["href"] for a in attributes(page, "a") if "by_cluster" in a["href"]]
        assert folders == expected


# -- the row that fits


@pytest.mark.parametrize(
    ("options", "transfer", "reason"),
    [
        ({}, "CC+vgg-Jigsaw++", "learnt Jigsaw++ with vgg16"),
        ({"pretext.trunk": "alexnet"}, "CC+Jigsaw++", "learnt Jigsaw++ with alexnet"),
        ({"features.source": "hog"}, "CC+HOG", "its teacher is HOG"),
        ({"features.source": "torchvision:resnet18"}, None, "no teacher torchvision:resnet18"),
        ({"features.weights": "w.pt"}, None, "weights of its teacher come from a file"),
        ({"cluster.features": "x.npy"}, None, "features come from a file"),
    ],
)
def test_the_published_row_fits_the_teacher(options, transfer, reason):
    beside = published_beside(load_config(None, options), None)
    assert beside.methods.get("transfer") == transfer
    assert beside.methods["random"] == "random"
    assert reason in beside.remark


def test_no_published_row_fits_another_pretext_task():
    beside = published_beside(load_config(None, {"pretext.task": "rotation"}), None)
    assert beside.methods == {"labels": "ImageNet labels", "random": "random"}
    assert "another task than Jigsaw++" in beside.remark


def test_no_published_row_fits_another_target_or_unknown_options():
    assert published_beside(load_config(None, {"transfer.target": "vgg16"}), None).methods == {}
    assert published_beside(None, None).methods == {}


def test_the_page_marks_the_row_that_fits(finished, without_plots):
    rows = {}
    for source in ("pretext", "hog", "torchvision:resnet18"):
        (finished / "config.toml").write_text(CONFIG + f'\n[features]\nsource = "{source}"\n')
        page = write_report(finished).read_text("utf-8")
        marked = re.findall(
            r'<tr role="row" class="transfer"><th[^>]*><span[^>]*></span>([^<]*)', page
        )
        rows[source] = {name for name in marked if name.startswith(("CC", "Jigsaw"))}
    (finished / "config.toml").write_text(CONFIG)
    assert rows == {
        "pretext": {"CC+vgg-Jigsaw++", "Jigsaw++, clusters of VGG-16"},
        "hog": {"CC+HOG"},
        "torchvision:resnet18": set(),
    }


def test_the_tables_of_the_paper_appear_where_they_apply(finished, source, without_plots):
    words = text_of(source)
    assert "VOC2007 classification by the number of clusters (mAP, %)" in words
    assert "This run has 60 clusters." in words
    assert "10,000" in words
    assert "Places" not in words
    assert "by the data sets of the clusters" not in words
    config = CONFIG.replace("/data/caltech101/test", "/data/Places205/val").replace(
        "[data]", '[data]\ntransfer = "/data/other"'
    )
    (finished / "config.toml").write_text(config)
    shutil.move(finished / "voc/segmentation", finished / "segmentation")
    words = text_of(write_report(finished).read_text("utf-8"))
    shutil.move(finished / "segmentation", finished / "voc/segmentation")
    assert "Places205, linear probe, top-1 accuracy (%)" in words
    assert "remembered, not checked against a source; a third party confirms 37.5" in words
    assert "by the data sets of the clusters" in words
    assert re.search(r"centres of Places, labels for ImageNet\s+68\.3", words)
    shutil.move(finished / "voc/classification", finished / "classification")
    words = text_of(write_report(finished).read_text("utf-8"))
    shutil.move(finished / "classification", finished / "voc/classification")
    (finished / "config.toml").write_text(CONFIG)
    assert "by the number of clusters" not in words


def test_both_average_precisions_of_classification_are_shown(source):
    words = text_of(source)
    assert re.search(r"class\. mAP, 11 points\s+class\. mAP, area\s+det\. mAP, 11 points", words)
    assert "scikit-learn's average precision, as in the code of Krähenbühl et al. (2016)" in words
    assert "Classification by class, area under the precision-recall curve (%)" in words
    assert "Segmentation by class, area" not in words


# -- layers that the test images did not choose


def test_held_out_training_images_choose_the_layers(finished, source, without_plots):
    words = text_of(source)
    assert "reaches 25.9\u00a0% mean per-class accuracy at the layer conv4" in words
    assert "Held-out training images chose the layer of each model" in words
    assert 'chosen" data-column="conv4">25.9<' in source
    assert source.count('chosen" data-column="conv3">24.7<') == 1
    path = finished / "evaluate/result.json"
    kept = path.read_text()
    value = json.loads(kept)
    for key in ("linear_held_out", "knn_held_out"):
        del value["summary"][key]
    write(path, value)
    page = write_report(finished).read_text("utf-8")
    path.write_text(kept)
    words = text_of(page)
    assert "26.8\u00a0% mean per-class accuracy at the layer conv3" in words
    assert "at the layer that is best on the test images, so its accuracy is somewhat" in words
    assert " chosen" not in page.partition("</style>")[2]


# -- a run without labels


def test_a_run_without_labels_speaks_of_its_groups(tmp_path, without_plots):
    run = cluster_run(tmp_path / "run", ["a", "b", "c", "d"], tmp_path)
    result(run, "prepare/pretext", 1.0, None, {"images": 4, "skipped": []})
    result(run, "transfer", 1.0, None, {"accuracy": 0.75})
    page = write_report(run).read_text("utf-8")
    words = text_of(page)
    for part in (
        "4 images in 2 groups",
        "They hold 1 to 3 images, half of them at most 2.",
        "the target network names the cluster of 75.0\u00a0% of its training images",
        "cluster/assignments.csv lists the group of every image",
        "Images in groups 4 2 groups",
        "Median group size 2 1 to 3 images",
        "Groups learnt 75.0\u00a0% guessing 50.00\u00a0%",
        "no labelled test images (data.test)",
    ):
        assert part in words
    assert "Not evaluated" not in words
    assert "Linear probe" not in words.partition("Probes on frozen layers")[0]
    (run / "config.toml").unlink()  # the stages say that there are no labels
    assert "4 images in 2 groups" in text_of(write_report(run).read_text("utf-8"))
    (run / "config.toml").write_text(f'[data]\npretext = "{tmp_path}"\ntest = "{tmp_path}"\n')
    assert "Not evaluated" in text_of(write_report(run).read_text("utf-8"))


def test_empty_clusters_are_counted(tmp_path, without_plots):
    run = cluster_run(tmp_path / "run", ["a", "b"], tmp_path)
    value = json.loads((run / "cluster/result.json").read_text())
    value.pop("sha256")
    value["summary"]["n_clusters"] = 5
    write_sealed(run / "cluster/result.json", value)
    assert "3 of 5 clusters have no image." in text_of(write_report(run).read_text("utf-8"))
