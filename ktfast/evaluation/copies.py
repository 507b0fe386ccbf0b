"""Test images whose content is also that of a training image: what such a test measures is known.

A probe that has learnt from a copy of a test image can remember the answer.
"""

from dataclasses import dataclass

from ktfast.errors import shown
from ktfast.evaluation.json_values import Json, mapping, number


@dataclass(frozen=True)
class Copies:
    """Test images that have the content of images of another folder.

    Attributes
    ----------
    test, other : str
        Options that give the two folders, such as "data.test" and "data.pretext".
    n : int
        Number of test images that have a copy in the other folder.
    tested : int
        Number of all test images.
    first, copy : str
        The first of these test images, and its copy in the other folder, as relative paths.
    labelled : bool
        Whether the other folder gives the labelled images of the training.
    """

    test: str
    other: str
    n: int
    tested: int
    first: str
    copy: str
    labelled: bool

    def sentence(self) -> str:
        """Say how many images are copies, what follows, and how to avoid the copies."""
        what = "has the content of an image" if self.n == 1 else "are copies of images"
        found = (
            f"{self.n} of the {self.tested} {self.test} images {what} of {self.other}: "
            f"{shown(self.first)}"
        )
        if self.copy != self.first:
            found += f" is a copy of {shown(self.copy)}"
        found += ", for example. " if self.n > 1 else ". "
        if not self.labelled:
            return found + "The networks learnt from these images before the test, without labels."
        return found + (
            "The accuracies on the test images are too high, because the training shows these "
            "images with their labels; remove the images from one of the two folders."
        )

    def to_json(self) -> Json:
        """JSON object of the attributes, with file names as they are printed."""
        return {**vars(self), "first": shown(self.first), "copy": shown(self.copy)}

    @classmethod
    def from_json(cls, value: object) -> "Copies | None":
        """Read what `to_json` returned; None if a value is missing or of another type."""
        known = mapping(value)
        n, tested = number(known.get("n")), number(known.get("tested"))
        texts = [known.get(key) for key in ("test", "other", "first", "copy")]
        if n is None or tested is None or not all(isinstance(text, str) for text in texts):
            return None
        test, other, first, copy = map(str, texts)
        return cls(test, other, int(n), int(tested), first, copy, known.get("labelled") is True)


def copies_of(value: object) -> list[Copies]:
    """Read a list of what `Copies.to_json` returned; leave out what cannot be read."""
    found = map(Copies.from_json, value) if isinstance(value, list) else ()
    return [copies for copies in found if copies is not None]
