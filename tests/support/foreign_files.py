"""Every format that ktfast reads: small whole files, and the readers that meet them."""

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import safetensors.torch
import torch
from PIL import Image
from scipy.io import savemat

from ktfast.config import Config, load_config
from ktfast.durable import read_json, sha256_json
from ktfast.errors import reading
from ktfast.evaluation.results import ProbeRow, RetrainedScores
from ktfast.features.store import FeatureStore
from ktfast.features.transform import FeatureTransform
from ktfast.features.writer import FeatureWriter
from ktfast.images.arrays import ArrayFormat
from ktfast.images.decode import decode_rgb, upright_shape
from ktfast.images.index import ImageIndex
from ktfast.images.jpeg import is_upright_colour_jpeg
from ktfast.images.prepare import prepare
from ktfast.images.shard_table import ShardTable
from ktfast.images.source import PreparedSet
from ktfast.images.tars import scan_images
from ktfast.models.weights import load_weights
from ktfast.pipeline.run_folder import RunFolder
from ktfast.report.reading import RunReader
from ktfast.training.checkpoint import CheckpointFolder
from ktfast.training.progress import MetricsLog
from ktfast.voc.annotations import parse_objects
from ktfast.voc.lists import read_split
from ktfast.voc.matlab import read_field
from ktfast.voc.proposals import Proposals
from support.pictures import encoded, oriented, photo_folder, picture

PIXEL_LIMIT = 1_000_000  # so that a damaged header does not cost seconds

IDS = ("a", "2007_000001")
ROWS = {"features": [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], "path": ["a", "b", "c"]}
ITEMS = {
    "array": [[[1.0, 2.0], [3.0, 4.0]]] * 4,
    "path": ["a/1", "a/2", "b", ""],
    "label": [1, 2, 3, 4],
}
SOURCE = SimpleNamespace(ids=IDS, n=2, folder=Path("VOC2007"))


@dataclass(frozen=True)
class Format:
    """A kind of file.

    Attributes
    ----------
    name : str
        Name of the file below the working folder.
    files : callable
        Makes whole files in the working folder, and returns the contents to damage.
    read : callable
        Reads the file in the working folder.
    asks : bool
        The library asks for the memory that the file states before the library reads the file. The
        system refuses, or never fills that memory.
    """

    name: str
    files: Callable[[Path], list[bytes]]
    read: Callable[[Path], object]
    asks: bool = False


def bytes_of(write: Callable[[io.BytesIO], object]) -> bytes:
    buffer = io.BytesIO()
    write(buffer)
    return buffer.getvalue()


def decode(path: Path) -> None:
    data = path.read_bytes()
    decode_rgb(data, path.name, pixel_limit=PIXEL_LIMIT)
    is_upright_colour_jpeg(data)
    upright_shape(str(path))


def jpegs(_: Path) -> list[bytes]:
    small = picture(24, 32)
    return [encoded(small), encoded(small, progressive=True), oriented(small, 6)]


def pngs(_: Path) -> list[bytes]:
    small = picture(12, 16)
    wide = Image.fromarray(np.arange(64, dtype=np.uint16).reshape(8, 8))
    return [encoded(image, "PNG") for image in (small, small.convert("P"), wide)]


def webps(_: Path) -> list[bytes]:
    small = picture(16, 16)
    return [encoded(small, "WEBP"), encoded(small, "WEBP", lossless=True)]


def arrays(_: Path) -> list[bytes]:
    rows = np.arange(12, dtype=np.float32).reshape(4, 3)
    return [bytes_of(partial(np.save, arr=a)) for a in (rows, np.asfortranarray(rows))]


def read_features(path: Path) -> None:
    FeatureStore.open(path).read(slice(None))


def parquet_files(columns: dict[str, object], _: Path) -> list[bytes]:
    table = pa.table(columns)
    plain = partial(pq.write_table, table, compression="none", row_group_size=2)
    return [bytes_of(partial(pq.write_table, table)), bytes_of(plain)]


def read_items(path: Path) -> None:
    index = scan_images(path, arrays=True)
    for row in range(index.n):
        ArrayFormat(1).read(index.read(row), index.name(row))


