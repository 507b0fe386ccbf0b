"""The plain side of `ktfast bench train`: an ordinary torch script, eager, float32, NCHW.

Pillow decodes the original files in a DataLoader; transforms and layers are torchvision's, SGD is
torch's. The script has the same layers, batches and work as ktfast's side. The benchmark checks
that by counting the operations of both sides.
"""

import itertools
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.models.vgg import make_layers

from ktfast.bench.train.jobs import CLASSES, JOBS, POOL, Assignment, Clock, Job, peak_flops
from ktfast.ops.permutations import permutation_set
from ktfast.training.speed import flops_of

GRID, JITTER = 3, 18


def run(**arguments: Any) -> dict[str, Any]:
    """Do and measure an `Assignment` whose images are a list of files."""
    assignment = Assignment(**arguments)
    torch.set_num_threads(assignment.threads)
    torch.manual_seed(0)
    job, device = JOBS[assignment.job], torch.device(assignment.device)
    dataset = Puzzles if job.work == "puzzle" else Photos
    loader = DataLoader(
        dataset(assignment.images, job),
        assignment.batch,
        shuffle=job.work != "features",
        num_workers=assignment.threads,
        drop_last=True,
        pin_memory=device.type == "cuda",
        persistent_workers=True,
    )
    work = Extraction(job, device) if job.work == "features" else Training(job, device)
    example = next(iter(loader))
    few = [value[:2] for value in example]
    flops = flops_of(lambda: work.gradient(*few)) / len(few[0])
    clock = Clock(assignment)
    steps = assignment.warm_up + assignment.steps
    for images, labels in itertools.islice(_repeated(loader), steps):
        work.step(images, labels)
        clock.step_done()
    return {
        "precision": "float32",
        "way": "plain",
        "feed": "PIL DataLoader, files",
        "image_flops": flops,
        "peak_flops": peak_flops(device, torch.float32),
        **clock.measured(),
    }


def _repeated(loader: "DataLoader[Any]") -> Iterator[Any]:
    while True:
        yield from loader


class Photos(Dataset[tuple[Tensor, int]]):
    """Photographs as most training scripts read them, each with a label."""

    def __init__(self, paths: list[str], job: Job) -> None:
        self.paths = paths
        cut = (
            [transforms.RandomCrop(job.crop), transforms.RandomHorizontalFlip()]
            if job.work == "classes"
            else [transforms.CenterCrop(job.crop)]
        )
        mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
        self.transform = transforms.Compose(
            [
                transforms.Resize(job.short_side),
                transforms.CenterCrop(job.short_side),
                *cut,
                transforms.ToTensor(),
                transforms.Normalize(mean, std),
            ]
        )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, row: int) -> tuple[Tensor, int]:
        with Image.open(self.paths[row]) as image:
            return self.transform(image.convert("RGB")), row % CLASSES


class Puzzles(Dataset[tuple[Tensor, int]]):
    """Jigsaw++ puzzles in the manner of the PyTorch ports: tile by tile, with Pillow."""

    def __init__(self, paths: list[str], job: Job) -> None:
        self.paths = paths
        self.job = job
        self.permutations = permutation_set(job.permutations)
        self.square = transforms.Compose(
            [transforms.Resize(job.short_side), transforms.CenterCrop(job.crop)]
        )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, row: int) -> tuple[Tensor, int]:
        gray = random.random() < 0.7
        tiles = self._tiles(row, gray)
        if occluded := random.sample(range(GRID**2), random.randint(0, 2)):
            others = self._tiles(random.randrange(len(self)), gray)
            for slot in occluded:
                tiles[slot] = others[slot]
        label = random.randrange(len(self.permutations))
        return torch.stack([tiles[cell] for cell in self.permutations[label]]), label

    def _tiles(self, row: int, gray: bool) -> list[Tensor]:
        with Image.open(self.paths[row]) as image:
            square = self.square(image.convert("RGB"))
        if gray:
            square = square.convert("L").convert("RGB")
        cell, tile = self.job.crop // GRID, self.job.tile
        tiles = []
        for place in range(GRID**2):
            y, x = (
                cell * corner + random.randint(0, min(JITTER, cell - tile))
                for corner in divmod(place, GRID)
            )
            part = torch.from_numpy(np.array(square.crop((x, y, x + tile, y + tile)))).float()
            tiles.append(((part - part.mean()) / part.std().clamp(min=1)).permute(2, 0, 1))
        return tiles


