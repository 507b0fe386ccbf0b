"""How to write your own pretext task: say whether a photograph is upside down.

The end of the script runs the command `ktfast pretext --pretext.task own_pretext:UpsideDown`.
The training is so short that the network hardly learns the task.
"""

import sys
import tempfile
from pathlib import Path

import torch

from ktfast.images.augment import draw, normalize_images
from ktfast.images.feeds.base import Batch
from ktfast.pretext.classifying import ClassifyingPretext


class UpsideDown(ClassifyingPretext):
    """Say whether a photograph is upside down."""

    title = "Upside down"
    lead = "Left: the photograph. Right: the photograph as the network sees it."
    answers = ("upright", "upside down")

    def questions(self, batch: Batch, epoch: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Turn half of the photographs, chosen by the sample id and the epoch."""
        labels = draw(batch.sample_ids, 2, seed=self.seed, epoch=epoch, number=100)
        turned = labels.bool()[:, None, None, None]
        images = torch.where(turned, batch.images.flip(1), batch.images)
        return normalize_images(images, "image"), labels


if __name__ == "__main__":
    from ktfast.cli.demo import write_views
    from ktfast.cli.main import main

    work = Path(tempfile.mkdtemp(prefix="ktfast-example-"))
    write_views(work / "views", {"train": 8, "test": 1})
    command = f"pretext --run {work}/run --data.pretext {work}/views/train --device cpu"
    command += " --pretext.task own_pretext:UpsideDown --data.short_side 64 --pretext.crop 64"
    command += " --transfer.image_size 64 --transfer.crop 64 --cluster.n_clusters 10"
    command += " --trunk alexnet --width 0.125 --batch_norm true --hidden 32"
    command += " --dropout 0 --training.epochs 12 --training.batch_size 16"
    sys.exit(main(command.split()) or main(["report", f"{work}/run"]))
