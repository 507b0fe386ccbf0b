"""The share of the hardware decoder is measured once, before the first batch."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

from ktfast.errors import ConfigError
from ktfast.images.feeds.hardware_decoder import fastest_load
from ktfast.images.source import FolderSource
from support.feeding import feed_of, needs_dali, pixels_of


@pytest.mark.parametrize(
    ("seconds", "chosen"),
    [
        ({}, 0.65),
        ({0.0: 0.98}, 0.65),  # a gain of 2 % does not justify another rounding
        ({0.8: 0.96, 0.95: 0.5, 0.4: 0.9}, 0.95),
        ({0.65: 0.2, 0.95: 0.5}, 0.65),
    ],
)
def test_the_hardware_decoders_share_is_the_fastest(
    seconds: dict[float, float], chosen: float
) -> None:
    tried = []

    def seconds_of(load: float) -> float:
        tried.append(load)
        return 9.0 if len(tried) == 1 else seconds.get(load, 1.0)  # the first call reads the disk

    assert fastest_load(seconds_of) == chosen
    assert set(tried) == {0.0, 0.4, 0.65, 0.8, 0.95}


@needs_dali
def test_dali_measures_the_share_once_before_the_first_batch(
    photos: FolderSource, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """On a CPU the share has no effect, so every trial decodes and the epoch is complete."""
    from ktfast.images.feeds import dali as dali_feed
    from ktfast.images.feeds import hardware_decoder

    built: list[float] = []
    build = dali_feed.DaliFeed._build

    def recorded(feed: Any) -> Any:
        built.append(feed.hw_decoder_load)
        return build(feed)

    with feed_of(photos, "dali") as feed:
        expected = pixels_of(feed)
        assert "hardware" not in feed.describe()
    monkeypatch.setattr(hardware_decoder, "is_in", lambda device: True)
    with feed_of(photos, "dali") as feed:  # an epoch of 5 batches is too short to measure
        pixels_of(feed)
        assert feed.hw_decoder_load is None
    monkeypatch.setattr(hardware_decoder, "WORTH_BATCHES", 5)
    monkeypatch.setattr(dali_feed.DaliFeed, "_build", recorded)
    monkeypatch.setattr(dali_feed.time, "perf_counter", iter(range(1000)).__next__)
    with caplog.at_level("INFO"), feed_of(photos, "dali") as feed:
        for _ in range(2):
            np.testing.assert_array_equal(pixels_of(feed), expected)
    assert built == [0.65, 0.65, 0.0, 0.4, 0.8, 0.95, 0.65]
    assert "83.3 (0%), 83.3 (40%), 83.3 (65%)" in caplog.text
    built.clear()
    with feed_of(photos, "dali", hw_decoder_load=0.8) as feed:
        np.testing.assert_array_equal(pixels_of(feed), expected)
        assert "80% of the JPEG data to the hardware decoder" in feed.describe()
    assert built == [0.8]
    with pytest.raises(ConfigError, match=r"hw_decoder_load must lie in 0 \.\. 1, got 65"):
        feed_of(photos, "dali", hw_decoder_load=65)


@needs_dali
@pytest.mark.parametrize("load", ["0.4", ""])
def test_a_run_hands_the_share_that_its_options_name_to_the_feed(
    photos: FolderSource, tmp_path: Path, load: str
) -> None:
    pytest.importorskip("pydantic")
    from ktfast.config import load_config
    from ktfast.pipeline.run_folder import RunFolder
    from ktfast.pipeline.steps.image_sets import open_feed

    options = {"data.feed": "dali", "data.hw_decoder_load": load, "device": "cpu"}
    source: Any = photos
    with open_feed(
        RunFolder(tmp_path, load_config(None, options)),
        source,
        size=24,
        batch_size=5,
        shuffle=False,
    ) as feed:
        assert feed.hw_decoder_load == (float(load) if load else None)
