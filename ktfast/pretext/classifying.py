"""Tasks whose network names one of a few answers: a base class that needs little code.

A subclass says which answers there are, and turns photographs into inputs and right answers. The
network, the loss, the measure and the pictures follow from that.
"""

from abc import abstractmethod
from collections.abc import Sequence

from torch import Tensor, nn

from ktfast.images.feeds.base import Batch
from ktfast.models import Trunk
from ktfast.pretext.image_network import PhotographNet
from ktfast.pretext.pictures import Example, Panel, shown_pixels
from ktfast.pretext.protocol import Pretext
from ktfast.training.classification import label_loss
from ktfast.training.loop import StepOutput


class ClassifyingPretext(Pretext):
    """A pretext task whose network names the right one of a few answers.

    A subclass sets `title`, `lead` and `answers`, and defines the method `questions`.

    Attributes
    ----------
    answers : sequence of str
        The answers in words, such as "90 degrees". The report shows them.
    """

    answers: Sequence[str] = ()

    @property
    def chance(self) -> float:
        """Accuracy of guessing, if all answers are equally frequent."""
        return 1 / len(self.answers)

    @property
    def input_size(self) -> int:
        """Side of the squares that the network sees, pixels."""
        return self.options.crop

    @abstractmethod
    def questions(self, batch: Batch, epoch: int) -> tuple[Tensor, Tensor]:
        """Turn photographs into inputs of the network, and give the right answer of each input.

        Parameters
        ----------
        batch : Batch
            Images, `batch.images` uint8 [B, crop, crop, 3], and their sample ids.
        epoch : int
            Epoch of the random choices.

        Returns
        -------
        inputs : Tensor, float32 [B, 3, s, s] or [B, q, 3, s, s]
            One or q inputs for each image, with s = `input_size`, normalised by
            `ktfast.images.augment.normalize_images(images, "image")`.
        labels : Tensor, int64 [B] or [B, q]
            Number of the right answer of each input.
        """

    def build(self, trunk: Trunk) -> nn.Module:
        """Build a network that sees whole photographs."""
        options = self.options
        return PhotographNet(
            trunk,
            len(self.answers),
            image_size=self.input_size,
            hidden=options.hidden,
            dropout=options.dropout,
        )

    def step(self, batch: Batch, epoch: int) -> StepOutput:
        """Compute cross-entropy and accuracy of a batch."""
        inputs, labels = self._asked(batch, epoch)
        return label_loss(self.model(inputs.flatten(0, 1)), labels.flatten())

    def measure(self, batch: Batch, epoch: int) -> Tensor:
        """Share of right answers for each image, float64 [B]."""
        inputs, labels = self._asked(batch, epoch)
        right = self.model(inputs.flatten(0, 1)).argmax(1) == labels.flatten()
        share: Tensor = right.view(labels.shape).double().mean(1)
        return share

    def pictures(self, batch: Batch, epoch: int) -> Sequence[Example]:
        """Photographs, and the inputs of the network with the right answers."""
        inputs, labels = self._asked(batch, epoch)
        pixels = shown_pixels(inputs)
        photographs = batch.images.cpu().numpy()
        examples = []
        for photograph, shown, row in zip(photographs, pixels, labels.tolist(), strict=True):
            panels = [Panel(photograph, "the photograph")]
            panels += [
                Panel(picture, f"what the network sees; the right answer is {self.answers[label]}")
                for picture, label in zip(shown, row, strict=True)
            ]
            words = ", ".join(self.answers[label] for label in row)
            examples.append(Example(tuple(panels), f"right answer: {words}"))
        return examples

    def _asked(self, batch: Batch, epoch: int) -> tuple[Tensor, Tensor]:
        """Inputs [B, q, 3, s, s] and labels [B, q], with q = 1 if an image has one input."""
        inputs, labels = self.questions(batch, epoch)
        return inputs.reshape(len(batch), -1, *inputs.shape[-3:]), labels.reshape(len(batch), -1)
