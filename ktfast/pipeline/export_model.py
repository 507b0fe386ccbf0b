"""Write a trained network for use without ktfast: `ktfast export`."""

import importlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ktfast.durable import check_place, replacing
from ktfast.errors import ConfigError, DataError, shown
from ktfast.models import save_weights
from ktfast.pipeline.image_model import ImageModel

TOLERANCE = 1e-4
"""Largest difference between the exported and the original vectors, relative to the longest."""

_BATCHES = (3, 2)  # the exported network must accept a batch of another size than the example's


def export_model(model: ImageModel, out: str | os.PathLike[str]) -> float:
    """Write a network to a file, read the file back, and compare its vectors with the network's.

    Parameters
    ----------
    model : ImageModel
        The network, from `ktfast.load`.
    out : path
        The file. `.safetensors` holds the weights under torchvision's names. `.pt2` is a program of
        `torch.export`, and `.onnx` is an ONNX model. Both programs map normalised pixels, float32
        [B, 3, crop, crop], to vectors, float32 [B, dim]. A network for arrays takes their channels
        instead of 3.

    Returns
    -------
    difference : float
        Largest difference between the vectors of the exported network and of `model`, divided by
        the largest value of a vector. 0 for `.safetensors`, which holds the same weights.

    Raises
    ------
    ConfigError
        The suffix is unknown, the file cannot be written there, or its format needs a package that
        is not installed.
    DataError
        The exported network computes other vectors.
    """
    path = Path(out)
    check_place(path)
    if path.suffix == ".safetensors":
        save_weights(model.trunk, path)
        return 0.0
    exporters = {".pt2": _export_program, ".onnx": _export_onnx}
    if path.suffix not in exporters:
        raise ConfigError(
            f"{shown(path)}: give a file name that ends in .safetensors, {', '.join(exporters)}"
        )
    model = model.cpu().float()
    generator = torch.Generator().manual_seed(0)
    channels = model.trunk.origin.get("options", {}).get("channels", 3)
    first, other = (
        torch.randn((n, channels, model.crop, model.crop), generator=generator) for n in _BATCHES
    )
    run = exporters[path.suffix](model, first, path)
    with torch.inference_mode():
        expected = model(other)
    difference = float((run(other).detach() - expected).abs().max() / expected.abs().max())
    if not difference <= TOLERANCE:
        raise DataError(
            f"{shown(path)} computes other vectors than the network: they differ by"
            f" {difference:.2g} of the largest value; please report this"
        )
    return difference


def _program(model: ImageModel, pixels: Tensor) -> Any:
    with torch.no_grad():
        return torch.export.export(
            model, (pixels,), dynamic_shapes={"pixels": {0: torch.export.Dim("batch")}}
        )


def _export_program(model: ImageModel, pixels: Tensor, path: Path) -> Callable[[Tensor], Tensor]:
    with replacing(path) as file:
        torch.export.save(_program(model, pixels), file)
    return torch.export.load(path).module()


def _export_onnx(model: ImageModel, pixels: Tensor, path: Path) -> Callable[[Tensor], Tensor]:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise ConfigError(
                f"{shown(path)}: an ONNX file needs {package}; pip install onnx onnxscript"
                " onnxruntime, or write a .pt2 file"
            ) from error
    import onnxruntime

    exported = torch.onnx.export(_program(model, pixels), (pixels,), dynamo=True)
    assert exported is not None
    with replacing(path) as file:
        file.write(exported.model_proto.SerializeToString())
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda batch: torch.from_numpy(session.run(None, {name: batch.numpy()})[0])
