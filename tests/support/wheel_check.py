"""Check an installed ktfast without its extras: K-means, puzzles and the command, beside NumPy.

The script is run where ktfast was installed from a wheel, outside the checkout. It needs neither
pytest nor a compiler.
"""

import importlib.util
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

import ktfast
from ktfast.native import modules
from ktfast.ops import jigsaw_tiles, kmeans_assign
from ktfast.reference import kmeans as reference


def check_kmeans() -> None:
    """K-means labels every row with its nearest centre."""
    x = np.random.default_rng(0).normal(size=(3000, 48)).astype(np.float32)
    fitted = ktfast.KMeans(100, random_state=0, max_iter=5).fit(x)
    expected, _ = reference.assign(x, np.asarray(fitted.cluster_centers_, np.float64))
    labels, _ = kmeans_assign(x, fitted.cluster_centers_)
    np.testing.assert_array_equal(labels, expected)


def check_tiles() -> None:
    """Puzzles have the right shape and are normalised."""
    images = np.random.default_rng(0).integers(0, 256, (4, 96, 96, 3), dtype=np.uint8)
    permutations = np.array([[0, 1, 2, 3], [3, 2, 1, 0]], np.int32)
    tiles, labels = jigsaw_tiles(
        images, permutations, sample_ids=range(4), seed=0, epoch=0, tile_size=32
    )
    assert tiles.shape == (4, 4, 3, 32, 32)
    assert np.isfinite(tiles).all()
    assert set(np.asarray(labels)) <= {0, 1}


def check_command() -> None:
    """`ktfast kmeans` writes a label for every row."""
    with tempfile.TemporaryDirectory() as folder:
        rows, labels = Path(folder, "x.npy"), Path(folder, "labels.npy")
        np.save(rows, np.random.default_rng(0).normal(size=(500, 8)).astype(np.float32))
        command = [sys.executable, "-m", "ktfast", "kmeans", rows, "-k", "5", "-o", labels]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        assert np.load(labels).shape == (500,)


def main() -> None:
    """Run every check and describe what was checked."""
    check_kmeans()
    check_tiles()
    check_command()
    cuda = "with" if importlib.util.find_spec("ktfast.native._cuda") else "without"
    print(
        f"ktfast {ktfast.__version__} of {Path(ktfast.__file__).parent}: K-means, puzzles and the "
        f"command work; instruction set {modules.simd_level()}, {cuda} the CUDA module"
    )


if __name__ == "__main__":
    main()
