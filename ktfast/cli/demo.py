"""`ktfast demo`: photographs that installed packages contain, cut into views.

scikit-image, scikit-learn and matplotlib install the photographs, so nothing is downloaded.

Each photograph is a class. The left part of a photograph gives training views, and its right part
gives test views. A probe must recognise the photograph from a part that no network has seen.
"""

from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from ktfast.config import (
    ClusterConfig,
    Config,
    DataConfig,
    EvaluateConfig,
    FeaturesConfig,
    PretextConfig,
    TrainingConfig,
    TransferConfig,
)
from ktfast.errors import reading

SKIMAGE = (
    "astronaut",
    "brick",
    "chelsea",
    "coffee",
    "coins",
    "grass",
    "gravel",
    "hubble_deep_field",
    "immunohistochemistry",
    "moon",
    "retina",
    "rocket",
)
SKLEARN = ("china", "flower")
MORE_SKIMAGE = ("camera", "page", "text")
STEREO = "stereo_motorcycle"
MATPLOTLIB = ("grace_hopper",)
PHOTOGRAPHS = (*SKIMAGE, *SKLEARN, *MORE_SKIMAGE, STEREO, *MATPLOTLIB)
VIEWS = {"train": 30, "test": 12}  # views per photograph
VIEW_SIDE = 128  # px


def demo_config(folder: Path, seed: int = 0) -> Config:
    """Return the options of the demo. The first call also writes the views of the photographs.

    Parameters
    ----------
    folder : Path
        Run folder of the demo. The views are written to the folder `photographs` in it.
    seed : int
        Seed of the run. The views are the same for every seed.

    Returns
    -------
    config : Config
        The options of the demo.
    """
    images = folder / "photographs"
    if not (images / "complete").exists():
        write_views(images)
    training = TrainingConfig(
        epochs=20, batch_size=50, learning_rate=0.02, schedule="cosine", warmup=0.05, log_every=4
    )
    return Config(
        seed=seed,
        data=DataConfig(
            pretext=images / "train", test=images / "test", short_side=VIEW_SIDE, quality=95
        ),
        pretext=PretextConfig(
            width=0.125,
            batch_norm=True,
            crop=120,
            tile_size=24,
            permutations=24,
            tile_features=128,
            hidden=256,
            dropout=0.0,
            puzzles_per_image=8,
            training=training.model_copy(update={"batch_size": 32, "learning_rate": 0.05}),
        ),
        features=FeaturesConfig(pool=4),
        cluster=ClusterConfig(n_clusters=30),
        transfer=TransferConfig(
            width=0.25, batch_norm=True, image_size=120, crop=99, training=training
        ),
        # The comparison was settled before the runs in docs/results/learning.md: nearest neighbours
        # need no training, so they show the features themselves, and conv5 is the last layer.
        evaluate=EvaluateConfig(baselines=("random",), headline="knn:conv5"),
    )


def write_views(
    folder: Path, views: Mapping[str, int] = VIEWS, names: Collection[str] = PHOTOGRAPHS
) -> None:
    """Cut square views out of every photograph and save them as JPEG.

    Parameters
    ----------
    folder : Path
        Receives the folders `train/<photograph>/` and `test/<photograph>/`.
    views : mapping
        Number of views per photograph for "train" and for "test".
    names : collection of str
        Photographs from `PHOTOGRAPHS` that are cut.
    """
    rng = np.random.default_rng(0)
    photographs = _photographs()
    for name in names:
        photograph = photographs[name]
        image = Image.fromarray(photograph).convert("RGB")
        width, height = image.size
        middle = round(width * 0.6)
        for part, left, right in (("train", 0, middle), ("test", middle, width)):
            place = folder / part / name
            place.mkdir(parents=True, exist_ok=True)
            for number in range(views[part]):
                side = round(min(right - left, height) * rng.uniform(0.45, 0.95))
                x = left + int(rng.integers(0, right - left - side + 1))
                y = int(rng.integers(0, height - side + 1))
                view = image.resize((VIEW_SIDE, VIEW_SIDE), box=(x, y, x + side, y + side))
                view.save(place / f"view-{number:03d}.jpg", quality=95)
    (folder / "complete").touch()


def _photographs() -> dict[str, npt.NDArray[np.uint8]]:
    """Read every photograph, in the order of `PHOTOGRAPHS`."""
    from matplotlib import get_data_path
    from skimage import data
    from sklearn.datasets import load_sample_image

    found: dict[str, npt.NDArray[np.uint8]] = {name: getattr(data, name)() for name in SKIMAGE}
    found |= {name: load_sample_image(f"{name}.jpg") for name in SKLEARN}
    found |= {name: getattr(data, name)() for name in MORE_SKIMAGE}
    found[STEREO] = getattr(data, STEREO)()[0]  # the left picture of a pair
    for name in MATPLOTLIB:
        path = Path(get_data_path(), "sample_data", f"{name}.jpg")
        with reading(path, "a JPEG file", "install matplotlib again"), Image.open(path) as image:
            found[name] = np.asarray(image)
    return found
