"""Threads that decode share one budget of memory."""

import io
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ktfast.errors import DataError
from ktfast.images.decode import decode_rgb
from ktfast.images.decode_memory import DECODING, DecodeMemory
from ktfast.images.index import ImageIndex
from ktfast.images.opening import PIXEL_LIMIT
from ktfast.images.prepare import prepare
from ktfast.images.resize import resize_short_side, square
from support.pictures import bomb, encoded, picture

SIDE, LIMIT = 3000, 180 << 20
PEAK = f"""
import sys
from concurrent.futures import ThreadPoolExecutor
from ktfast.images.decode_memory import DECODING
from ktfast.images.index import ImageIndex
from ktfast.images.source import FolderSource

def peak():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))

DECODING.limit = {LIMIT}
source = FolderSource(ImageIndex.scan(sys.argv[1]))
source.square(8, short_side=32, size=32)  # a small image loads the libraries
before = peak()
with ThreadPoolExecutor(8) as pool:
    list(pool.map(lambda row: source.square(row, short_side=32, size=32), range(8)))
print(peak() - before)
"""


def test_eight_threads_decode_large_images_in_bounded_memory(tmp_path: Path) -> None:
    """Without the budget the eight threads hold 20 bytes per pixel of every image: 1.4 GB."""
    large = Image.new("RGBA", (SIDE, SIDE), (200, 100, 50, 128))
    (tmp_path / "0.png").write_bytes(encoded(large, "PNG", compress_level=1))
    for k in range(1, 8):
        os.link(tmp_path / "0.png", tmp_path / f"{k}.png")
    (tmp_path / "small.png").write_bytes(encoded(picture(), "PNG"))
    done = subprocess.run(
        [sys.executable, "-c", PEAK, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    )
    assert int(done.stdout) < LIMIT + (64 << 20), f"{int(done.stdout) / 1e6:.0f} MB"


def test_a_large_jpeg_is_not_reduced_while_it_is_decoded() -> None:
    """JPEG could be decoded at a half or less (Pillow's `draft`), but with other pixels."""
    image = picture(1200, 1500)
    data = encoded(image)
    with Image.open(io.BytesIO(data)) as opened:
        whole = opened.convert("RGB")
    cut = np.asarray(resize_short_side(whole, 100).crop((12, 0, 112, 100)))
    np.testing.assert_array_equal(np.asarray(decode_rgb(data, "it")), np.asarray(whole))
    difference = np.abs(square(decode_rgb(data, "it"), short_side=100, size=100).astype(int) - cut)
    assert difference.max() <= 1


def test_threads_share_the_budget() -> None:
    memory, most, now, lock = DecodeMemory(100), [0], [0], threading.Lock()

    def work(n: int) -> None:
        with memory.block():
            memory.take(n)
            with lock:
                now[0] += min(n, 100)
                most[0] = max(most[0], now[0])
            time.sleep(0.001)
            with lock:
                now[0] -= min(n, 100)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, [30, 60, 1, 300, 99, 45] * 20))
    assert 1 < most[0] <= 100
    memory.take(0)
    assert memory._taken == 0


def test_a_thread_that_holds_memory_does_not_wait_for_more() -> None:
    """Two threads that each decode a photograph and then its mask would wait for each other."""
    memory, both = DecodeMemory(100), threading.Barrier(2)

    def work() -> None:
        with memory.block():
            memory.take(50)
            both.wait()
            with memory.block():
                memory.take(80)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert not any(thread.is_alive() for thread in threads)
    assert memory._taken == 0


def test_a_forked_child_has_the_whole_budget() -> None:
    with DECODING.block():
        DECODING.take(DECODING.limit)
        child = os.fork()
        if child == 0:
            os._exit(0 if decode_rgb(encoded(picture()), "it").size == (56, 40) else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_memory_is_given_back_after_damage() -> None:
    data = encoded(picture(), "PNG")
    for _ in range(3):
        with pytest.raises(DataError):
            decode_rgb(data[: len(data) // 2], "it")
    assert DECODING._taken == 0


def test_the_limit_of_pixels_is_an_option(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images/1.png").write_bytes(encoded(picture(), "PNG"))
    (tmp_path / "images/2.png").write_bytes(encoded(picture(20, 20), "PNG"))
    index = ImageIndex.scan(tmp_path / "images")
    prepared = prepare(index, tmp_path / "set", short_side=16, max_pixels=1000)
    assert prepared.paths == ("2.png",)
    assert "56 x 40 pixels, more than the limit of 1,000 (data.max_megapixels)" in (
        prepared.skipped[0].reason
    )


def test_the_limit_may_be_above_the_limit_of_pillow() -> None:
    """A header of 400 megapixels passes both limits; only the missing pixels are an error."""
    before = Image.MAX_IMAGE_PIXELS
    with pytest.raises(DataError, match=r"(?i)truncated"):
        decode_rgb(bomb(20_000)[:400], "it", pixel_limit=401_000_000)
    with pytest.raises(DataError, match="limit of 399,000,000"):
        decode_rgb(bomb(20_000), "it", pixel_limit=399_000_000)
    with pytest.raises(DataError, match="exceeds limit"):
        decode_rgb(bomb(20_000), "it", pixel_limit=PIXEL_LIMIT)
    assert before == Image.MAX_IMAGE_PIXELS
