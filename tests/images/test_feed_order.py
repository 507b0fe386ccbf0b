"""Order, last batch and resume: every image comes once, in the same order in every run."""

import numpy as np
import pytest

from support.pictures import photo_folder

torch = pytest.importorskip("torch")
pytest.importorskip("PIL")

from ktfast.errors import ConfigError  # noqa: E402
from ktfast.images.feeds.base import epoch_order  # noqa: E402
from ktfast.images.index import ImageIndex  # noqa: E402
from ktfast.images.prepare import prepare  # noqa: E402
from ktfast.images.source import FolderSource, ImageSource  # noqa: E402
from support.feeding import KINDS, feed_of, rows_of  # noqa: E402


def test_order_is_a_permutation_of_seed_and_epoch() -> None:
    order = epoch_order(1000, seed=3, epoch=1)
    assert order.dtype == np.int64
    np.testing.assert_array_equal(np.sort(order), np.arange(1000))
    np.testing.assert_array_equal(order, epoch_order(1000, seed=3, epoch=1))
    assert not np.array_equal(order, epoch_order(1000, seed=3, epoch=2))
    assert not np.array_equal(order, epoch_order(1000, seed=4, epoch=1))
    np.testing.assert_array_equal(epoch_order(4, seed=0, epoch=9, shuffle=False), range(4))
    # The order is written down, because a resumed run must see the same order after any upgrade.
    assert epoch_order(8, seed=2**63 + 5, epoch=7).tolist() == [7, 4, 3, 5, 1, 6, 2, 0]


@pytest.mark.parametrize("kind", KINDS)
def test_resume_is_exact_at_every_batch(photos: FolderSource, kind: str) -> None:
    with feed_of(photos, kind, seed=11) as feed:
        whole = list(feed.epoch(4))
        for start in range(feed.batches_per_epoch + 1):
            rest = list(feed.epoch(4, start))
            assert len(rest) == feed.batches_per_epoch - start
            for batch, before in zip(rest, whole[start:], strict=True):
                assert torch.equal(batch.rows, before.rows)
                assert torch.equal(batch.images, before.images)
        with pytest.raises(ConfigError, match=r"start must lie in 0 \.\. 5 batches, got 6"):
            next(feed.epoch(4, 6))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("batch_size", "drop_last", "lengths"),
    [
        (23, False, [23]),
        (22, False, [22, 1]),
        (12, False, [12, 11]),
        (12, True, [12]),
        (40, False, [23]),
        (23, True, [23]),
        (1, False, [1] * 23),
    ],
)
def test_last_batch(
    photos: FolderSource, kind: str, batch_size: int, drop_last: bool, lengths: list[int]
) -> None:
    with feed_of(photos, kind, batch_size=batch_size, drop_last=drop_last) as feed:
        for epoch in range(2):
            assert [len(batch.rows) for batch in feed.epoch(epoch)] == lengths
        assert feed.batches_per_epoch == len(lengths)


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ImageSource]:
    """The same 14 photographs as files and as prepared shards."""
    folder = tmp_path_factory.mktemp("sets")
    index = ImageIndex.scan(photo_folder(folder / "photos", 14))
    shards = prepare(index, folder / "shards", short_side=28, shard_bytes=6000)
    assert len(list((folder / "shards").glob("*.tar"))) > 2
    return {"files": FolderSource(index), "shards": shards}


class FirstRows(ImageSource):
    """The first n images of a source."""

    def __init__(self, source: ImageSource, n: int) -> None:
        self.whole, self.n = source, n
        self.sample_ids, self.labels = source.sample_ids[:n], source.labels[:n]
        self.classes, self.paths, self.skipped = source.classes, source.paths[:n], ()
        self.short_side = source.short_side

    fingerprint = property(lambda self: f"{self.whole.fingerprint} {self.n}")

    def name(self, row: int) -> str:
        return self.whole.name(row)

    def read(self, row: int) -> bytes | memoryview:
        return self.whole.read(row)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", ["files", "shards"])
@pytest.mark.parametrize("n", [1, 3, 5, 10, 11, 14])  # batches of 5: n < 5, n mod 5 = 0, 1, 4
def test_every_image_comes_once_however_it_is_asked_for(
    sets: dict[str, ImageSource], kind: str, place: str, n: int
) -> None:
    """For any number of threads and any first batch, the rows of the plan and equal pictures."""
    source = FirstRows(sets[place], n)
    pictures: dict[int, bytes] = {}
    for n_threads in (1, 2, 8):
        with feed_of(source, kind, seed=n, n_threads=n_threads) as feed:
            order = epoch_order(n, seed=n, epoch=6).tolist()
            batches = [order[i : i + 5] for i in range(0, n, 5)]
            assert sorted(order) == list(range(n))
            for start in range(len(batches) + 1):
                rest = list(feed.epoch(6, start))
                assert rows_of(rest) == batches[start:]
                for batch in rest:
                    ids = source.sample_ids[batch.rows.numpy()]
                    np.testing.assert_array_equal(batch.sample_ids.numpy(), ids)
                    for row, image in zip(batch.rows.tolist(), batch.images, strict=True):
                        assert pictures.setdefault(row, image.numpy().tobytes()) == (
                            image.numpy().tobytes()
                        )
    assert len(set(pictures.values())) == n
