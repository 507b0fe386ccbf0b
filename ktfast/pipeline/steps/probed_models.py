"""The networks that the stage evaluate probes: the run's own, and the files of `evaluate.models`.

The own networks are the transferred network and its baselines. A run folder without a stage
transfer has no own networks, so that weights of any origin can be probed in a folder of their own.
"""

import functools
import json
import logging
import os
from collections.abc import Callable, Collection, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ktfast.config import Config
from ktfast.config.protocols import ModelFile
from ktfast.durable import sha256_file, sha256_json
from ktfast.errors import ConfigError, DataError, reading, shown
from ktfast.images.augment import Normalization, normalize_channels, normalize_images
from ktfast.models import TargetNetwork, Trunk, build_target, initialize
from ktfast.models.libraries import LIBRARIES
from ktfast.models.weight_files import read_header, read_state
from ktfast.pipeline.environment import resolve_device
from ktfast.pipeline.question import Input
from ktfast.pipeline.run_folder import RunFolder
from ktfast.pipeline.steps.networks import HEADER, WEIGHTS, load_all, target_network

logger = logging.getLogger(__name__)

Described = dict[str, Any]
"""Name and options of a network, and the preprocessing of its images, as JSON values."""


@dataclass(frozen=True)
class ProbedNetwork:
    """A network to probe.

    Attributes
    ----------
    name : str
        Name of the network in results.
    layers : tuple of str
        The layers to probe.
    shape : TargetNetwork
        The network on torch's meta device, which tells the sizes of maps.
    image_size : int
        Side of the central square of the prepared images from which crops are cut, pixels.
    crop : int
        Side of the square that the network sees, pixels.
    normalize : callable
        Turns images uint8 [B, H, W, 3] into the network's input float [B, 3, H, W].
    build : callable
        Builds the network with its weights, on the CPU.
    fresh : callable
        Builds the network with random weights and a classifier, from the number of classes.
    weights : callable
        Reads all stored weights, also those of a classifier; empty for random weights.
    """

    name: str
    layers: tuple[str, ...]
    shape: TargetNetwork
    image_size: int
    crop: int
    normalize: Callable[[Tensor], Tensor]
    build: Callable[[], TargetNetwork]
    fresh: Callable[[int], TargetNetwork]
    weights: Callable[[], Mapping[str, Tensor]]

    def load(self, run: RunFolder) -> TargetNetwork:
        """Build the network with its weights on the device of the run, in evaluation mode."""
        return self.build().to(resolve_device(run.config.device)).eval()


def stands_alone(run: RunFolder, stages: Collection[str] = ()) -> bool:
    """Say whether the run probes the files of `evaluate.models` only: it has no stage transfer.

    Parameters
    ----------
    run : RunFolder
        The run.
    stages : collection of str
        Stages that will be run first. With the stage transfer, the run does not stand alone.

    Returns
    -------
    alone : bool
        Whether the run has no own networks.
    """
    own = "transfer" in stages or run.stage("transfer").exists()
    return bool(run.config.evaluate.models) and not own


def own_models(run: RunFolder, stages: Collection[str] = ()) -> tuple[str, ...]:
    """Name the run's own networks that are probed; arguments as in `stands_alone`.

    Without `data.test`, the baselines that would be trained or measured on labels are left out.
    """
    config = run.config
    if stands_alone(run, stages):
        return ()
    baselines = config.evaluate.baselines
    if config.data.test is None:
        baselines = tuple(name for name in baselines if name == "random")
    return ("transfer", *baselines)


def probed_network(run: RunFolder, name: str) -> ProbedNetwork:
    """Describe one of the networks of `own_models` or of `evaluate.models`.

    Parameters
    ----------
    run : RunFolder
        The run.
    name : str
        Name of the network.

    Returns
    -------
    network : ProbedNetwork
        The network. Its weights are read when `build` is called.

    Raises
    ------
    ConfigError
        The network cannot be built, or its weights belong to another network.
    DataError
        The file of the weights is missing or damaged.
    """
    config = run.config
    if name in config.evaluate.models:
        return _network_of_file(config, name, config.evaluate.models[name])
    with torch.device("meta"):
        shape = target_network(config.transfer, 0)
    return ProbedNetwork(
        name=name,
        layers=probed_layers(config, shape),
        shape=shape,
        image_size=config.transfer.image_size,
        crop=config.transfer.crop,
        normalize=partial(normalize_images, how=_normalization_of(config, name)),
        build=partial(_own_network, run, name),
        fresh=partial(target_network, config.transfer),
        weights=partial(_own_weights, run, name),
    )


def probed_layers(config: Config, model: TargetNetwork) -> tuple[str, ...]:
    """The layers to probe: `evaluate.layers`, or the stages of the network."""
    return config.evaluate.layers or model.stages