def proposals(_: Path) -> list[bytes]:
    held = {"ids": np.array(IDS), "counts": [1, 2], "boxes": np.ones((3, 4))}
    return [bytes_of(partial(save, **held)) for save in (np.savez, np.savez_compressed)]


def sbd_masks(_: Path) -> list[bytes]:
    boundaries = np.empty((2, 1), object)
    boundaries[:, 0] = [np.ones((2, 3)), np.zeros((1, 4))]
    held = {"Boundaries": boundaries, "Segmentation": np.eye(6, dtype=np.uint8)}
    content = {"GTcls": held}
    return [bytes_of(partial(savemat, mdict=content, do_compression=k)) for k in (False, True)]


def read_sbd(path: Path) -> None:
    with reading(path, "a mask of SBD", "copy the file again"):
        read_field(path.read_bytes(), "GTcls", "Segmentation")


def matlab(_: Path) -> list[bytes]:
    images, boxes = np.empty((2, 1), object), np.empty((1, 2), object)
    images[:, 0] = IDS
    boxes[0, 0], boxes[0, 1] = np.ones((2, 4)), np.ones((1, 4), np.uint16)
    held = {"images": images, "boxes": boxes}
    return [bytes_of(partial(savemat, mdict=held, do_compression=packed)) for packed in (0, 1)]


def transforms(_: Path) -> list[bytes]:
    held = {"choice": "pca-l2", "mean": np.ones(3), "projection": np.ones((3, 2))}
    return [bytes_of(lambda file: np.savez(file, **held))]


def annotations(_: Path) -> list[bytes]:
    box = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>8</xmax><ymax>5.5</ymax></bndbox>"
    item = f"<object><name>cow</name><difficult>0</difficult>{box}</object>"
    plain = f"<annotation><size/>{item * 2}</annotation>"
    head = '<?xml version="1.0" encoding="utf-8"?><!DOCTYPE a [<!ENTITY x "1">]>'
    return [plain.encode(), (head + plain).encode(), plain.encode("utf-16")]


def lists(folder: Path) -> list[bytes]:
    for below in ("JPEGImages", "ImageSets/Main"):
        (folder / below).mkdir(parents=True)
    for name in ("a.jpg", "b 1.JPG", "c.png"):
        (folder / "JPEGImages" / name).touch()
    return [b"a\nb 1\nc\n", b"a 1\r\nc -1\r\n", "\ufeffa.jpg\n".encode(), "a\nc".encode("utf-16")]


def tomls(_: Path) -> list[bytes]:
    return [
        b'seed = 3\ndevice = "cpu"\n[data]\npretext = "~/a"\n[cluster]\nn_clusters = 8\n',
        b"[voc]\nclasses = ['cat', 'dog']\n[voc.detection]\nshort_sides = [480, 576]\n",
    ]


def network() -> torch.nn.Module:
    return torch.nn.Linear(3, 2)


def torch_files(_: Path) -> list[bytes]:
    state = network().state_dict()
    return [
        bytes_of(lambda file: torch.save(state, file)),
        bytes_of(lambda file: torch.save(state, file, _use_new_zipfile_serialization=False)),
    ]


def weights(_: Path) -> list[bytes]:
    return [safetensors.torch.save(network().state_dict(), {"a": "b"})]


def checkpoints(folder: Path) -> list[bytes]:
    saved = CheckpointFolder(folder).save(1, network().state_dict(), {"question": {}})
    content = saved.read_bytes()
    saved.unlink()
    return [content]


def result_text() -> bytes:
    accuracies = {"conv1": 0.5, "conv2": 0.25}
    low_label = {"fraction": 0.1, "linear": accuracies, "images": 3, "protocol": {}}
    value = {
        "stage": "evaluate", "fingerprint": "ab", "outputs": {}, "seconds": 1.5,
        "summary": {
            "models": ["transfer"], "linear": {"transfer": accuracies}, "skipped": [["a", "b"]],
            "low_label": [{**low_label, "linear": {"transfer": accuracies}}], "nmi": 0.5,
        },
        "linear": accuracies, "linear_top1": accuracies, "knn": accuracies, "protocol": {},
        "low_label": [low_label], "top1": 0.5, "mean_per_class": 0.5, "steps": 3,
    }  # fmt: skip
    return sealed(value)


