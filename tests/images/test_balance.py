"""Balanced epochs: equal draws per group, equal draws within a group, the same in every run."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("PIL")

from ktfast.errors import ConfigError  # noqa: E402
from ktfast.images.augment import random_crops  # noqa: E402
from ktfast.images.balance import Balance, repeats  # noqa: E402
from ktfast.images.source import FolderSource  # noqa: E402
from support.feeding import KINDS, feed_of  # noqa: E402

GROUPS = np.random.default_rng(0).permutation(np.repeat([7, 2, 900, 3], [1, 600, 30, 5]))


def test_groups_share_an_epoch_evenly() -> None:
    order = Balance(GROUPS).order(seed=3, epoch=1)
    assert order.dtype == np.int64
    assert len(order) == len(GROUPS) == 636
    draws = np.unique(GROUPS[order], return_counts=True)[1]
    np.testing.assert_array_equal(draws, [159] * 4)
    for group in (7, 900, 3):  # rows of a small group differ by at most one draw
        counts = np.bincount(order, minlength=636)[group == GROUPS]
        assert counts.max() - counts.min() <= 1
    large = np.bincount(order, minlength=636)[GROUPS == 2]
    assert large.max() == 1


def test_an_epoch_that_does_not_divide_is_cut_off() -> None:
    groups = np.array([0] * 10 + [1] * 3 + [5] * 4)
    draws = np.bincount(groups[Balance(groups).order(seed=0, epoch=0)])
    assert draws.sum() == 17
    assert set(draws[[0, 1, 5]]) <= {5, 6, 4}
    one = Balance(np.full(9, 4)).order(seed=0, epoch=0)
    np.testing.assert_array_equal(np.sort(one), range(9))


def test_over_epochs_every_row_of_a_large_group_is_drawn_alike() -> None:
    balance = Balance(GROUPS)
    total = sum(np.bincount(balance.order(seed=1, epoch=e), minlength=636) for e in range(200))
    large = total[GROUPS == 2] / 200
    assert abs(large.mean() - 159 / 600) < 1e-9
    assert large.std() < 0.05


def test_order_depends_on_seed_and_epoch_alone() -> None:
    order = Balance(GROUPS).order(seed=3, epoch=1)
    np.testing.assert_array_equal(order, Balance(GROUPS.astype(np.int32)).order(seed=3, epoch=1))
    assert not np.array_equal(order, Balance(GROUPS).order(seed=3, epoch=2))
    assert not np.array_equal(order, Balance(GROUPS).order(seed=4, epoch=1))
    # The order is written down, because a resumed run must see the same order after any upgrade.
    assert Balance([0, 0, 0, 0, 1, 2]).order(seed=5, epoch=9).tolist() == [5, 1, 5, 4, 4, 0]


def test_repeats_by_hand() -> None:
    assert repeats(np.array([3, 1, 3, 3, 0, 1])).tolist() == [0, 0, 1, 2, 0, 1]


@pytest.mark.parametrize("kind", KINDS)
def test_feeds_deliver_it_and_resume_exactly(photos: FolderSource, kind: str) -> None:
    balance = Balance([0] * 20 + [1] * (photos.n - 20))
    with feed_of(photos, kind, seed=11, balance=balance) as feed:
        whole = list(feed.epoch(4))
        rows = torch.cat([batch.rows for batch in whole]).cpu().numpy()
        np.testing.assert_array_equal(rows, balance.order(seed=11, epoch=4))
        ids = torch.cat([batch.sample_ids for batch in whole]).cpu().numpy()
        assert len(set(ids)) == len(ids) == photos.n
        first = repeats(rows) == 0
        np.testing.assert_array_equal(ids[first], photos.sample_ids[rows[first]])
        for start in range(feed.batches_per_epoch):
            for batch, before in zip(feed.epoch(4, start), whole[start:], strict=True):
                assert torch.equal(batch.images, before.images)
                assert torch.equal(batch.sample_ids, before.sample_ids)
        assert "balanced over groups" in feed.describe()


def test_an_image_that_repeats_is_cut_elsewhere(photos: FolderSource) -> None:
    balance = Balance([0] * (photos.n - 1) + [1])
    with feed_of(photos, "torch", batch_size=photos.n, balance=balance) as feed:
        batch = next(iter(feed.epoch(0)))
    again = batch.rows == photos.n - 1
    crops = random_crops(batch.images, batch.sample_ids, crop=8, mirror=True, seed=0, epoch=0)
    assert int(again.sum()) > 8
    assert len({crop.numpy().tobytes() for crop in crops[again]}) > 4


def test_other_rows_are_refused(photos: FolderSource) -> None:
    with pytest.raises(ConfigError, match=f"balance groups 3 rows, but there are {photos.n}"):
        feed_of(photos, "torch", balance=Balance([0, 1, 2]))
