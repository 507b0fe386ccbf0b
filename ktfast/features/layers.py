"""Read the output of a named layer of any network, as one row of numbers per image."""

import difflib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from ktfast.errors import ConfigError
from ktfast.features.foreign import Teacher, checked
from ktfast.features.pretrained import Color
from ktfast.images.augment import normalize_channels

Pooling = Literal["max", "mean"]
LISTED = 40
"""A message lists at most this number of layers. The outermost layers come first."""
_CLASS_TOKENS = ("cls_token", "class_token", "class_embedding")


class _ReachedError(Exception):
    """The layer has run. The rest of the network is not needed."""

    def __init__(self, output: Any) -> None:
        super().__init__()
        self.output = output


def check_layer(network: nn.Module, layer: str, source: str) -> None:
    """Refuse a layer that a network does not have.

    Parameters
    ----------
    network : nn.Module
        The network. It may lie on torch's meta device.
    layer : str
        Dotted name, as in `network.named_modules()`.
    source : str
        The teacher, for messages.

    Raises
    ------
    ConfigError
        There is no such layer. The message lists layers.
    """
    names = [name for name, _ in network.named_modules() if name]
    if layer in names:
        return
    names.sort(key=lambda name: name.count("."))  # a stable sort: the order of the network
    listed = ", ".join(names[:LISTED])
    more = f" and {len(names) - LISTED} layers inside these" if len(names) > LISTED else ""
    close = difflib.get_close_matches(layer, names, n=1)
    hint = f" (did you mean {close[0]}?)" if close else ""
    raise ConfigError(
        f"features.source {source!r}: the network has no layer {layer!r}{hint}; its layers are "
        f"{listed}{more}"
    )


def output_of(network: nn.Module, layer: str, run: Callable[[], Any], source: str) -> Any:
    """Run a network up to a layer, and give the output of the layer's first call.

    Parameters
    ----------
    network : nn.Module
        The network.
    layer : str
        Dotted name of the layer.
    run : callable
        Runs the network.
    source : str
        The teacher, for messages.

    Returns
    -------
    output : Any
        What the layer returned.

    Raises
    ------
    ConfigError
        The network does not call the layer.
    """
    with _stopping_at(network.get_submodule(layer)):
        try:
            run()
        except _ReachedError as reached:
            return reached.output
    raise ConfigError(
        f"features.source {source!r}: the network never calls its layer {layer!r}; name another "
        "layer"
    )


@contextmanager
def _stopping_at(module: nn.Module) -> Iterator[None]:
    def stop(module: nn.Module, given: Any, output: Any) -> None:
        raise _ReachedError(output)

    handle = module.register_forward_hook(stop)
    try:
        yield
    finally:
        handle.remove()


def has_class_token(network: nn.Module) -> bool:
    """Whether a transformer puts a class token before the tokens of the patches."""
    names = (name.rpartition(".")[2] for name, _ in network.named_parameters())
    return any(name in _CLASS_TOKENS for name in names)


def rows_of(output: Any, *, pool: int, pooling: Pooling, class_token: bool) -> Tensor:
    """Turn the output of a layer into one row per image.

    A map is pooled to at most pool x pool cells and flattened. Of a sequence of tokens, the class
    token is taken, or the mean of all tokens if there is no class token.

    Parameters
    ----------
    output : Any
        A tensor, or a tuple or an object of transformers that holds the tensor: rows [B, d], a map
        [B, C, h, h] or [B, h, h, C], or tokens [B, n, d].
    pool : int
        Side of the pooled map.
    pooling : {"max", "mean"}
        How maps are pooled.
    class_token : bool
        Whether the first token is a class token.

    Returns
    -------
    rows : Tensor, float32 [B, d]
        The rows. An output of any other form is returned as it is.
    """
    output = getattr(output, "last_hidden_state", output)
    if isinstance(output, tuple | list) and len(output):
        output = output[0]
    if not isinstance(output, Tensor):
        return output  # type: ignore[no-any-return]  # the caller names the type in its message
    if output.ndim == 4:
        # Images are square, so the two equal sides are those of the map.
        if output.shape[1] == output.shape[2] != output.shape[3]:
            output = output.permute(0, 3, 1, 2)
        cells = min(pool, *output.shape[2:])  # pooling to more cells would repeat values
        shrink = (
            functional.adaptive_max_pool2d if pooling == "max" else functional.adaptive_avg_pool2d
        )
        output = shrink(output, cells).flatten(1)
    elif output.ndim == 3:
        output = output[:, 0] if class_token else output.mean(1)
    rows: Tensor = output.float()
    return rows


def on_pixels(values: Color) -> tuple[float, ...]:
    """Bring a mean or standard deviation of each channel from the scale 0 to 1 to that of uint8."""
    return tuple(round(255 * x, 6) for x in values)


def network_teacher(
    network: nn.Module,
    source: str,
    *,
    mean: Color,
    std: Color,
    layer: str,
    pool: int,
    pooling: Pooling,
) -> Teacher:
    """Make a teacher of a network without a classifier.

    Parameters
    ----------
    network : nn.Module
        The network, in evaluation mode.
    source : str
        The teacher, for messages.
    mean, std : tuple of float
        Mean and standard deviation of each channel of the pixels, on the scale 0 to 1.
    layer : str
        Dotted name of a layer; empty: the output of the network.
    pool : int
        Side to which the map of a layer is pooled.
    pooling : {"max", "mean"}
        How the map of a layer is pooled.

    Returns
    -------
    teacher : Teacher
        The features.
    """
    shift, spread = on_pixels(mean), on_pixels(std)
    class_token = has_class_token(network)

    @torch.inference_mode()
    def teach(images: Tensor) -> Tensor:
        pixels = normalize_channels(images, shift, spread)
        if not layer:
            features: Tensor = network(pixels)
            return features.flatten(1).float()
        output = output_of(network, layer, lambda: network(pixels), source)
        return rows_of(output, pool=pool, pooling=pooling, class_token=class_token)

    return checked(teach, source)
