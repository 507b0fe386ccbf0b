"""Folders of links by cluster: complete or absent, for any file name, copies where links fail."""

import logging
import os
import shutil

import pytest

from ktfast.errors import DataError
from ktfast.images import by_cluster
from ktfast.images.by_cluster import discard_links, link_clusters, linked_folders

BAD = os.fsdecode(b"caf\xe9.jpg")
ROWS = [
    ("a/1.jpg", 0, 0.3), ("b/1.jpg", 0, 0.1), (f"a/{BAD}", 11, 0.2), ("x" * 251 + ".jpg", 0, 0.2),
]  # fmt: skip


@pytest.fixture
def photographs(tmp_path):
    folder = tmp_path / "photos"
    for path, *_ in ROWS:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(path.encode("utf-8", "surrogateescape"))
    return folder


def link(place, photographs, rows=ROWS, fingerprint="one"):
    link_clusters(place, photographs, rows, n_clusters=12, fingerprint=fingerprint)


def content(place):
    return {
        str(path.relative_to(place)): path.read_bytes()
        for path in sorted(place.rglob("*"))
        if path.is_file() and path.name != by_cluster.RECORD
    }


EXPECTED = {
    "00/1-1.jpg": b"b/1.jpg",
    "00/2-" + "x" * 249 + ".jpg": b"x" * 251 + b".jpg",
    "00/3-1.jpg": b"a/1.jpg",
    f"11/1-{BAD}": b"a/caf\xe9.jpg",
}


def test_each_cluster_has_a_folder_of_links_in_the_order_of_the_distances(tmp_path, photographs):
    place = tmp_path / "by_cluster"
    link(place, photographs)
    assert content(place) == EXPECTED
    assert all(path.is_symlink() for path in place.glob("*/*"))
    assert sorted(os.listdir(place)) == [*(f"{k:02}" for k in range(12)), "made_from.json"]
    assert linked_folders(place, "one") == {k: f"{k:02}" for k in range(12)}
    assert linked_folders(place, "two") == linked_folders(tmp_path, "one") == {}


def test_photographs_are_copied_where_links_are_impossible(
    tmp_path, photographs, monkeypatch, caplog
):
    def refuse(*_, **__):
        raise PermissionError("links are not permitted")

    monkeypatch.setattr(os, "symlink", refuse)
    caplog.set_level(logging.INFO, "ktfast")
    place = tmp_path / "by_cluster"
    link(place, photographs)
    assert content(place) == EXPECTED
    assert not any(path.is_symlink() for path in place.glob("*/*"))
    assert "4 photographs are copied, because this file system allows no" in caplog.text


def test_folders_are_replaced_once_the_new_ones_are_complete(tmp_path, photographs, caplog):
    place = tmp_path / "by_cluster"
    link(place, photographs)
    with pytest.raises(DataError, match=r"gone\.jpg does not exist any more"):
        link(place, photographs, [*ROWS, ("a/gone.jpg", 3, 1.0)], "two")
    assert content(place) == EXPECTED
    assert linked_folders(place, "one")
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".")]
    link(place, photographs, ROWS[:1], "two")
    assert content(place) == {"00/1-1.jpg": b"a/1.jpg"}
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".")]


@pytest.mark.parametrize("site", ["mkdir", "symlink", "rename"])
def test_a_failing_disk_leaves_the_earlier_folders_or_none(
    tmp_path, photographs, monkeypatch, site
):
    place = tmp_path / "by_cluster"
    link(place, photographs)
    calls = 0
    original = getattr(os, site)

    for at in range(1, 20):
        calls = 0

        def fail(*args, at=at, **options):
            nonlocal calls
            calls += 1
            if calls == at:
                raise OSError(28, "No space left on device")
            return original(*args, **options)

        with monkeypatch.context() as patch:
            patch.setattr(os, site, fail)
            try:
                link(place, photographs, ROWS[:2], "two")
            except OSError:
                whole = content(place) == EXPECTED and bool(linked_folders(place, "one"))
                assert whole or not place.exists()
        link(place, photographs)
        assert content(place) == EXPECTED


def test_complete_folders_are_left_and_others_are_made_again(tmp_path, photographs, caplog):
    caplog.set_level(logging.INFO, "ktfast")
    place = tmp_path / "by_cluster"
    link(place, photographs)
    link(place, photographs)
    assert "by_cluster: up to date" in caplog.text
    (place / "00/1-1.jpg").unlink()
    link(place, photographs)
    assert content(place) == EXPECTED
    shutil.rmtree(place / "05")
    link(place, photographs)
    assert (place / "05").is_dir()
    (place / "made_from.json").write_text("{}")
    assert linked_folders(place, "one") == {}
    link(place, photographs)
    assert linked_folders(place, "one")


def test_a_killed_call_leaves_nothing_that_stays(tmp_path, photographs):
    place = tmp_path / "by_cluster"
    (tmp_path / ".by_cluster.making/00").mkdir(parents=True)
    (tmp_path / ".by_cluster.discarded/00").mkdir(parents=True)
    link(place, photographs)
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".")]
    discard_links(place)
    discard_links(place)
    assert sorted(os.listdir(tmp_path)) == ["photos"]
    assert sorted(os.listdir(photographs)) == ["a", "b", "x" * 251 + ".jpg"]
