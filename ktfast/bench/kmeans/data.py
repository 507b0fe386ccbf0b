"""The rows that K-means engines cluster: Gaussian mixtures, files or feature folders."""

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA

from ktfast.errors import DataError, InputError
from ktfast.features.store import FeatureStore
from ktfast.readers import read_npz

Float32 = NDArray[np.float32]

MIXTURE_ROWS = 100_000
_MIXTURE = re.compile(r"mixture(\d+)")
_COMPONENTS = 200
# The suffix of a source that asks for whitening, and the largest number of kept directions.
_WHITENED = ":whitened"
_DIRECTIONS = 256


def load(source: str, rows: int | None = None) -> Float32:
    """Read or make the rows.

    Parameters
    ----------
    source : str
        "mixture256" (or another number of features), a .npy file, a .npz file, or a folder of
        features. A .npz file holds one array of two or more axes: the first axis counts rows, the
        others become features. With the suffix ":whitened", the rows are PCA-whitened in at most
        256 directions.
    rows : int, optional
        Number of rows. None means all rows of a file, and 100,000 rows of a mixture.

    Returns
    -------
    x : array, float32 [n, d]
        The rows.

    Raises
    ------
    InputError
        The source does not exist, or has fewer rows.
    DataError
        The file or folder is damaged or holds something else.
    """
    if source.endswith(_WHITENED):
        return whitened(load(source.removesuffix(_WHITENED), rows))
    if features := mixture_features(source):
        return mixture(MIXTURE_ROWS if rows is None else rows, features)
    path = Path(source)
    if not path.exists():
        raise InputError(
            f"data {source}: neither mixtureD (such as mixture256) nor an existing file"
        )
    if path.suffix == ".npz":
        x = _archived(path)
        available = len(x)
    else:
        store = FeatureStore.open(path)
        available = store.n
        x = store.read(slice(rows))
    if rows is not None and available < rows:
        raise InputError(f"data {source} has {available} rows, {rows} were asked for")
    return np.ascontiguousarray(x[:rows], np.float32)


def whitened(x: Float32) -> Float32:
    """The rows in at most 256 leading principal directions, each of variance 1."""
    dim = min(_DIRECTIONS, *x.shape)
    pca = PCA(dim, whiten=True, svd_solver="randomized", random_state=0)
    return np.ascontiguousarray(pca.fit_transform(x), np.float32)


def mixture_features(source: str) -> int | None:
    """The number of features of a mixture such as "mixture256"; None for other sources.

    Raises
    ------
    InputError
        The mixture has no features.
    """
    match = _MIXTURE.fullmatch(source)
    if match and int(match[1]) < 1:
        raise InputError(f"data {source}: a mixture needs at least 1 feature")
    return int(match[1]) if match else None


def mixture(rows: int, features: int) -> Float32:
    """Overlapping Gaussians with a decaying spectrum, float32 [rows, features], of a fixed seed."""
    generator = np.random.default_rng(0)
    spectrum = (1 + np.arange(features, dtype=np.float32)) ** np.float32(-0.5)
    means = generator.standard_normal((_COMPONENTS, features), np.float32)
    x = generator.standard_normal((rows, features), np.float32)
    x += means[generator.integers(0, len(means), rows)]
    x *= spectrum
    return x


def default_clusters(source: str, rows: int) -> int:
    """2000 clusters for mixtures of at most 256 features, else 1000; at most one per 20 rows."""
    features = mixture_features(source)
    return min(2000 if features and features <= 256 else 1000, max(1, rows // 20))


def first_centers(x: Float32, clusters: int) -> Float32:
    """Distinct rows of x, drawn with a fixed seed, float32 [clusters, d].

    Raises
    ------
    InputError
        There are fewer rows than clusters.
    """
    if not 1 <= clusters <= len(x):
        raise InputError(f"clusters must lie in 1 .. {len(x)} (the rows), got {clusters}")
    return x[np.random.default_rng(1).choice(len(x), clusters, replace=False)]


def _archived(path: Path) -> NDArray[np.generic]:
    """The rows in a .npz file, [n, d]."""
    arrays = read_npz(path, remedy="write it with numpy.savez")
    wide = [name for name, array in arrays.items() if array.ndim >= 2 and array.dtype.kind in "fiu"]
    if len(wide) != 1:
        shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in arrays.items())
        raise DataError(f"{path} must hold one array of vectors [n, ...], it holds {shapes}")
    x: NDArray[np.generic] = arrays[wide[0]]
    return x.reshape(len(x), -1)
