"""Artifacts of a finished run with a flipped bit or a lost end: each damage is found or mended.

Every damage is met twice: by all stages in their order, as `ktfast run` executes them, and by the
readers of the stage's artifacts, as the next stage calls them. A stage that begins to repair itself
is stopped there, except in `test_a_damaged_run_ends_as_before`, which repairs for real.
"""

import contextlib
import hashlib
import json
import logging
import os
import random
import shutil

import numpy as np
import pytest

from ktfast.cli.demo import PHOTOGRAPHS, write_views
from ktfast.cli.main import main
from ktfast.config import load_config
from ktfast.errors import DataError, InputError
from ktfast.features.store import FeatureStore
from ktfast.features.transform import FeatureTransform
from ktfast.manifest import problems
from ktfast.pipeline import stage_result
from ktfast.pipeline.run_folder import RunFolder
from ktfast.pipeline.runner import _execute_stages
from ktfast.pipeline.steps.image_sets import open_set
from ktfast.report.reading import RunReader
from ktfast.training.checkpoint import CheckpointFolder
from support.tiny_recipe import TINY
from support.voc_folder import voc_folder

STAGES = ("prepare", "pretext", "features", "cluster", "transfer", "evaluate", "voc")
DAMAGES = 560
LAST_WORDS = ("config.toml", "log.txt", "lock", "metrics.jsonl", "report.html", "environment.json")
RECIPE = TINY.replace("epochs = 2", "epochs = 1").replace(
    "neighbors = 5",
    'neighbors = 5\nlayers = ["conv1", "conv3"]\nretrain = ["conv4"]\nretrain_epochs = 1\n'
    'baselines = ["random", "labels"]',
).replace("[cluster]", 'normalized = true\n\n[cluster]\nnormalize = "pca-l2"\npca = 8') + """
[voc]
models = ["random"]

[voc.classification]
test_crops = 1
training = { epochs = 1, batch_size = 4, log_every = 1 }
"""  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of every stage, whose artifacts are small; and the command that made it."""
    place = tmp_path_factory.mktemp("damage")
    write_views(place / "photographs", {"train": 3, "test": 1}, PHOTOGRAPHS[:14])
    voc_folder(place / "voc")
    (place / "tiny.toml").write_text(RECIPE)
    command = [
        *("run", "--run", str(place / "run"), "--config", str(place / "tiny.toml")),
        *("--data.pretext", str(place / "photographs/train")),
        *("--data.test", str(place / "photographs/test")),
        f"--voc.classification.folder={place / 'voc'}",
        *("--voc.classification.train=few", "--voc.classification.test=other"),
    ]
    assert main(command) == 0
    return place / "run", command


def artifacts(run):
    """All files that the stages left, by path below the run folder."""
    files = (path for path in run.rglob("*") if path.is_file() and path.parent != run)
    return sorted(path.relative_to(run).as_posix() for path in files)


def damaged(data, generator):
    """The content of a file with one bit flipped, or cut at a random place."""
    if generator.random() < 0.3:
        return data[: generator.randrange(len(data))]
    changed = bytearray(data)
    changed[generator.randrange(len(data))] ^= 1 << generator.randrange(8)
    return bytes(changed)


@contextlib.contextmanager
def replaced(path, data):
    """Give a file another content for the length of a block. The file itself is not written to."""
    kept = path.with_name(f"{path.name}.kept")
    os.rename(path, kept)
    path.write_bytes(data)
    try:
        yield
    finally:
        os.replace(kept, path)


class Repairs(Exception):
    """A stage has found its damage and begins to repair."""


@contextlib.contextmanager
def _stop(*_):
    raise Repairs
    yield


def digest(*values):
    total = hashlib.sha256()
    for value in values:
        total.update(value.tobytes() if hasattr(value, "tobytes") else repr(value).encode())
    return total.hexdigest()


def labels_of(run):
    with np.load(run.artifact("cluster", "labels.npz")) as file:
        return digest(file["labels"], file["sample_ids"])


def images_of(role):
    def read(run):
        images = open_set(run, role)
        pixels = (images.read(row) for row in range(images.n))
        return digest(images.sample_ids, images.labels, *images.paths, images.classes, *pixels)

    return read


def features_of(run):
    store = FeatureStore.open(run.stage("features/pretext"), verify=True)
    return digest(store.read(slice(None)), store.sample_ids, store.meta)


def transform_of(run):
    transform = FeatureTransform.load(run.stage("features/pretext") / "transform.npz")
    return digest(transform.choice, transform.mean, transform.projection)


def weights_of(stage):
    return lambda run: digest(run.artifact(stage, "weights.safetensors").read_bytes())


def checkpoint_of(stage):
    def read(run):
        checkpoint = CheckpointFolder(run.stage(stage)).load()
        tensors = sorted(checkpoint.tensors.items())
        return digest(checkpoint.step, checkpoint.facts, *(t.numpy() for _, t in tensors))

    return read


def result_of(stage):
    return lambda run: digest(run.result(stage))


def report_of(run):
    """What the report shows; an artifact that the report lacks is noted on the page."""
    reader = RunReader(run.folder)
    shown = [reader.inertia(), reader.evaluation(), reader.voc("classification")]
    shown += [reader.clusters(), reader.training("pretext"), reader.prepared()]
    for name, array in (("labels", "labels"), ("montage", "sizes")):
        found = reader.arrays(f"cluster/{name}.npz", {array: 1})
        shown += [] if found is None else [digest(*found.values())]
    if reader.notes:
        raise DataError("; ".join(reader.notes))
    return digest(*shown)


READERS = {
    "prepare/pretext: images": images_of("pretext"),
    "prepare/test: images": images_of("test"),
    "features/pretext: features": features_of,
    "features/pretext: transform": transform_of,
    "cluster: labels": labels_of,
    **{
        f"{stage}: {what.__name__}": what(stage)
        for stage in ("pretext", "transfer", "baseline_labels")
        for what in (weights_of, checkpoint_of)
    },
    **{
        f"{stage}: result": result_of(stage)
        for stage in ("prepare/pretext", "pretext", "features/pretext", "cluster", "transfer")
    },
    "report": report_of,
}


def meet(read, run, expected):
    """What a reader says of a damaged run: its message, or whether it reads what it read before."""
    try:
        return "equal" if read(run) == expected else "adopted"
    except InputError as error:
        return str(error)


def test_every_damage_is_found_or_harmless(finished, monkeypatch, caplog):
    folder, _ = finished
    caplog.set_level(logging.ERROR, "ktfast")
    config = load_config(folder / "config.toml")
    monkeypatch.setattr(stage_result, "_recorded_configuration", _stop)
    run = RunFolder(folder, config)
    before = {name: read(run) for name, read in READERS.items()}
    files = artifacts(folder)
    assert len(files) > 40
    monkeypatch.setattr("ktfast.pipeline.feasibility.check_feasible", lambda *_, **__: None)
    _execute_stages(run, STAGES, ())  # nothing is repaired without a damage
    generator = random.Random(0)
    repaired = refused = 0
    for number in range(DAMAGES):
        name = files[number % len(files)]
        path = folder / name
        data = path.read_bytes()
        content = damaged(data, generator)
        where = f"damage {number}: {name}, {len(content)} of {len(data)} bytes"
        with replaced(path, content):
            is_checkpoint = path.name.startswith("checkpoint-")
            try:
                _execute_stages(run, STAGES, ())
            except Repairs:
                repaired += 1
            except InputError as error:
                refused += "--redo" in str(error)
            else:
                # `begun.json` has been made again from `result.json`. The check that reads the
                # list of inspected photographs is left out here.
                unread = is_checkpoint or path.name == "inspected.json"
                assert unread or path.read_bytes() == data, where
            for title, read in READERS.items():
                if name.startswith(title.partition(":")[0]) or title == "report":
                    message = meet(read, run, before[title])
                    named = path.name in message or str(path.parent) in message
                    assert message == "equal" or named, f"{where}, {title}: {message}"
    assert repaired > DAMAGES // 2
    print(f"{DAMAGES} damages: {repaired} repaired, {refused} refused")


@pytest.mark.parametrize("round", range(3))
def test_a_damaged_run_ends_as_before(finished, tmp_path, round):
    """One file of every stage is damaged; `ktfast run` makes all of them again, bit for bit."""
    folder, command = finished
    copy = tmp_path / "run"
    shutil.copytree(folder, copy)
    generator = random.Random(round)
    chosen = {}
    for name in artifacts(folder):
        if not name.rpartition("/")[2].startswith("checkpoint-"):
            chosen.setdefault(name.rpartition("/")[0], []).append(name)
    for names in chosen.values():
        path = copy / names[generator.randrange(len(names))]
        path.write_bytes(damaged(path.read_bytes(), generator))
    command = [str(copy) if part == str(folder) else part for part in command]
    assert main(command) == 0
    for name in artifacts(folder):
        if name.endswith("result.json"):
            ours, theirs = (json.loads((place / name).read_text()) for place in (copy, folder))
            assert ours["fingerprint"] == theirs["fingerprint"]
            pairs = ((copy / name).parent / file for file in ours["files"])
            assert problems(zip(pairs, ours["files"].values(), strict=True)) == []
        elif not name.rpartition("/")[2].startswith(("checkpoint-", "history.json")):
            assert (copy / name).read_bytes() == (folder / name).read_bytes(), name
