"""Networks of transformers as teachers: DINOv2, DINOv3, SigLIP, MAE, and the image tower of CLIP.

A model is a folder that `save_pretrained` wrote, or a model in the cache of Hugging Face's hub.
"""

import inspect
import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ktfast.errors import ConfigError, reading, shown
from ktfast.features.foreign import Teacher, checked
from ktfast.features.layers import (
    Pooling,
    check_layer,
    has_class_token,
    on_pixels,
    output_of,
    rows_of,
)
from ktfast.features.pretrained import (
    Color,
    Pretrained,
    hub_folder,
    hub_snapshot,
    missing_weights,
    need,
)
from ktfast.images.augment import normalize_channels
from ktfast.models.meta import without_weights

_CONFIG = "config.json"
_PROCESSORS = ("preprocessor_config.json", "processor_config.json")
_WEIGHTS = ("*.safetensors", "pytorch_model*.bin")
_IMAGE_TOWERS = ("vision_model", "vision_tower")


def hf_pretrained(name: str) -> Pretrained:
    """Describe a model of transformers, without importing transformers.

    Parameters
    ----------
    name : str
        OWNER/NAME on Hugging Face's hub, or a folder.

    Returns
    -------
    found : Pretrained
        Preprocessing and files.

    Raises
    ------
    MissingModelError
        The model is not on this machine.
    ConfigError
        The folder lacks a file, or its files do not say how images are normalised.
    """
    folder, revision = _folder(name)
    values = _read(folder / _CONFIG)
    path = next((folder / file for file in _PROCESSORS if (folder / file).is_file()), None)
    if path is None:
        raise ConfigError(
            f"features.source 'hf:{name}': {shown(folder)} has no {_PROCESSORS[0]}, which says how "
            "images are normalised; save the model's image processor into the folder, or download "
            "the whole model"
        )
    with reading(path, "the preprocessing of a model", "download the model again"):
        processor = _read(path)
        processor = processor.get("image_processor", processor)
        size = _size(processor) or _image_size(values)
        mean, std = _normalization(processor)
    files = [folder / _CONFIG, path, *_weight_files(folder)]
    return Pretrained(name, size, mean, std, tuple(files), revision)


def check_hf(name: str, layer: str) -> None:
    """Refuse a model that is not on this machine, and a layer that the model does not have.

    Parameters
    ----------
    name : str
        OWNER/NAME on Hugging Face's hub, or a folder.
    layer : str
        Dotted name of a layer; empty: no layer.

    Raises
    ------
    ConfigError
        The package, the model or the layer is missing.
    """
    source = f"hf:{name}{f'@{layer}' if layer else ''}"
    hf_pretrained(name)
    need("transformers", source)
    if not layer:
        return
    from transformers import AutoConfig, AutoModel

    folder = _folder(name)[0]
    with reading(folder / _CONFIG, "a model of transformers", "download the model again"):
        config = AutoConfig.from_pretrained(folder)
        model = without_weights(partial(AutoModel.from_config, config))
    check_layer(_image_tower(model, name)[0], layer, source)


def hf_teacher(
    name: str, device: str, *, layer: str = "", pool: int = 4, pooling: Pooling = "max"
) -> Teacher:
    """Features of the image network of a model of transformers.

    Without a layer, the features are the model's pooled output. If the model has none, or if the
    weights of its pooling are not in the file, the features are the last class token, or the mean
    of the last tokens for a network without a class token.

    Parameters
    ----------
    name : str
        OWNER/NAME on Hugging Face's hub, or a folder.
    device : str
        Device of the network.
    layer : str
        Dotted name of a layer; empty: the pooled output.
    pool : int
        Side to which the map of a layer is pooled.
    pooling : {"max", "mean"}
        How the map of a layer is pooled.

    Returns
    -------
    teacher : Teacher
        The features.

    Raises
    ------
    ConfigError
        The package, the model, a weight or the layer is missing.
    """
    source = f"hf:{name}{f'@{layer}' if layer else ''}"
    found = hf_pretrained(name)
    need("transformers", source)
    network, is_pooled = _load(name, source)
    if layer:
        check_layer(network, layer, source)
    network.eval().to(device)
    mean, std = on_pixels(found.mean), on_pixels(found.std)
    class_token = has_class_token(network)

    @torch.inference_mode()
    def teach(images: Tensor) -> Tensor:
        pixels = normalize_channels(images, mean, std)

        def run() -> Any:
            return network(pixel_values=pixels, **_extra(network, pixels))

        if layer:
            output = output_of(network, layer, run, source)
        else:
            output = run()
            pooled = getattr(output, "pooler_output", None)
            output = pooled if is_pooled and pooled is not None else output
        return rows_of(output, pool=pool, pooling=pooling, class_token=class_token)

    return checked(teach, source)