class Training:
    """A network that SGD trains on batches."""

    def __init__(self, job: Job, device: torch.device) -> None:
        self.device = device
        self.model = (PuzzleNet(job) if job.work == "puzzle" else alexnet(job)).to(device)
        self.optimizer = torch.optim.SGD(
            self.model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4
        )

    def gradient(self, images: Tensor, labels: Tensor) -> None:
        """Forward and backward pass."""
        logits = self.model(images.to(self.device))
        loss = functional.cross_entropy(logits, labels.to(self.device))
        torch.autograd.backward(loss)

    def step(self, images: Tensor, labels: Tensor) -> None:
        """One step of SGD."""
        self.optimizer.zero_grad()
        self.gradient(images, labels)
        self.optimizer.step()


class Extraction:
    """A trunk that extracts features of batches into main memory."""

    def __init__(self, job: Job, device: torch.device) -> None:
        self.device = device
        self.model = vgg_trunk(job).to(device).eval()
        self.features: list[Tensor] = []

    @torch.no_grad()
    def gradient(self, images: Tensor, _: Tensor) -> Tensor:
        """Forward pass; an extraction has no gradient."""
        return functional.adaptive_max_pool2d(self.model(images.to(self.device)), POOL).flatten(1)

    def step(self, images: Tensor, labels: Tensor) -> None:
        """Extract the features of a batch."""
        self.features.append(self.gradient(images, labels).half().cpu())


class PuzzleNet(nn.Module):
    """The puzzle network over VGG-16."""

    def __init__(self, job: Job) -> None:
        super().__init__()
        per_tile, hidden = job.units
        flat = round(512 * job.width) * POOL**2
        self.trunk = nn.Sequential(vgg_trunk(job), nn.AdaptiveMaxPool2d(POOL), nn.Flatten())
        self.tile = nn.Sequential(nn.Linear(flat, per_tile), nn.ReLU(inplace=True), nn.Dropout())
        self.classifier = nn.Sequential(
            nn.Linear(GRID**2 * per_tile, hidden),
            nn.ReLU(inplace=True),
            nn.Dropout(),
            nn.Linear(hidden, job.permutations),
        )

    def forward(self, tiles: Tensor) -> Tensor:
        """Logits of tiles [B, 9, 3, t, t]."""
        encoded = self.tile(self.trunk(tiles.flatten(0, 1)))
        logits: Tensor = self.classifier(encoded.view(len(tiles), -1))
        return logits


def vgg_trunk(job: Job) -> nn.Module:
    """VGG-16 up to conv4_3, of torchvision's layers."""
    plan = (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512)
    widths = [value if value == "M" else round(int(value) * job.width) for value in plan]
    trunk: nn.Module = make_layers(widths, batch_norm=job.batch_norm)
    return trunk


def alexnet(job: Job) -> nn.Module:
    """Caffe's AlexNet of torch's layers."""
    wide = [round(width * job.width) for width in (96, 256, 384, 384, 256, 4096)]

    def convolution(before: int, after: int, *shape: int, groups: int = 1) -> list[nn.Module]:
        kernel, stride, padding = shape
        layer = nn.Conv2d(before, after, kernel, stride, padding, groups=groups)
        norm = [nn.BatchNorm2d(after)] if job.batch_norm else []
        return [layer, *norm, nn.ReLU(inplace=True)]

    def pool() -> nn.Module:
        return nn.MaxPool2d(3, 2, ceil_mode=True)

    lrn = [] if job.batch_norm else [nn.LocalResponseNorm(5)]
    features = nn.Sequential(
        *convolution(3, wide[0], 11, 4, 0),
        *(pool(), *lrn),
        *convolution(wide[0], wide[1], 5, 1, 2, groups=2),
        *(pool(), *lrn),
        *convolution(wide[1], wide[2], 3, 1, 1),
        *convolution(wide[2], wide[3], 3, 1, 1, groups=2),
        *convolution(wide[3], wide[4], 3, 1, 1, groups=2),
        *(pool(), nn.Flatten()),
    )
    flat = features(torch.zeros(2, 3, job.crop, job.crop)).shape[1]
    return nn.Sequential(
        features,
        *(nn.Linear(flat, wide[5]), nn.ReLU(inplace=True), nn.Dropout()),
        *(nn.Linear(wide[5], wide[5]), nn.ReLU(inplace=True), nn.Dropout()),
        nn.Linear(wide[5], CLASSES),
    )