def _normalization_of(config: Config, name: str) -> Normalization:
    """Give the normalisation of the images of one of the run's own networks."""
    return "image" if name == "pretext" else config.transfer.normalization


def load_model(run: RunFolder, name: str) -> tuple[TargetNetwork, Normalization]:
    """Load one of the run's own networks without its classifier.

    Parameters
    ----------
    run : RunFolder
        The run.
    name : str
        Name of the network: "transfer" or a baseline.

    Returns
    -------
    model : TargetNetwork
        The network on the device of the run, in evaluation mode.
    normalization : str
        The normalisation of its images.
    """
    model = _own_network(run, name).to(resolve_device(run.config.device)).eval()
    return model, _normalization_of(run.config, name)


def _own_network(run: RunFolder, name: str) -> TargetNetwork:
    torch.manual_seed(run.config.seed)
    model = target_network(run.config.transfer, 0)
    if name != "random":
        stage = name if name == "transfer" else f"baseline_{name}"
        load_all(model, run.artifact(stage, WEIGHTS))
    return model


def _own_weights(run: RunFolder, name: str) -> Mapping[str, Tensor]:
    stage = name if name == "transfer" else f"baseline_{name}"
    return {} if name == "random" else read_state(run.artifact(stage, WEIGHTS))


def model_key(config: Config, name: str) -> str:
    """Hash everything on which the features of an entry of `evaluate.models` depend."""
    options = config.evaluate.models[name]
    content = f"seed {config.seed}" if options.file is None else _content(options.file)
    described = options.model_dump(mode="json", exclude={"file", "layers"})
    # transfer.crop is the crop of a network for which neither file nor library gives one.
    return sha256_json([content, described, config.transfer.crop])


def model_input(config: Config, name: str) -> Input:
    """Describe an entry of `evaluate.models` as an input of the stage evaluate."""
    options = config.evaluate.models[name]
    text = f"the network {options.network} with random weights"
    if options.file is not None:
        text = f"the weights in {shown(options.file)}"
    return Input(sha256_json([model_key(config, name), options.layers]), text)


def _content(path: Path) -> str:
    """Hash of a file's content; computed again only if time or size of the file changed."""
    with reading(path, "a weight file", "give the path of an existing file of weights"):
        state = os.stat(path)
        return _hash(path, state.st_size, state.st_mtime_ns)


@functools.lru_cache(maxsize=64)
def _hash(path: Path, size: int, mtime_ns: int) -> str:
    return sha256_file(path)


def described_in(path: Path) -> Described:
    """Read the description of a network that ktfast writes into the header of a weight file.

    Parameters
    ----------
    path : Path
        File of weights.

    Returns
    -------
    facts : dict
        The description; empty if the file has none.

    Raises
    ------
    DataError
        The file is missing or damaged.
    """
    with reading(path, "a weight file", "give another file of weights"):
        facts = json.loads(read_header(path, HEADER) or "{}")
    if not isinstance(facts, dict) or not isinstance(facts.get("trunk"), str):
        return {}
    whole = all(isinstance(facts.get(name, {}), dict) for name in ("options", "preprocessing"))
    return {"options": {}, **facts} if whole else {}


def build_described(facts: Described) -> TargetNetwork:
    """Build a network from its description, without a classifier and with random weights."""
    network = build_target(facts["trunk"], **{**facts["options"], "n_classes": 0})
    if isinstance(network, Trunk):
        initialize(network)
        network.truncate(facts.get("last_layer") or network.last_layer)
    return network


def _fresh_described(facts: Described, n_classes: int) -> TargetNetwork:
    """Build a network from its description with random weights and a classifier."""
    options = {"image_size": facts["preprocessing"]["crop"], **facts["options"]}
    network = build_target(facts["trunk"], **{**options, "n_classes": n_classes})
    if isinstance(network, Trunk):
        initialize(network)
    return network


def _file_weights(path: Path | None) -> Mapping[str, Tensor]:
    return {} if path is None else read_state(path)


def _network_of_file(config: Config, name: str, options: ModelFile) -> ProbedNetwork:
    """Describe an entry of `evaluate.models`."""
    place, remedy = f"evaluate.models.{name}", "give another file of weights"
    file = nullcontext() if options.file is None else reading(options.file, "weights", remedy)
    try:
        with file, torch.device("meta"):
            facts = _facts(config, place, options)
            shape = build_described(facts)
    except (ConfigError, DataError) as error:
        named = str(error).startswith(place)
        raise error if named else type(error)(f"{place}: {error}") from error
    seen = facts["preprocessing"]
    normalize, pixels = partial(normalize_images, how=seen["normalization"]), seen.get("pixels")
    if pixels is not None:
        mean, std = (tuple(255 * value for value in values) for values in pixels)
        normalize = partial(normalize_channels, mean=mean, std=std)
    return ProbedNetwork(
        name=name,
        layers=_layers_of_file(config, place, options, shape),
        shape=shape,
        image_size=seen["image_size"],
        crop=seen["crop"],
        normalize=normalize,
        build=partial(_file_network, options.file, facts, config.seed),
        fresh=partial(_fresh_described, facts),
        weights=partial(_file_weights, options.file),
    )


