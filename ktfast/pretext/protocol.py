"""What a pretext task has to do: build a network, one step, a held-out measure, and pictures.

`ktfast.pretext.registry` lists the tasks that ktfast ships. A task of a user is a subclass of
`Pretext`, or of `ktfast.pretext.classifying.ClassifyingPretext`, which needs less code. The option
`pretext.task` names the task.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy.typing as npt
from torch import Tensor, nn

from ktfast.config import PretextConfig
from ktfast.images.feeds.base import Batch
from ktfast.models import Trunk
from ktfast.pretext.pictures import Example
from ktfast.training.loop import StepOutput

_REMEDY = (
    "Raise pretext.training.epochs, or change pretext.training.learning_rate. "
    "pretext.stop_at_chance ends such a training"
)


class Pretext(ABC):
    """A pretext task, and the network that learns the task.

    A subclass defines `build`, `step`, `measure` and `pictures`. All random choices must follow
    from the seed, the epoch and the sample ids of a batch, so that a resumed training equals an
    uninterrupted one. Use `ktfast.images.augment.draw` for such choices.

    Parameters
    ----------
    trunk : Trunk
        Convolutional network that learns the task. Its layers after `last_layer` are dropped.
    options : PretextConfig
        Options of the section `pretext`.
    seed : int
        Seed of every random choice of the task.
    n_threads : int, optional
        Number of CPU threads that prepare images. None: one per core of this process.

    Attributes
    ----------
    model : nn.Module
        The network that `build` returned.
    trunk : Trunk
        The trunk. A run stores the weights of the trunk and computes features with them.
    title : str
        Name of the task in the report.
    lead : str
        Sentences of the report that say what the pictures show and what the network must do.
    legend : mapping of str to str
        What the squares on the pictures mean. The keys are "square" and "marked".
    measure_name : str
        What `measure` measures, in one word.
    remedy : str
        What a user can do about a network that is no better than guessing.
    conv1_stride : int
        Stride of the first layer of AlexNet: 4 for whole photographs, 2 for small tiles.
    fewest_images : int
        Least number of images that the task needs.
    """

    title: str = ""
    lead: str = ""
    legend: Mapping[str, str] = {}
    measure_name: str = "accuracy"
    remedy: str = _REMEDY
    conv1_stride: int = 4
    fewest_images: int = 1

    def __init__(
        self, trunk: Trunk, options: PretextConfig, *, seed: int, n_threads: int | None = None
    ) -> None:
        self.options = options
        self.seed = seed
        self.n_threads = n_threads
        self.trunk = trunk
        trunk.truncate(self.last_layer(trunk))
        self.model = self.build(trunk)

    @classmethod
    def last_layer(cls, trunk: Trunk) -> str:
        """Name the last trunk layer that learns the task. By default: the trunk's last layer."""
        return trunk.layers[-1]

    @property
    def chance(self) -> float | None:
        """Accuracy of guessing, in [0, 1]. None: `measure` gives no accuracy."""
        return None

    @abstractmethod
    def build(self, trunk: Trunk) -> nn.Module:
        """Build the network that learns the task: the trunk and a head.

        ktfast then draws the first weights of all convolutions and fully connected layers
        (`ktfast.models.initialize`).

        Parameters
        ----------
        trunk : Trunk
            The trunk, which must be a part of the network.

        Returns
        -------
        network : nn.Module
            The network. Its `forward` takes one tensor, so that it can be compiled.
        """

    @abstractmethod
    def step(self, batch: Batch, epoch: int) -> StepOutput:
        """Compute the loss of a batch.

        Parameters
        ----------
        batch : Batch
            Images, `batch.images` uint8 [B, crop, crop, 3], and their sample ids.
        epoch : int
            Epoch of the random choices.

        Returns
        -------
        output : StepOutput
            The loss, and metrics such as the accuracy. Loss and metrics must be means over the
            batch, because the training may split a batch to save memory.
        """

    @abstractmethod
    def measure(self, batch: Batch, epoch: int) -> Tensor:
        """Measure the network on images that it was not trained on.

        Parameters
        ----------
        batch : Batch
            Images and sample ids.
        epoch : int
            Epoch of the random choices. Training never reaches this epoch.

        Returns
        -------
        values : Tensor [B]
            One number or truth value for each image. ktfast reports the mean.
        """

    @abstractmethod
    def pictures(self, batch: Batch, epoch: int) -> Sequence[Example]:
        """Draw what the network sees, for the report.

        Parameters
        ----------
        batch : Batch
            A few images.
        epoch : int
            Epoch of the random choices.

        Returns
        -------
        examples : sequence of Example
            Examples with equally many panels. The n-th panels of all examples have one size.
        """

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Give the arrays that a run stores beside the weights, by file name."""
        return {}
