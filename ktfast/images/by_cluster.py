"""One folder per cluster with links to the photographs of the cluster, to look through.

    by_cluster/
      made_from.json      which clusters the folders show; written last
      007/0001-cat.jpg    the most central photograph of cluster 7
      007/0002-dog.jpg

A link points to the original file. Where the file system allows no symbolic links, the photographs
are copied. The folder is made under another name and renamed, so that it is complete or absent.
"""

import logging
import os
import shutil
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ktfast.durable import read_sealed, write_sealed
from ktfast.errors import DataError, shown

logger = logging.getLogger(__name__)

FOLDER = "by_cluster"
"""Name of the folder in the run folder."""
RECORD = "made_from.json"
_REMEDY = "run `ktfast cluster --link` again"
_LONGEST = 255  # bytes of a file name that common file systems allow


def linked_folders(place: Path, fingerprint: str) -> dict[int, str]:
    """Find the folders of clusters, if they were made from given clusters.

    Parameters
    ----------
    place : Path
        The folder that `link_clusters` makes.
    fingerprint : str
        Fingerprint of the clusters.

    Returns
    -------
    folders : dict of int to str
        Name of each cluster's folder. Empty if the folders are missing or show other clusters.
    """
    if not (place / RECORD).is_file():
        return {}
    try:
        record = read_sealed(place / RECORD, _REMEDY)
        folders = {int(key): str(name) for key, name in record["folders"].items()}
    except (DataError, KeyError, AttributeError, ValueError):
        return {}
    return folders if record.get("clusters") == fingerprint else {}


def link_clusters(
    place: Path,
    photographs: Path,
    rows: Iterable[tuple[str, int, float]],
    *,
    n_clusters: int,
    fingerprint: str,
) -> None:
    """Make one folder per cluster, with a link to each of its photographs.

    The links of a folder are numbered from the most central photograph to the least central one.
    Folders of the same clusters are left as they are if none of their links is missing.

    Parameters
    ----------
    place : Path
        The folder to make. An earlier one is replaced once the new one is complete.
    photographs : Path
        Folder of the original photographs.
    rows : iterable of (str, int, float)
        Path below `photographs`, cluster, and distance to the cluster's centre.
    n_clusters : int
        Number of clusters. A cluster without photographs gets an empty folder.
    fingerprint : str
        Fingerprint of the clusters.

    Raises
    ------
    DataError
        A photograph does not exist any more. The message names it, and `place` is unchanged.
    OSError
        The disk is full, or `place` cannot be written. `place` is unchanged.
    """
    members: dict[int, list[tuple[float, str]]] = defaultdict(list)
    for path, cluster, distance in rows:
        members[cluster].append((distance, path))
    width = len(str(n_clusters - 1))
    folders = {cluster: f"{cluster:0{width}d}" for cluster in range(n_clusters)}
    root = Path(os.path.abspath(photographs))
    record: dict[str, Any] = {
        "clusters": fingerprint,
        "photographs": shown(root),
        "folders": {str(cluster): name for cluster, name in folders.items()},
    }
    sizes = {name: len(members[cluster]) for cluster, name in folders.items()}
    if _is_complete(place, record, sizes):
        logger.info("%s: up to date", place.name)
        return
    scratch = place.with_name(f".{place.name}.making")
    _remove(scratch)
    try:
        scratch.mkdir(parents=True)
        use = _symbolic_links(scratch)
        for cluster, name in folders.items():
            (scratch / name).mkdir()
            _fill(
                scratch / name, root, [path for _, path in sorted(members[cluster])], use_links=use
            )
        write_sealed(scratch / RECORD, {**record, "kind": "links" if use else "copies"})
        discard_links(place)
        scratch.rename(place)
    except BaseException:
        _remove(scratch)
        raise
    kind = "linked" if use else "copied, because this file system allows no symbolic links"
    logger.info("%s: %d photographs are %s", place.name, sum(sizes.values()), kind)


def discard_links(place: Path) -> None:
    """Remove the folders of clusters; an interruption leaves no part of them under their name."""
    trash = place.with_name(f".{place.name}.discarded")
    _remove(trash)
    if place.exists():
        place.rename(trash)
        _remove(trash)


def _remove(folder: Path) -> None:
    """Remove a folder if it exists. Links are removed, and never the files that they point to."""
    if folder.exists():
        shutil.rmtree(folder)


def _is_complete(place: Path, record: dict[str, Any], sizes: dict[str, int]) -> bool:
    """Say whether the folders are those of a record, and hold as many links as expected."""
    try:
        found = read_sealed(place / RECORD, _REMEDY)
        counts = {name: len(os.listdir(place / name)) for name in sizes}
    except (DataError, OSError):
        return False
    return {key: found.get(key) for key in record} == record and counts == sizes


def _symbolic_links(folder: Path) -> bool:
    """Say whether symbolic links can be made in a folder."""
    trial = folder / "trial"
    try:
        os.symlink("target", trial)
    except (OSError, NotImplementedError):
        return False
    trial.unlink()
    return True


def _fill(folder: Path, root: Path, paths: list[str], *, use_links: bool) -> None:
    """Link or copy the photographs of one cluster, in order."""
    width = len(str(len(paths)))
    for number, path in enumerate(paths, 1):
        source = os.path.join(root, path)
        if not os.path.isfile(source):
            raise DataError(
                f"{source} does not exist any more, so no folders of clusters were made; put the "
                "photograph back, or run the stage prepare anew"
            )
        target = folder / _name(f"{number:0{width}d}-", path.rpartition("/")[2])
        if use_links:
            os.symlink(source, target)
        else:
            shutil.copyfile(source, target)


def _name(prefix: str, name: str) -> str:
    """A file name with a prefix. If it is too long, its first characters after the prefix go."""
    while len(os.fsencode(prefix + name)) > _LONGEST:
        name = name[1:]
    return prefix + name
