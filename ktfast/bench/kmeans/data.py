"""The vectors that K-means engines are compared on: Gaussian mixtures, files, feature folders."""

import re
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA

from ktfast.errors import DataError, InputError
from ktfast.features.store import FeatureStore

Float32 = NDArray[np.float32]

MIXTURE_ROWS = 100_000
_MIXTURE = re.compile(r"mixture(\d+)")
_COMPONENTS = 200
# What may follow a source, and the most directions that are kept.
_WHITENED = ":whitened"
_DIRECTIONS = 256


def load(source: str, rows: int | None = None) -> Float32:
    """Read or make the vectors, float32 [n, d].

    Parameters
    ----------
    source : "mixture256" (or another number of features), a .npy file, a .npz file with one array
        of two or more axes (rows first, the others become features), or a folder of features. With
        ":whitened" behind it, PCA-whitened in at most 256 directions.
    rows : n; None: all rows of a file, 100,000 of a mixture.

    Raises
    ------
    InputError : there is no such source, or it has fewer rows.
    DataError : the file or folder is damaged or holds something else.
    """
    if source.endswith(_WHITENED):
        return whitened(load(source.removesuffix(_WHITENED), rows))
    if features := mixture_features(source):
        return mixture(MIXTURE_ROWS if rows is None else rows, features)
    path = Path(source)
    if not path.exists():
        raise InputError(f"data {source}: neither mixtureD (such as mixture256) nor a file here")
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
    """Coordinates in the leading principal directions, of variance 1 each: float32 [n, <= 256]."""
    dim = min(_DIRECTIONS, *x.shape)
    pca = PCA(dim, whiten=True, svd_solver="randomized", random_state=0)
    return np.ascontiguousarray(pca.fit_transform(x), np.float32)


def mixture_features(source: str) -> int | None:
    """The number of features of a mixture such as "mixture256"; None: it is none.

    Raises
    ------
    InputError : a mixture of no features.
    """
    match = _MIXTURE.fullmatch(source)
    if match and int(match[1]) < 1:
        raise InputError(f"data {source}: a mixture needs at least 1 feature")
    return int(match[1]) if match else None


def mixture(rows: int, features: int) -> Float32:
    """Overlapping Gaussians with a decaying spectrum, float32 [rows, features]; always the same."""
    generator = np.random.default_rng(0)
    spectrum = (1 + np.arange(features, dtype=np.float32)) ** np.float32(-0.5)
    means = generator.standard_normal((_COMPONENTS, features), np.float32)
    x = generator.standard_normal((rows, features), np.float32)
    x += means[generator.integers(0, len(means), rows)]
    x *= spectrum
    return x


def default_clusters(source: str, rows: int) -> int:
    """2000 for mixtures of at most 256 features, else 1000; at least 20 rows in each."""
    features = mixture_features(source)
    return min(2000 if features and features <= 256 else 1000, max(1, rows // 20))


def first_centers(x: Float32, clusters: int) -> Float32:
    """Distinct rows of x, float32 [clusters, d]; always the same.

    Raises
    ------
    InputError : there are fewer rows than clusters.
    """
    if not 1 <= clusters <= len(x):
        raise InputError(f"clusters must lie in 1 .. {len(x)} (the rows), got {clusters}")
    return x[np.random.default_rng(1).choice(len(x), clusters, replace=False)]


def _archived(path: Path) -> NDArray[np.generic]:
    """The vectors in a .npz file, [n, d]."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} is not a readable .npz archive: {error}") from error
    wide = [name for name, array in arrays.items() if array.ndim >= 2 and array.dtype.kind in "fiu"]
    if len(wide) != 1:
        shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in arrays.items())
        raise DataError(f"{path} must hold one array of vectors [n, ...], it holds {shapes}")
    x: NDArray[np.generic] = arrays[wide[0]]
    return x.reshape(len(x), -1)
