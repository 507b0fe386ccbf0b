"""Pictures of a pretext task for the report: examples, their panels, and how a run stores them."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ktfast.errors import DataError, InputError

if TYPE_CHECKING:  # the report reads pictures without torch
    from torch import Tensor


@dataclass(frozen=True)
class Square:
    """A square on a panel, in pixels.

    Attributes
    ----------
    x, y : int
        Left and upper edge.
    side : int
        Side of the square.
    text : str
        Text in the square, such as a number.
    drawn : bool
        Draw the edges of the square.
    marked : bool
        Draw the edges and the text in the colour that the report uses for warnings.
    """

    x: int
    y: int
    side: int
    text: str
    drawn: bool = True
    marked: bool = False


@dataclass(frozen=True)
class Panel:
    """One picture of an example.

    Attributes
    ----------
    pixels : array, uint8 [h, w, 3]
        RGB pixels.
    alt : str
        What the panel shows, for readers who do not see it.
    squares : tuple of Square
        Squares on the picture.
    gaps : tuple of (int, int, int, int)
        Rectangles (x, y, width, height) that show the colour of the page, such as the gaps between
        tiles.
    """

    pixels: npt.NDArray[np.uint8]
    alt: str
    squares: tuple[Square, ...] = ()
    gaps: tuple[tuple[int, int, int, int], ...] = ()


@dataclass(frozen=True)
class Example:
    """One example of a task: panels side by side above a caption."""

    panels: tuple[Panel, ...]
    caption: str


def shown_pixels(inputs: "Tensor") -> npt.NDArray[np.uint8]:
    """Convert normalised images to pixels.

    Parameters
    ----------
    inputs : Tensor [..., 3, h, w]
        Images with mean 0 and standard deviation 1.

    Returns
    -------
    pixels : array, uint8 [..., h, w, 3]
        Pixels. 0 and 255 stand for two standard deviations below and above the mean.
    """
    scaled = inputs.detach().movedim(-3, -1).float() * 63.75 + 127.5
    pixels: npt.NDArray[np.uint8] = scaled.clamp(0, 255).byte().cpu().numpy()
    return pixels


def packed(
    examples: Sequence[Example],
) -> tuple[dict[str, npt.NDArray[np.uint8]], list[dict[str, Any]]]:
    """Separate the pixels of examples from their texts, for storage.

    Parameters
    ----------
    examples : sequence of Example
        At least one example.

    Returns
    -------
    arrays : dict of str to array, uint8 [m, h, w, 3]
        Pixels of the n-th panel of all m examples under the name "panel_n".
    texts : list of dict
        Caption and panels of each example, as JSON values.

    Raises
    ------
    InputError
        A panel is not uint8 RGB, has no text for readers who do not see it, or has another size
        than the same panel of the first example.
    """
    if not examples:
        raise InputError("expected at least one example, got none")
    first = [panel.pixels.shape for panel in examples[0].panels]
    for number, example in enumerate(examples):
        for panel in example.panels:
            if panel.pixels.dtype != np.uint8 or panel.pixels.shape[2:] != (3,):
                raise InputError(
                    f"pixels must be uint8 [h, w, 3], got {panel.pixels.dtype} "
                    f"{list(panel.pixels.shape)}"
                )
            if not panel.alt:
                raise InputError("every panel needs a text alt that says what it shows")
        sizes = [panel.pixels.shape for panel in example.panels]
        if not sizes or sizes != first:
            raise InputError(
                f"example {number} has panels of the sizes {sizes}, example 0 {first}; all examples"
                " must have the same panels"
            )
    arrays = {
        f"panel_{place}": np.stack([example.panels[place].pixels for example in examples])
        for place in range(len(first))
    }
    texts = []
    for example in examples:
        panels = [{**asdict(panel), "pixels": None} for panel in example.panels]
        texts.append({"caption": example.caption, "panels": panels})
    return arrays, texts


def unpacked(
    arrays: Mapping[str, npt.NDArray[Any]], texts: Sequence[Mapping[str, Any]]
) -> list[Example]:
    """Build the examples from the arrays and texts that `packed` returned.

    Raises
    ------
    DataError
        Pixels and texts do not belong together.
    """
    try:
        return [
            Example(
                panels=tuple(
                    Panel(
                        pixels=arrays[f"panel_{place}"][row],
                        alt=str(panel["alt"]),
                        squares=tuple(Square(**square) for square in panel["squares"]),
                        gaps=tuple((x, y, w, h) for x, y, w, h in panel["gaps"]),
                    )
                    for place, panel in enumerate(text["panels"])
                ),
                caption=str(text["caption"]),
            )
            for row, text in enumerate(texts)
        ]
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            "the examples of the pretext task do not fit their texts; redo the stage pretext"
        ) from error
