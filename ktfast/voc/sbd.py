"""Masks of the Semantic Boundaries Dataset for the training of segmentation.

Hariharan et al., "Semantic contours from inverse detectors" (ICCV 2011). The folder `dataset` of
the download holds the lists `train.txt` and `val.txt`, and for each photograph a mask
`cls/ID.mat`, a MATLAB file with the struct `GTcls`. The photographs are those of PASCAL VOC 2011,
which the folder of PASCAL VOC 2012 holds too.
"""

from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ktfast.errors import DataError, reading, shown
from ktfast.images.file_records import FileHashes
from ktfast.images.opening import check_size
from ktfast.readers import read_bytes, read_text
from ktfast.voc.data import VocSet
from ktfast.voc.lists import find_photographs
from ktfast.voc.matlab import read_field

LISTS = ("train.txt", "val.txt")


class VocWithSbd(VocSet):
    """A split for segmentation, and the photographs for which only SBD has a mask.

    Photographs of the split keep the masks of PASCAL VOC, which are more exact.

    Parameters
    ----------
    folder : Path
        Year folder of PASCAL VOC, which must hold the photographs.
    split : str
        Name of the list of images, such as "train".
    classes : sequence of str
        Names of the classes; empty: the 20 classes of VOC.
    hashes : FileHashes, optional
        Hashes of files that were read before.
    sbd : Path
        Folder `dataset` of SBD.
    without : collection of str
        Ids that are left out, such as those of the test photographs.
    """

    def __init__(
        self,
        folder: Path,
        split: str,
        classes: Sequence[str] = (),
        hashes: FileHashes | None = None,
        *,
        sbd: Path,
        without: Collection[str],
    ) -> None:
        self._sbd = sbd
        self._without = frozenset(without)
        self._of_split: frozenset[str] = frozenset()
        super().__init__(folder, split, "Segmentation", classes, hashes)

    def _listed(self, split: str, kind: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        ids, photographs = super()._listed(split, kind)
        self._of_split = frozenset(ids)
        known = self._of_split | self._without
        more = tuple(key for key in listed_in(self._sbd) if key not in known)
        return (*ids, *more), (*photographs, *find_photographs(self.folder, more))

    def mask_path(self, row: int) -> Path:
        """Path of the mask of an image, a .png file of VOC or a .mat file of SBD."""
        if self.ids[row] in self._of_split:
            return super().mask_path(row)
        return self._sbd / "cls" / f"{self.ids[row]}.mat"

    def mask_shape(self, row: int) -> tuple[int, int]:
        """(height, width) of the mask of an image in pixels."""
        if self.ids[row] in self._of_split:
            return super().mask_shape(row)
        height, width = self._stored(row).shape
        return height, width

    def _mask(self, row: int) -> npt.NDArray[np.uint8]:
        return super()._mask(row) if self.ids[row] in self._of_split else self._stored(row)

    def _stored(self, row: int) -> npt.NDArray[np.uint8]:
        path = self.mask_path(row)
        content = read_bytes(path, "a mask of SBD", "copy the folder of SBD again")
        with reading(path, "a mask of SBD", "copy the file again"):
            mask = read_field(content, "GTcls", "Segmentation")
            if mask.ndim != 2 or mask.dtype != np.uint8:
                raise ValueError(f"Segmentation is {mask.dtype} {mask.shape}, not uint8 [h, w]")
            check_size(mask.shape[1], mask.shape[0], f"mask {shown(path)}", self.pixel_limit)
        return mask


def listed_in(folder: Path) -> list[str]:
    """List the ids of `train.txt` and `val.txt` of SBD, each once.

    Parameters
    ----------
    folder : Path
        Folder `dataset` of SBD.

    Returns
    -------
    ids : list of str
        Ids in the order of the lists.

    Raises
    ------
    DataError
        A list is missing or no text, or both are empty.
    """
    remedy = "give the folder `dataset` of SBD as voc.segmentation.sbd"
    texts = [read_text(folder / name, "a list of SBD", remedy) for name in LISTS]
    ids = [line.strip() for text in texts for line in text.splitlines() if line.strip()]
    if not ids:
        raise DataError(f"the lists {' and '.join(LISTS)} in {shown(folder)} name no photograph")
    return list(dict.fromkeys(ids))