def _file_network(path: Path | None, facts: Described, seed: int) -> TargetNetwork:
    torch.manual_seed(seed)
    network = build_described(facts)
    if path is not None:
        load_all(network, path)
    return network


def _facts(config: Config, place: str, options: ModelFile) -> Described:
    """Describe the network of an entry, by its file or else by its option `network`."""
    found = {} if options.file is None else described_in(options.file)
    if not found and not options.network:
        raise ConfigError(
            f"{place}: {shown(options.file or '')} does not say of which network it holds the "
            f"weights; name the network, such as {place} = "
            '{ file = "...", network = "torchvision:resnet18" }'
        )
    if found and options.network not in ("", found.get("trunk")):
        raise ConfigError(
            f"{place}: network is {options.network}, but {shown(options.file or '')} holds weights "
            f"of {found.get('trunk')}; leave {place}.network out"
        )
    facts: Described = found or {"trunk": options.network, "options": {}}
    seen = _preprocessing(config, options, facts)
    if seen["image_size"] > config.data.short_side:
        raise ConfigError(
            f"{place}: the network sees squares of {seen['image_size']} px, but the shorter side "
            f"of the prepared images has {config.data.short_side} px; raise data.short_side, or "
            f"give a smaller {place}.crop"
        )
    built = {**facts["options"], **({"image_size": seen["crop"]} if ":" in facts["trunk"] else {})}
    return {**facts, "options": built, "preprocessing": seen}


def _preprocessing(config: Config, options: ModelFile, facts: Described) -> dict[str, Any]:
    """Give the preprocessing of a network's images; options of the user come first."""
    stored = facts.get("preprocessing", {})
    library, _, network = facts["trunk"].partition(":")
    known = LIBRARIES.get(library)
    if known is not None:
        known.check(network)
    own_size = known.own_size(network) if known and not stored else 0
    crop = options.crop or stored.get("crop") or own_size or config.transfer.crop
    normalization = options.normalization
    seen = {"crop": crop, "image_size": max(crop, stored.get("image_size", 0))}
    if normalization == "auto":
        normalization = stored.get("normalization", "imagenet")
        if normalization == "range":
            raise ConfigError(
                "the network was trained on arrays (transfer.channels), and evaluate.models are "
                "probed on photographs; leave it out"
            )
        if known is not None and not stored and (pixels := known.pixels(network)):
            seen["pixels"] = pixels
    return {**seen, "normalization": normalization}


def _layers_of_file(
    config: Config, place: str, options: ModelFile, network: TargetNetwork
) -> tuple[str, ...]:
    """The layers of an entry that are probed; unknown names of the entry are refused."""
    if unknown := sorted(set(options.layers) - set(network.layers)):
        raise ConfigError(
            f"{place}.layers: {unknown[0]!r} is unknown; the network has "
            f"{', '.join(network.layers)}"
        )
    asked = config.evaluate.layers
    if not options.layers and set(asked) <= set(network.layers):
        return asked or network.stages
    return options.layers or network.stages


def check_model_files(run: RunFolder) -> None:
    """Check the files of `evaluate.models` before anything is computed.

    Raises
    ------
    ConfigError, DataError
        A file is missing or damaged, or does not fit its network or the prepared images.
    """
    config = run.config
    for name, options in config.evaluate.models.items():
        place, network = f"evaluate.models.{name}", probed_network(run, name)
        for layer in network.layers:
            if network.shape.side(network.crop, layer) < 1:
                raise ConfigError(
                    f"{place}: squares of {network.crop} px are too small for layer {layer}; give "
                    f"a larger {place}.crop"
                )
        if options.file is None:
            continue
        try:
            load_all(network.shape, options.file)
        except (ConfigError, DataError) as error:
            raise type(error)(f"{place}: {error}") from error
        trained_at = described_in(options.file).get("preprocessing", {}).get("short_side")
        if trained_at not in (None, config.data.short_side) and place not in run.warned:
            run.warned.add(place)
            logger.warning(
                "%s: the network was trained on images with a shorter side of %s px, and sees "
                "images with one of %d px here; set data.short_side to %s for the same scale",
                place,
                trained_at,
                config.data.short_side,
                trained_at,
            )
