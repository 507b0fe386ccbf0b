"""Train the named variants of the linear probe (`evaluate.protocols`) on frozen layers."""

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ktfast.config import TrainingConfig
from ktfast.durable import write_sealed
from ktfast.evaluation.accuracy import mean_per_class_accuracy, top1_accuracy
from ktfast.evaluation.protocols import (
    BATCH_SIZE,
    LEARNING_RATE,
    MOMENTUM,
    VARIANTS,
    LinearHead,
    Variant,
    ten_crops,
)
from ktfast.evaluation.results import VariantRow
from ktfast.images.augment import center_crop
from ktfast.images.feeds.base import Batch
from ktfast.images.random_views import RandomViews
from ktfast.models import TargetNetwork
from ktfast.pipeline.environment import resolve_device
from ktfast.pipeline.question import as_json
from ktfast.pipeline.run_folder import RunFolder
from ktfast.pipeline.stage_result import stored_row
from ktfast.pipeline.steps.begun_trainings import begun_training
from ktfast.pipeline.steps.image_sets import open_feed, open_set
from ktfast.pipeline.steps.labelled_sets import LabelledSet, labels_of
from ktfast.pipeline.steps.probed_models import ProbedNetwork, probed_network
from ktfast.pipeline.steps.questions import probe_question
from ktfast.pipeline.steps.train_networks import train_task
from ktfast.training.classification import evaluating
from ktfast.training.loop import StepOutput