def sealed(value: dict[str, object]) -> bytes:
    """What `ktfast.durable.write_sealed` writes."""
    whole = {**value, "sha256": sha256_json(value)}
    return (json.dumps(whole, indent=1, allow_nan=False) + "\n").encode()


def results(folder: Path) -> list[bytes]:
    for stage in ("evaluate", "cluster"):
        (folder / stage).mkdir()
    return [result_text()]


def read_result(path: Path) -> None:
    """The report makes a note of damage, and never fails; the stages raise an error."""
    folder = path.parent.parent
    (folder / "cluster/history.json").write_bytes(path.read_bytes())
    reader = RunReader(folder)
    for read in (reader.evaluation, reader.clusters, reader.inertia, reader.metrics):
        read()
    reader.training("evaluate"), reader.voc("evaluate"), reader.result("cluster")
    RunFolder(folder, Config()).result("evaluate")
    read_json(path, ProbeRow.from_json)
    read_json(path, RetrainedScores.from_json)


def metrics(folder: Path) -> list[bytes]:
    (folder / "pretext").mkdir()
    row = b'{"stage": "pretext", "step": 20, "epoch": 0.5, "loss": 1.5, "loader_wait": 0.1}\n'
    return [row * 3]


def read_metrics(path: Path) -> None:
    RunReader(path.parent).metrics()
    MetricsLog(path, "pretext").cut(20)


def indexes(folder: Path) -> list[bytes]:
    photo_folder(folder / "photos", 2, height=16, width=16)
    prepare(ImageIndex.scan(folder / "photos"), folder, short_side=16)
    return [(folder / "index.json").read_bytes()]


def tables(folder: Path) -> list[bytes]:
    indexes(folder)
    return [(folder / "shard-00000.npz").read_bytes()]


def manifests(folder: Path) -> list[bytes]:
    with_rows = FeatureWriter(folder, dim=2, dtype="float32")
    with_rows.append(np.ones((3, 2)), np.arange(3))
    with_rows.close()
    return [(folder / "manifest.json").read_bytes()]


def signed(read: Callable[[Path], object]) -> Callable[[Path], object]:
    """Read the damaged file, and read it again with the hash that fits the damage."""

    def both(path: Path) -> None:
        try:
            value = json.loads(path.read_bytes())
            value.pop("sha256", None)
            path.write_bytes(sealed(value))
        except (ValueError, AttributeError, RecursionError, TypeError):
            pass
        read(path)

    return both


FORMATS = {
    "jpeg": Format("x.jpg", jpegs, decode),
    "png": Format("x.png", pngs, decode),
    "webp": Format("x.webp", webps, decode),
    "npy": Format("x.npy", arrays, read_features),
    "parquet features": Format("x.parquet", partial(parquet_files, ROWS), read_features),
    "parquet arrays": Format("x.parquet", partial(parquet_files, ITEMS), read_items),
    "npz": Format("x.npz", proposals, lambda path: Proposals.read(path, SOURCE)),
    "transform": Format("x.npz", transforms, FeatureTransform.load),
    "mat": Format("x.mat", matlab, lambda path: Proposals.read(path, SOURCE)),
    "sbd": Format("x.mat", sbd_masks, read_sbd),
    "xml": Format("x.xml", annotations, lambda p: parse_objects(p.read_bytes(), p, ["cow"])),
    "list": Format(
        "ImageSets/Main/few.txt", lists, lambda path: read_split(path.parents[2], "few", "Main")
    ),
    "toml": Format("x.toml", tomls, load_config),
    "pt": Format("x.pt", torch_files, lambda path: load_weights(network(), path), asks=True),
    "safetensors": Format("x.safetensors", weights, lambda path: load_weights(network(), path)),
    "checkpoint": Format(
        "checkpoint-1.safetensors", checkpoints, lambda path: CheckpointFolder(path.parent).load()
    ),
    "result": Format("evaluate/result.json", results, signed(read_result)),
    "metrics": Format("metrics.jsonl", metrics, read_metrics),
    "index": Format("index.json", indexes, signed(lambda path: PreparedSet.open(path.parent))),
    "table": Format("shard-00000.npz", tables, ShardTable.read),
    "manifest": Format(
        "manifest.json", manifests, signed(lambda path: FeatureStore.open(path.parent))
    ),
}
"""The formats by name."""
