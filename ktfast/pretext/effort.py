"""Estimate before a training whether it shows enough puzzles to learn the permutations."""

import math

LEAST_VIEWS = 20.0
"""Least number of puzzles per permutation that a training needs.

In `benchmarks/bench_plateau.py`, the fastest network reached five times chance after 26 puzzles per
permutation. A training with fewer than 20 puzzles per permutation will hardly learn them.
"""


def too_few_puzzles(
    *, images: int, epochs: float, permutations: int, puzzles_per_image: int, cell_loss: float
) -> str | None:
    """Say that a training shows too few puzzles, and what to change.

    Every image is `puzzles_per_image` puzzles per epoch. A network has to see each permutation many
    times before it tells the permutations apart.

    Parameters
    ----------
    images : int
        Number of images.
    epochs : float
        Number of passes over the images.
    permutations : int
        Size of the permutation set.
    puzzles_per_image : int
        Number of permutations in which a training step shows each image.
    cell_loss : float
        Weight of the loss of the cells; 0 means that the network does not name cells.

    Returns
    -------
    sentence : str or None
        The warning. None if the puzzles may be enough.
    """
    puzzles = images * puzzles_per_image
    views = puzzles * epochs / permutations
    if views >= LEAST_VIEWS:
        return None
    fewer = math.floor(puzzles * epochs / LEAST_VIEWS)
    more = math.ceil(LEAST_VIEWS * permutations / (images * epochs))
    remedies = [
        f"raise pretext.training.epochs to {math.ceil(LEAST_VIEWS * permutations / puzzles)}"
    ]
    if more <= permutations:
        remedies.insert(0, f"raise pretext.puzzles_per_image to {more}")
    if fewer >= 2:
        remedies.append(f"lower pretext.permutations to {fewer}")
    remedies.append("give more images in data.pretext")
    advice = ", ".join(remedies[:-1]) + f", or {remedies[-1]}"
    further = "" if cell_loss else "; pretext.cell_loss = 1 also helps a network to begin"
    return (
        f"the puzzle will hardly be learnt: {epochs:g} epochs of {images:,} images show each of "
        f"the {permutations} permutations {views:.0f} times, and networks need {LEAST_VIEWS:.0f} "
        f"times at least; {advice}{further}"
    )
