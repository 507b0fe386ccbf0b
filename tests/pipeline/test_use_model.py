"""What a finished run is used for: vectors and clusters of new photographs, and exported files."""

import csv
import json
import shutil
import tarfile

import numpy as np
import pandas
import pytest
import safetensors.torch
import torch
import torchvision
from PIL import Image

import ktfast
from ktfast.cli.main import main
from ktfast.durable import read_sealed, write_sealed
from ktfast.errors import ConfigError, DataError, InputError
from ktfast.images.augment import center_crop, normalize_images
from ktfast.images.resize import square
from ktfast.pipeline.assign_folder import assign_folder
from ktfast.pipeline.export_model import export_model
from support.photographs import squares
from support.tiny_recipe import TINY

STAGES = ["prepare", "pretext", "features", "cluster", "transfer"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run up to the transfer, on photographs as JPEG files and one damaged file."""
    folder = tmp_path_factory.mktemp("use")
    (folder / "photographs" / "deep").mkdir(parents=True)
    for number, picture in enumerate(squares(48, 96)):
        place = "deep/" if number % 2 else ""
        Image.fromarray(picture).save(folder / f"photographs/{place}{number}.jpg", quality=90)
    (folder / "photographs" / "damaged.jpg").write_bytes(b"no photograph")
    options = TINY.replace("[data]", f'[data]\npretext = "{folder / "photographs"}"')
    (folder / "options.toml").write_text(options)
    ktfast.run(folder / "options.toml", folder / "run", stages=STAGES)
    return folder


def test_vectors_are_those_of_the_network_after_its_own_preprocessing(run):
    model = ktfast.load(run / "run")
    files = sorted((run / "photographs").glob("*.jpg"))[:5]
    vectors = model.embed(files)
    assert vectors.shape == (5, model.dim)
    pixels = np.stack([square(Image.open(f), short_side=90, size=90) for f in files])
    inputs = normalize_images(center_crop(torch.from_numpy(pixels), 80), "imagenet")
    with torch.inference_mode():
        expected = model.trunk.features(inputs, "pool5").mean((2, 3))
    assert torch.allclose(torch.from_numpy(vectors), expected, atol=1e-6)
    assert not model.training
    images = [Image.open(file) for file in files]
    arrays = [np.asarray(image) for image in images]
    for same in (images, arrays, [str(file) for file in files]):
        np.testing.assert_array_equal(model.embed(same), vectors)


def test_the_teacher_and_its_layers_load_too(run):
    model = ktfast.load(run / "run", "pretext", layer="conv3_3")
    assert model.normalization == "image"
    assert model.embed(squares(2, 96)).shape == (2, model.trunk.channels["conv3_3"])
    alone = ktfast.load(run / "run/pretext/weights.safetensors", layer="conv3_3")
    np.testing.assert_array_equal(alone.embed(squares(2, 96)), model.embed(squares(2, 96)))
    with pytest.raises(ConfigError, match=r"layer 'conv9' is unknown; there are conv1_1, "):
        ktfast.load(run / "run", "pretext", layer="conv9")


def test_what_is_no_network_is_refused_by_name(run, tmp_path):
    with pytest.raises(DataError, match=r"no trained network of the stage 'evaluate'; it has net"):
        ktfast.load(run / "run", "evaluate")
    with pytest.raises(DataError, match=r"nothing does not exist; give a run folder, or a wei"):
        ktfast.load(tmp_path / "nothing")
    (tmp_path / "junk.safetensors").write_bytes(b"junk")
    with pytest.raises(DataError, match=r"junk\.safetensors cannot be read as a weight file"):
        ktfast.load(tmp_path / "junk.safetensors")
    safetensors.torch.save_file({"x": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(DataError, match=r"other\.safetensors does not say of which network"):
        ktfast.load(tmp_path / "other.safetensors")
    model = ktfast.load(run / "run")
    with pytest.raises(InputError, match="embed takes a list of photographs"):
        model.embed("one.jpg")
    with pytest.raises(InputError, match=r"uint8 \[H, W, 3\], got float64 \[4, 4\]"):
        model.embed([np.zeros((4, 4))])
    with pytest.raises(DataError, match=r"missing\.jpg does not exist"):
        model.embed([tmp_path / "missing.jpg"])


@pytest.mark.parametrize("suffix", [".npz", ".csv", ".parquet"])
def test_embed_writes_one_vector_per_photograph(run, tmp_path, capsys, suffix):
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    out = tmp_path / f"vectors{suffix}"
    assert main(["embed", str(run / "run"), str(run / "photographs"), "-o", str(out)]) == 0
    assert f"48 vectors of {ktfast.load(run / 'run').dim} values" in capsys.readouterr().out
    if suffix == ".npz":
        with np.load(out) as file:
            paths, vectors = file["paths"].tolist(), file["features"]
    elif suffix == ".csv":
        with open(out, newline="") as file:
            rows = list(csv.reader(file))[1:]
        paths, vectors = [row[0] for row in rows], np.array([row[1:] for row in rows], np.float32)
    else:
        from pyarrow import parquet

        table = parquet.read_table(out)
        paths, vectors = table["path"].to_pylist(), np.array(table["features"].to_pylist())
    assert "deep/1.jpg" in paths
    expected = ktfast.load(run / "run").embed([run / "photographs" / path for path in paths])
    np.testing.assert_allclose(vectors, expected, rtol=1e-6)


@pytest.mark.parametrize("command", ["embed", "assign"])
def test_tar_files_are_read_as_folders_are(command, run, tmp_path):
    folder, rows = run / "photographs", []
    with tarfile.open(tmp_path / "photographs.tar", "w") as archive:
        for file in sorted(folder.rglob("*.jpg")):
            archive.add(file, file.relative_to(folder))
    for place in (folder, tmp_path / "photographs.tar"):
        out = tmp_path / "out.csv"
        assert main([command, str(run / "run"), str(place), "-o", str(out)]) == 0
        with open(out, newline="") as file:
            rows.append({row[0]: row[1:] for row in list(csv.reader(file))[1:]})
    assert {path.partition(".tar/")[2]: row for path, row in rows[1].items()} == rows[0]


def test_embed_refuses_an_unknown_suffix_before_it_computes(run, tmp_path, capsys):
    out = str(tmp_path / "vectors.xlsx")
    assert main(["embed", str(run / "run"), str(run / "photographs"), "-o", out]) == 2
    assert "ends in .npz, .csv, .parquet" in capsys.readouterr().err


def test_assign_gives_the_clusters_of_the_run(run, tmp_path):
    out = tmp_path / "clusters.csv"
    assert main(["assign", str(run / "run"), str(run / "photographs"), "-o", str(out)]) == 0
    with open(out, newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 48
    with np.load(run / "run/cluster/labels.npz") as file:
        expected = file["labels"].tolist()
    assert [int(row["cluster"]) for row in rows] == expected
    inertia = json.loads((run / "run/cluster/result.json").read_text())["summary"]["inertia"]
    assert sum(float(row["distance"]) ** 2 for row in rows) == pytest.approx(inertia, rel=1e-5)


def test_assign_names_what_it_leaves_out(run, tmp_path, caplog, capsys):
    out = str(tmp_path / "clusters.csv")
    assert main(["assign", str(run / "run"), str(run / "photographs"), "-o", out]) == 0
    assert any(m.startswith("damaged.jpg is left out: ") for m in caplog.messages)
    assert main(["assign", str(run / "run"), str(run / "photographs"), "-o", "x.parquet"]) == 2
    assert "x.parquet: give a file name that ends in .csv" in capsys.readouterr().err


def test_assign_does_not_depend_on_the_images_that_the_run_labelled(run, tmp_path):
    shutil.copytree(run / "run", tmp_path / "run")
    begun = tmp_path / "run/cluster/begun.json"
    value = read_sealed(begun, "")
    assert "label_images" in value["inputs"]
    value["inputs"]["label_images"] = "0" * 64  # as if data.transfer was prepared again
    write_sealed(begun, {key: value[key] for key in value if key != "sha256"})
    assert len(assign_folder(tmp_path / "run", run / "photographs").paths) == 48


def test_assign_refuses_centers_of_an_earlier_teacher(run, tmp_path):
    shutil.copytree(run / "run", tmp_path / "run")
    begun = tmp_path / "run/features/pretext/begun.json"
    value = read_sealed(begun, "")
    value["inputs"]["weights"] = "0" * 64  # as if the stage pretext was done again
    write_sealed(begun, {key: value[key] for key in value if key != "sha256"})
    with pytest.raises(ConfigError, match="the weights of the stage pretext changed since"):
        assign_folder(tmp_path / "run", run / "photographs")
    shutil.copytree(run / "run/features", tmp_path / "run/features", dirs_exist_ok=True)
    result = tmp_path / "run/features/pretext/result.json"
    value = read_sealed(result, "")
    value["fingerprint"] = "0" * 64  # as if the stage features was done again
    write_sealed(result, {key: value[key] for key in value if key != "sha256"})
    with pytest.raises(ConfigError, match=r"run/cluster was begun with other .* changed since"):
        assign_folder(tmp_path / "run", run / "photographs")


@pytest.mark.parametrize(
    ("command", "suffix"), [("embed", ".npz"), ("assign", ".csv"), ("export", ".safetensors")]
)
def test_a_file_that_cannot_be_written_is_refused_before_the_work(
    run, tmp_path, capsys, command, suffix
):
    photographs = [] if command == "export" else [str(tmp_path / "none")]
    (tmp_path / f"folder{suffix}").mkdir()
    for name, problem in (("missing/x", "make this folder first"), ("folder", "is a folder; give")):
        out = str(tmp_path / f"{name}{suffix}")
        assert main([command, str(run / "run"), *photographs, "-o", out]) == 2
        message = capsys.readouterr().err
        assert problem in message
        assert f"{name}{suffix}" in message


def test_impossible_devices_and_batches_are_refused(run):
    for device, problem in (("gpu", "give auto, cpu, cuda or cuda:N"), ("cuda:99", "was asked")):
        with pytest.raises(ConfigError, match=problem):
            ktfast.load(run / "run", device=device)
    with pytest.raises(InputError, match="batch_size must be at least 1, got 0"):
        ktfast.load(run / "run").embed([], batch_size=0)


def test_export_writes_the_weights_under_torchvisions_names(run, tmp_path, capsys):
    out = tmp_path / "student.safetensors"
    assert main(["export", str(run / "run"), "-o", str(out)]) == 0
    names = set(torchvision.models.alexnet(num_classes=10).state_dict())
    written = set(safetensors.torch.load_file(out))
    assert {"features.0.weight", "classifier.6.weight"} <= written | names
    assert "features.0.weight" in written
    assert "the weights of all layers" in capsys.readouterr().out
    assert main(["export", str(run / "run"), "--layer", "conv2", "-o", str(out)]) == 2
    assert "--layer conv2 has no effect on" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".pt2", ".onnx"])
@pytest.mark.filterwarnings("ignore")
def test_an_exported_program_computes_the_same_vectors(run, tmp_path, suffix, capsys):
    if suffix == ".onnx":
        for package in ("onnx", "onnxscript", "onnxruntime"):
            pytest.importorskip(package)
    for stage in ("transfer", "pretext"):
        out = tmp_path / f"{stage}{suffix}"
        assert export_model(ktfast.load(run / "run", stage), out) < 1e-5
        assert out.stat().st_size > 10_000
    assert capsys.readouterr().out == ""  # torch's exporter reports its steps unless told not to


def _files(run):
    return sorted((run / "photographs").glob("[0-9]*.jpg"))[:5]


def test_any_iterable_of_photographs_is_embedded_in_its_order(run):
    model = ktfast.load(run / "run")
    files = _files(run)
    expected = model.embed(files)
    shuffled = pandas.Series(files).sample(frac=1, random_state=0)
    order = [files.index(file) for file in shuffled]
    assert order != sorted(order)
    np.testing.assert_array_equal(model.embed(shuffled), expected[order])
    np.testing.assert_array_equal(model.embed(file for file in files), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_embed_works_in_any_type_and_leaves_a_model_in_training_as_it_is(run, dtype):
    model = ktfast.load(run / "run")
    files = _files(run)
    expected = model.embed(files)
    model.train()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    np.testing.assert_array_equal(model.embed(files), expected)
    assert model.training
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    found = model.to(dtype).embed(files)
    assert np.abs(found - expected).max() < 0.05 * np.abs(expected).max()


def test_a_weight_file_has_no_other_stage(run):
    weights = run / "run/transfer/weights.safetensors"
    assert ktfast.load(weights, "transfer").dim == ktfast.load(weights).dim
    with pytest.raises(DataError, match="holds one network, but the stage 'pretext' is asked for"):
        ktfast.load(weights, "pretext")
