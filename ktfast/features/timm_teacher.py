"""Networks of timm as teachers (Wightman, "PyTorch Image Models")."""

from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from ktfast.errors import ConfigError
from ktfast.features.backbone import load_backbone
from ktfast.features.foreign import Teacher
from ktfast.features.layers import Pooling, check_layer, network_teacher
from ktfast.features.pretrained import (
    MissingModelError,
    Pretrained,
    hub_folder,
    hub_snapshot,
    missing_weights,
    need,
    torch_file,
)
from ktfast.models.meta import without_weights

_FILES = ("model.safetensors", "pytorch_model.bin")


def timm_pretrained(name: str) -> Pretrained:
    """Describe a network of timm. Its files are those of the cache; empty if the cache has none.

    Parameters
    ----------
    name : str
        Name of the model, with or without the tag of its weights.

    Returns
    -------
    found : Pretrained
        Preprocessing and files.

    Raises
    ------
    ConfigError
        timm is not installed, or has no model or weights of this name.
    """
    source = f"timm:{name}"
    found = _description(name)
    repository = found.hf_hub_id or ""
    files: tuple[Path, ...] = ()
    revision = ""
    if repository and (snapshot := hub_snapshot(repository)) is not None:
        names = (found.hf_hub_filename,) if found.hf_hub_filename else _FILES
        files = tuple(path for file in names if (path := snapshot[0] / file).is_file())[:1]
        revision = snapshot[1] if files else ""
    url = found.url if isinstance(found.url, str) else ""
    if not files and url and not url.endswith(".npz") and torch_file(url).is_file():
        files = (torch_file(url),)
    if found.input_size[0] != 3:
        raise ConfigError(
            f"features.source {source!r} takes images of {found.input_size[0]} channels; choose a "
            "model for RGB images"
        )
    tag = f".{found.tag}" if found.tag else ""
    full = f"{found.architecture or name.partition('.')[0]}{tag}"
    mean, std = tuple(found.mean), tuple(found.std)
    return Pretrained(full, int(found.input_size[-1]), mean, std, files, revision)


def check_timm(name: str, layer: str, weights: Path | None) -> None:
    """Refuse a model or a layer that timm does not have, and weights that are not here.

    Parameters
    ----------
    name : str
        Name of the model, with or without the tag of its weights.
    layer : str
        Dotted name of a layer; empty: no layer.
    weights : Path or None
        File with the weights; None: the local cache must hold the weights.

    Raises
    ------
    ConfigError
        The package, the model, the layer or the weights are missing.
    """
    source = _spelled(name, layer)
    found = timm_pretrained(name)
    if layer:
        check_layer(without_weights(partial(_network, name)), layer, source)
    if weights is None and not found.files:
        raise _missing(name, source)


def _network(name: str) -> nn.Module:
    """Build a network with random weights and without its classifier."""
    import timm

    network: nn.Module = timm.create_model(name, pretrained=False, num_classes=0)
    return network.eval()


def _spelled(name: str, layer: str) -> str:
    return f"timm:{name}@{layer}" if layer else f"timm:{name}"


def _missing(name: str, source: str) -> MissingModelError:
    repository = _description(name).hf_hub_id or name
    place = hub_folder() / f"models--{repository.replace('/', '--')}"
    return missing_weights(
        source, repository, place, "give a file of weights with features.weights"
    )


def timm_teacher(
    name: str,
    weights: Path | None,
    device: str,
    *,
    layer: str = "",
    pool: int = 4,
    pooling: Pooling = "max",
    size: int = 0,
) -> Teacher:
    """Features of a network of timm: the input of its classifier, or a layer.

    Parameters
    ----------
    name : str
        Name of the model, with or without the tag of its weights.
    weights : Path or None
        File with the model's state dict. None: the weights of timm in the local cache.
    device : str
        Device of the network.
    layer : str
        Dotted name of a layer; empty: the input of the classifier, pooled as the model pools it.
    pool : int
        Side to which the map of a layer is pooled.
    pooling : {"max", "mean"}
        How the map of a layer is pooled.
    size : int
        Side of the images in pixels; 0: the size for which the weights were made.

    Returns
    -------
    teacher : Teacher
        The features.

    Raises
    ------
    ConfigError
        The package, the model, the layer or the weights are missing, or the weights do not fit.
    """
    found, source = timm_pretrained(name), _spelled(name, layer)
    path = weights or next(iter(found.files), None)
    if path is None:
        raise _missing(name, source)
    network = _network(name)
    if layer:
        check_layer(network, layer, source)
    heads = _description(name).classifier or ()
    load_backbone(network, path, name, (heads,) if isinstance(heads, str) else tuple(heads))
    resize = getattr(network, "set_input_size", None)
    if size not in (0, found.size) and resize is not None:
        resize(img_size=size)  # a transformer resamples its position embeddings
    network.to(device)
    return network_teacher(
        network, source, mean=found.mean, std=found.std, layer=layer, pool=pool, pooling=pooling
    )


def _description(name: str) -> Any:
    """Give timm's description of a model's weights."""
    source = f"timm:{name}"
    need("timm", source)
    import timm

    if not timm.is_model(name):
        close = timm.list_models(f"*{name.partition('.')[0]}*")[:5]
        hint = f"; similar names: {', '.join(close)}" if close else ""
        raise ConfigError(
            f"features.source {source!r}: timm has no model of this name{hint}; "
            "timm.list_models() lists all"
        )
    try:
        return timm.get_pretrained_cfg(name, allow_unregistered=False)
    except RuntimeError as error:
        raise ConfigError(
            f"features.source {source!r}: {str(error).rstrip('.')}; timm.list_pretrained() lists "
            "the models with the tags of their weights"
        ) from error
