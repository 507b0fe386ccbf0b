"""Several teachers as one: their features side by side, each after a PCA of its own.

PCA reduces the features of each teacher, and each row is scaled to length 1. The rows of T teachers
stand side by side and are divided by sqrt(T). All teachers thus have equal weight: the squared
distance between two images is the mean of the squared distances that the teachers alone would give
with `cluster.normalize = "pca-l2"`.
"""

import itertools
import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from ktfast.features.foreign import Teacher
from ktfast.features.transform import FeatureTransform


def fit_part(blocks: Iterable[Tensor], most: int, *, seed: int) -> FeatureTransform:
    """Fit the PCA of one teacher.

    Parameters
    ----------
    blocks : iterable of Tensor [b, d]
        Features of a sample of images, all on one device.
    most : int
        Largest number of dimensions that PCA keeps. It keeps fewer if a row of the features, or the
        sample, is shorter; no variance of the sample is lost then.
    seed : int
        Seed of PCA's randomised solver.

    Returns
    -------
    transform : FeatureTransform
        The fitted PCA, with rows of length 1.
    """
    given = iter(blocks)
    first: list[Tensor] = []
    n = 0
    while n < most and (block := next(given, None)) is not None:
        first.append(block)
        n += len(block)
        if n >= block.shape[1]:
            break
    dim = min(most, n, first[0].shape[1])
    return FeatureTransform.fit_blocks(itertools.chain(first, given), "pca-l2", dim=dim, seed=seed)


def join(parts: Sequence[tuple[Teacher, FeatureTransform]]) -> Teacher:
    """Join teachers to one teacher.

    Parameters
    ----------
    parts : sequence of tuple
        Each teacher with its fitted PCA.

    Returns
    -------
    teacher : Teacher
        The features of all teachers side by side.
    """
    weight = 1 / math.sqrt(len(parts))

    def teach(images: Tensor) -> Tensor:
        rows = [part.apply_tensor(teacher(images).to(images.device)) for teacher, part in parts]
        return torch.cat(rows, 1) * weight

    return teach
