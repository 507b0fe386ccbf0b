"""A pretext task of one's own: name the order of the colour channels of a photograph.

The end of the script runs the command `ktfast pretext --pretext.task own_pretext:ChannelOrder`.
"""

import sys
import tempfile
from pathlib import Path

import torch

from ktfast.images.augment import draw, normalize_images
from ktfast.images.feeds.base import Batch
from ktfast.pretext.classifying import ClassifyingPretext

ORDERS = torch.tensor([[0, 1, 2], [1, 2, 0], [2, 0, 1]])


class ChannelOrder(ClassifyingPretext):
    """Name which of three orders the colour channels have."""

    title = "Channel order"
    lead = "Left: the photograph. Right: the photograph with its colour channels in another order."
    answers = ("red, green, blue", "green, blue, red", "blue, red, green")

    def questions(self, batch: Batch, epoch: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Reorder the channels of each photograph by its sample id and the epoch."""
        labels = draw(batch.sample_ids, 3, seed=self.seed, epoch=epoch, number=100)
        orders = ORDERS.to(batch.images.device)[labels]
        channels = orders[:, None, None, :].expand(batch.images.shape)
        return normalize_images(batch.images.gather(3, channels), "image"), labels


if __name__ == "__main__":
    from ktfast.cli.demo import write_views
    from ktfast.cli.main import main

    work = Path(tempfile.mkdtemp(prefix="ktfast-example-"))
    write_views(work / "views", {"train": 8, "test": 1})
    command = f"pretext --run {work}/run --data.pretext {work}/views/train --device cpu"
    command += " --pretext.task own_pretext:ChannelOrder --data.short_side 64 --pretext.crop 64"
    command += " --transfer.image_size 64 --transfer.crop 64 --cluster.n_clusters 10"
    command += " --trunk alexnet --width 0.125 --batch_norm true --hidden 32"
    command += " --training.epochs 4 --training.batch_size 16"
    sys.exit(main(command.split()) or main(["report", f"{work}/run"]))
