"""Find the layers of a foreign network: which modules give maps, and in which order they run.

A trial on torch's meta device runs the network once and records the output of every module. No
pixel is computed.
"""

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

QUARTERS = 4
"""Number of stages of a network whose maps all have one size, such as a vision transformer."""
REFERENCE = 224
"""Side of the images for which the stages are chosen, pixels, if the network takes that size. The
maps of small images shrink to one pixel early, which would hide stages."""


@dataclass(frozen=True)
class Reading:
    """How the output of a module becomes a map [B, C, h, w].

    Attributes
    ----------
    layout : {"maps", "channels last", "tokens"}
        "maps": the output is [B, C, h, w]. "channels last": it is [B, h, w, C]. "tokens": it is
        [B, extra + h * w, D]. With a class token, the map has 2 D channels: those of the patches,
        and those of the class token repeated at each place.
    channels, side : int
        Channels and side of the map.
    extra : int
        Tokens before the patches. The first one is the class token.
    """

    layout: str
    channels: int
    side: int
    extra: int = 0

    def map_of(self, output: Tensor) -> Tensor:
        """The map [B, C, h, w] of a module's output."""
        if self.layout == "channels last":
            return output.permute(0, 3, 1, 2)
        if self.layout == "maps":
            return output
        side = math.isqrt(output.shape[1] - self.extra)
        patches = output[:, self.extra :].transpose(1, 2).reshape(len(output), -1, side, side)
        if not self.extra:
            return patches
        token = output[:, 0, :, None, None].expand(-1, -1, side, side)
        return torch.cat([patches, token], dim=1)


@dataclass(frozen=True)
class Anatomy:
    """The layers of a network for images of one size.

    Attributes
    ----------
    readings : dict of str to Reading
        How each layer is read, in the order in which the layers run.
    stages : tuple of str
        Layers that are probed unless the user names others; see `_stages`.
    starts, ends : dict of str to int
        When each module begins for the first time and ends for the last time, by its name.
    """

    readings: Mapping[str, Reading]
    stages: tuple[str, ...]
    starts: Mapping[str, int]
    ends: Mapping[str, int]

    def start(self, module: str) -> int:
        """When a module begins; a module that is not called begins with the module around it."""
        while module not in self.starts:
            module = module.rpartition(".")[0]
        return self.starts[module]


