"""The views of `ktfast demo`, and the comparison that it settles."""

import numpy as np
from PIL import Image

from ktfast.cli.demo import PHOTOGRAPHS, VIEWS, demo_config, write_views
from ktfast.cli.options import parse


def test_every_photograph_gives_training_and_test_views(tmp_path):
    write_views(tmp_path, {"train": 2, "test": 1})
    for part, count in (("train", 2), ("test", 1)):
        folders = sorted(path.name for path in (tmp_path / part).iterdir())
        assert folders == sorted(PHOTOGRAPHS)
        for name in folders:
            views = sorted((tmp_path / part / name).iterdir())
            assert len(views) == count
            with Image.open(views[0]) as view:
                assert view.size == (128, 128)
                assert np.asarray(view).std() > 1, f"{name} shows nothing"


def test_photographs_that_were_added_leave_the_views_of_others(tmp_path):
    write_views(tmp_path / "some", {"train": 1, "test": 1}, PHOTOGRAPHS[:3])
    write_views(tmp_path / "more", {"train": 1, "test": 1}, PHOTOGRAPHS[:4])
    for path in (tmp_path / "some").rglob("*.jpg"):
        other = tmp_path / "more" / path.relative_to(tmp_path / "some")
        assert path.read_bytes() == other.read_bytes()


def test_the_comparison_is_settled_before_the_run(tmp_path):
    (tmp_path / "photographs").mkdir()
    (tmp_path / "photographs/complete").touch()
    config = demo_config(tmp_path, seed=3)
    assert (config.seed, config.evaluate.headline) == (3, "knn:conv5")
    assert config.evaluate.baselines == ("random",)
    assert VIEWS["train"] >= config.evaluate.neighbors
    assert parse(["demo", "--seed", "3"]).seed == 3