class FrozenLayers(nn.Module):
    """A frozen network with a linear classifier on each of several layers.

    Parameters
    ----------
    trunk : TargetNetwork
        The network. It stays in evaluation mode.
    heads : dict of str to LinearHead
        Classifier by layer.
    """

    def __init__(self, trunk: TargetNetwork, heads: dict[str, LinearHead]) -> None:
        super().__init__()
        self.trunk = trunk.requires_grad_(False)
        self.layers = tuple(heads)
        self.heads = nn.ModuleList(heads.values())

    def train(self, mode: bool = True) -> "FrozenLayers":
        """Set training or evaluation mode of the classifiers."""
        super().train(mode)
        self.trunk.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Logits [layers, B, n_classes] of images x [B, 3, H, W]."""
        with torch.no_grad():
            maps = self.trunk.features_all(x, self.layers)
        found = [
            head(maps[layer].float()).float()
            for layer, head in zip(self.layers, self.heads, strict=True)
        ]
        return torch.stack(found)


class FrozenLayersTask:
    """Training task: the classifiers of all layers learn the classes from random views."""

    def __init__(
        self,
        model: FrozenLayers,
        network: ProbedNetwork,
        labels: Tensor,
        seed: int,
        *,
        random_crops: bool,
    ) -> None:
        self.model = model
        self.network = network
        self.labels = labels
        self.random_crops = random_crops
        self.views = RandomViews(network.crop, True, seed)

    def step(self, batch: Batch, epoch: int) -> StepOutput:
        """Sum over the layers of the cross-entropy, and the accuracy of the last layer."""
        images = batch.images
        if not self.random_crops:
            images = center_crop(images, self.network.crop)
        images = self.views(images, batch.sample_ids, epoch)
        self.labels = self.labels.to(images.device)
        labels = self.labels[batch.rows.to(images.device, non_blocking=True)]
        logits = self.model(self.network.normalize(images))
        losses = [functional.cross_entropy(each, labels) for each in logits]
        accuracy = (logits[-1].detach().argmax(1) == labels).float().mean()
        return StepOutput(torch.stack(losses).sum(), {"accuracy": accuracy})


def stored_variant(
    run: RunFolder, folder: Path, variant: str, name: str, images: LabelledSet
) -> VariantRow:
    """Give a variant's accuracies of a network; train the classifiers of layers that are missing.

    Parameters
    ----------
    run : RunFolder
        The run.
    folder : Path
        Folder of the stage evaluate.
    variant : str
        Name of the variant.
    name : str
        Name of the network.
    images : LabelledSet
        Training and test images.

    Returns
    -------
    row : VariantRow
        Accuracies by layer.
    """
    network = probed_network(run, name)
    title = f"{variant}-{images.file_of(name)}"
    path = folder / f"protocol-{title}.json"
    asked: dict[str, Any] = as_json(probe_question(run, name, images))
    asked["variant"] = VARIANTS[variant].details(run.config.evaluate.probe_epochs)
    stored = stored_row(path)
    known = VariantRow({}, {}, {})
    if stored is not None and stored.get("asked") == asked:
        known = VariantRow.from_json(stored)
    missing = [layer for layer in network.layers if layer not in known.linear]
    if missing:
        of_training = {**asked, "layers": missing}
        with begun_training(folder / f"training-{title}", of_training) as checkpoints:
            found = _train(run, checkpoints, VARIANTS[variant], network, images, missing)
            known = VariantRow(
                {**known.linear, **found.linear}, {**known.top1, **found.top1}, found.protocol
            )
            write_sealed(path, {**known.to_json(), "asked": asked})
    return known.of(network.layers)


def _train(
    run: RunFolder,
    folder: Path,
    variant: Variant,
    network: ProbedNetwork,
    images: LabelledSet,
    layers: Sequence[str],
) -> VariantRow:
    """Train a classifier on each layer, and test the classifiers."""
    seed, epochs = run.config.seed, run.config.evaluate.probe_epochs
    source = open_set(run, images.train)
    heads = {
        layer: LinearHead(
            variant,
            network.shape.channels[layer],
            network.shape.side(network.crop, layer),
            n_classes=len(source.classes),
            # A layer has the same initial weights whichever layers are trained beside it.
            seed=zlib.crc32(f"{seed} {layer}".encode()),
        )
        for layer in layers
    }
    model = FrozenLayers(network.build(), heads)
    labels = torch.from_numpy(labels_of(run, images.train, images))
    task = FrozenLayersTask(model, network, labels, seed, random_crops=variant.random_crops)
    training = TrainingConfig(
        epochs=epochs,
        batch_size=min(BATCH_SIZE, source.n),
        learning_rate=LEARNING_RATE,
        momentum=MOMENTUM,
        bias_rate=1.0,
        weight_decay=variant.weight_decay,
        schedule="step" if variant.drops else "constant",
        compile=False,
        cuda_graphs=False,
        deterministic=run.config.transfer.training.deterministic,
    )
    training_name = f"{variant.name}_{images.file_of(network.name)}"
    with open_feed(
        run,
        source,
        size=network.image_size,
        batch_size=training.batch_size,
        shuffle=True,
    ) as feed:
        train_task(run, task, feed, training, folder, name=training_name)
    truth = labels_of(run, images.test, images)
    guesses = _guesses(run, variant, model, network, images)
    return VariantRow(
        linear={k: mean_per_class_accuracy(truth, guess) for k, guess in guesses.items()},
        top1={k: top1_accuracy(truth, guess) for k, guess in guesses.items()},
        protocol=variant.details(epochs),
    )


@torch.inference_mode()
def _guesses(
    run: RunFolder,
    variant: Variant,
    model: FrozenLayers,
    network: ProbedNetwork,
    images: LabelledSet,
) -> dict[str, Any]:
    """Predicted class of each test image, int64 [n], by layer."""
    source, device = open_set(run, images.test), torch.device(resolve_device(run.config.device))
    guesses = np.zeros((len(model.layers), source.n), np.int64)
    model.to(device)
    with (
        evaluating(model),
        open_feed(run, source, size=network.image_size, batch_size=64, shuffle=False) as feed,
    ):
        for batch in feed.epoch(0):
            pixels = batch.images.to(device)
            views = [center_crop(pixels, network.crop)]
            if variant.crops == 10:
                views = ten_crops(pixels, network.crop)
            chances = sum(
                functional.softmax(model(network.normalize(view)), dim=-1) for view in views
            )
            assert isinstance(chances, Tensor)
            guesses[:, np.asarray(batch.rows.cpu())] = chances.argmax(-1).cpu().numpy()
    return dict(zip(model.layers, guesses, strict=True))