def examine(network: nn.Module, head: str, image_size: int) -> Anatomy:
    """Run a network on torch's meta device and find its layers.

    The layers are the modules at the top of the network, but not the module that holds the
    classifier. If the maps in a container (`nn.Sequential`, `nn.ModuleList`) have several sizes,
    the modules in the container are layers instead of the container.

    Parameters
    ----------
    network : nn.Module
        The network on torch's meta device.
    head : str
        Name of the classifier's last layer.
    image_size : int
        Side of the images in pixels.

    Returns
    -------
    anatomy : Anatomy
        The layers. No layer gives a map if the network is no image network that ktfast can probe.

    Raises
    ------
    AssertionError, RuntimeError, ValueError
        The network refuses images of this size.
    """
    extra = _extra_tokens(network)
    starts, ends, shapes = _trial(network, image_size)
    readings = _readings(shapes, extra)
    try:
        reference = _readings(_trial(network, REFERENCE)[2], extra)
    except (AssertionError, RuntimeError, ValueError):  # the network takes one size only
        reference = readings
    blocks = sorted(_blocks(network, head, reference), key=ends.__getitem__)
    stages = _stages(network, blocks, reference)
    if len(stages) == 1 and (repeated := _repeated(network, head, reference)):
        blocks = sorted({*blocks, *repeated}, key=ends.__getitem__)
        parts = range(1, QUARTERS + 1)
        last = (-(-len(repeated) * part // QUARTERS) - 1 for part in parts)
        stages = tuple(dict.fromkeys(repeated[number] for number in last))
    found = {name: readings[name] for name in blocks if name in readings}
    stages = tuple(name for name in stages if name in found)
    return Anatomy(found, stages, starts, ends)


def _trial(
    network: nn.Module, image_size: int
) -> tuple[dict[str, int], dict[str, int], dict[str, tuple[int, ...]]]:
    """When each module begins and ends, and the shape of its output."""
    clock = itertools.count()
    starts: dict[str, int] = {}
    ends: dict[str, int] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    handles = []

    def watch(name: str, module: nn.Module) -> None:
        def begin(*_: Any) -> None:
            starts.setdefault(name, next(clock))

        def end(module: nn.Module, inputs: Any, output: Any) -> None:
            ends[name] = next(clock)
            if isinstance(output, Tensor):
                shapes[name] = tuple(output.shape)

        handles.append(module.register_forward_pre_hook(begin))
        handles.append(module.register_forward_hook(end))

    for name, module in network.named_modules():
        watch(name, module)
    was_training = network.training
    network.eval()
    try:
        with torch.no_grad():
            network(torch.zeros(1, 3, image_size, image_size, device="meta"))
    finally:
        for handle in handles:
            handle.remove()
        network.train(was_training)
    return starts, ends, shapes


def _extra_tokens(network: nn.Module) -> int:
    """Tokens of a transformer that stand before those of the patches."""
    count = getattr(network, "num_prefix_tokens", None)
    if isinstance(count, int):
        return count
    return int(isinstance(getattr(network, "class_token", None), Tensor))


def _readings(shapes: Mapping[str, tuple[int, ...]], extra: int) -> dict[str, Reading]:
    """How each module whose output is a square map is read."""
    # [B, n, n, n] may have either layout. The other maps of the network decide.
    last = any(len(shape) == 4 and shape[1] == shape[2] != shape[3] for shape in shapes.values())
    found = {}
    for name, shape in shapes.items():
        if len(shape) == 4 and shape[1] == shape[2] and (shape[2] != shape[3] or last):
            found[name] = Reading("channels last", shape[3], shape[1])
        elif len(shape) == 4 and shape[2] == shape[3]:
            found[name] = Reading("maps", shape[1], shape[2])
        elif len(shape) == 3 and (patches := shape[1] - extra) > 0:
            side = math.isqrt(patches)
            if side**2 == patches:
                found[name] = Reading("tokens", shape[2] * (2 if extra else 1), side, extra)
    return found


def _blocks(network: nn.Module, head: str, readings: Mapping[str, Reading]) -> Iterator[str]:
    """Names of the layers; see `examine`."""
    for name, module in network.named_children():
        if head == name or head.startswith(f"{name}."):
            continue
        inner = [f"{name}.{key}" for key, _ in module.named_children()]
        inner = [key for key in inner if key in readings]
        sides = {readings[key].side for key in inner}
        if _is_container(module) and (len(sides) > 1 or name not in readings):
            yield from inner
        elif name in readings:
            yield name


def _stages(
    network: nn.Module, blocks: list[str], readings: Mapping[str, Reading]
) -> tuple[str, ...]:
    """The last layer of each size of the maps.

    Single operations at the top of the network, such as a pooling, and maps of one pixel count only
    if there is nothing else.
    """
    whole = [name for name in blocks if "." in name or any(network.get_submodule(name).children())]
    names = [name for name in whole if readings[name].side > 1] or whole or blocks
    later = [*names[1:], None]
    return tuple(
        name
        for name, after in zip(names, later, strict=True)
        if after is None or readings[after].side != readings[name].side
    )


def _repeated(network: nn.Module, head: str, readings: Mapping[str, Reading]) -> list[str]:
    """Names of the modules of the container with the most modules that give maps."""
    most: list[str] = []
    for name, module in network.named_modules():
        if not name or not _is_container(module) or head.startswith(f"{name}."):
            continue
        inner = [f"{name}.{key}" for key, _ in module.named_children()]
        found = [key for key in inner if key in readings]
        most = found if len(found) > len(most) else most
    return most


def _is_container(module: nn.Module) -> bool:
    return isinstance(module, nn.Sequential | nn.ModuleList | nn.ModuleDict)