def _folder(name: str) -> tuple[Path, str]:
    """Locate the files of a model, and give its commit in the cache."""
    folder = Path(name).expanduser()
    if (folder / _CONFIG).is_file():
        return folder, ""
    found = hub_snapshot(name)
    if found is None or not (found[0] / _CONFIG).is_file() or not _weight_files(found[0]):
        place = hub_folder() / f"models--{name.replace('/', '--')}"
        raise missing_weights(
            f"hf:{name}", name, place, "give a folder that save_pretrained wrote, as hf:FOLDER"
        )
    return found


def _weight_files(folder: Path) -> list[Path]:
    """The files with the weights: safetensors if there are any, else files of torch."""
    return next((found for kind in _WEIGHTS if (found := sorted(folder.glob(kind)))), [])


def _read(path: Path) -> dict[str, Any]:
    with reading(path, "a description of a model in JSON", "download the model again"):
        values = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(values, dict):
            raise ValueError("it holds no table")
    return values


def _size(processor: Mapping[str, Any]) -> int:
    """Side of the squares that the model sees; 0 if the processor does not say."""
    for key in ("crop_size", "size") if processor.get("do_center_crop", True) else ("size",):
        value = processor.get(key)
        if isinstance(value, Mapping):
            value = value.get("height") or value.get("shortest_edge")
        if value:
            return int(value)
    return 0


def _image_size(values: Mapping[str, Any]) -> int:
    values = values.get("vision_config", values)
    size = values.get("image_size", 224)
    return int(size[0] if isinstance(size, list) else size)


def _normalization(processor: Mapping[str, Any]) -> tuple[Color, Color]:
    """Mean and standard deviation of pixels, on the scale 0 to 1."""
    if not processor.get("do_normalize", True):
        mean, std = [0.0] * 3, [1.0] * 3
    else:
        mean, std = ([float(x) for x in processor[f"image_{key}"]] for key in ("mean", "std"))
    # Pixels that are multiplied by another factor than 1/255 have another mean on the scale 0 to 1.
    factor = processor.get("rescale_factor", 1 / 255) if processor.get("do_rescale", True) else 1
    scale = 1 / (255 * float(factor))
    if len(mean) != 3 or len(std) != 3:
        raise ValueError(f"the mean has {len(mean)} numbers and the deviation {len(std)}, not 3")
    if abs(scale - 1) < 1e-6:
        scale = 1.0
    shift, spread = tuple(x * scale for x in mean), tuple(x * scale for x in std)
    return shift, spread  # type: ignore[return-value]


def _load(name: str, source: str) -> tuple[nn.Module, bool]:
    """Load the image network, and say whether the weights of its pooling are in the file."""
    from transformers import AutoModel

    folder = _folder(name)[0]
    with reading(folder, "a model of transformers", "download the model again"):
        model, info = AutoModel.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, output_loading_info=True
        )
    network, prefix = _image_tower(model, name)
    lacking = [key for key in info["missing_keys"] if key.startswith(prefix)]
    lacking += [str(key) for key in info.get("mismatched_keys", ())]
    weights = [key for key in lacking if "pooler." not in key]
    if weights:
        raise ConfigError(
            f"features.source {source!r}: {shown(folder)} lacks {len(weights)} weights of the "
            f"network, the first is {sorted(weights)[0]}; download the model again"
        )
    return network.float(), not lacking


def _image_tower(model: nn.Module, name: str) -> tuple[nn.Module, str]:
    """The part of a model that sees images, and the prefix of its weights' names."""
    for tower in _IMAGE_TOWERS:
        if isinstance(found := getattr(model, tower, None), nn.Module):
            return found, f"{tower}."
    takes = inspect.signature(model.forward).parameters
    if "pixel_values" not in takes or "input_ids" in takes:
        raise ConfigError(
            f"features.source 'hf:{name}' is a {type(model).__name__}, which has no network of its "
            "own for images; name a model for images"
        )
    return model, ""


def _extra(network: nn.Module, pixels: Tensor) -> dict[str, Any]:
    """Arguments that make a network see the whole image and give the same bits each time.

    A masked autoencoder hides patches at random. It keeps all patches in their order if its ratio
    is 0 and its noise ascends.
    """
    config: Any = network.config
    takes = inspect.signature(network.forward).parameters
    extra: dict[str, Any] = {}
    if "noise" in takes and hasattr(config, "mask_ratio"):
        config.mask_ratio = 0.0
        patches = (pixels.shape[-1] // config.patch_size) * (pixels.shape[-2] // config.patch_size)
        noise = torch.arange(patches, device=pixels.device, dtype=torch.float32)
        extra["noise"] = noise.expand(len(pixels), -1)
    native = getattr(config, "image_size", pixels.shape[-1])
    if "interpolate_pos_encoding" in takes and native != pixels.shape[-1]:
        extra["interpolate_pos_encoding"] = True
    return extra
