"""PASCAL VOC folders, views of their photographs, and regions that may show objects."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat

from ktfast.errors import ConfigError, DataError
from ktfast.images.augment import draw, draw_one
from ktfast.images.file_records import FileHashes
from ktfast.voc.annotations import parse_objects
from ktfast.voc.boxes import overlaps
from ktfast.voc.data import CLASSES, VocSet
from ktfast.voc.feed import ViewFeed
from ktfast.voc.proposals import Proposals, windows
from ktfast.voc.views import AreaCrops, Masked, Rescaled, ViewGeometry
from support.voc_folder import VALUES, annotation, voc_folder

KINDS = ("Main", "Segmentation")


@pytest.fixture
def folder(tmp_path):
    return voc_folder(tmp_path / "VOC2007")


@pytest.fixture
def photographs(folder):
    return VocSet(folder, "few")


# --- the folder -----------------------------------------------------------------------------------
def test_objects_are_read_with_their_own_boxes(photographs):
    objects = photographs.objects[0]
    assert photographs.classes == CLASSES
    assert objects.labels.tolist() == [CLASSES.index("cat")]
    mask = VocSet(photographs.folder, "few", "Segmentation").mask(0)
    y, x = np.nonzero(mask)
    assert objects.boxes.tolist() == [[x.min(), y.min(), x.max() + 1, y.max() + 1]]


def test_masks_with_a_palette_and_gray_ones_read_alike(folder):
    masks = VocSet(folder, "few", "Segmentation")
    modes = set()
    for row in range(masks.n):
        name = ("cat", "train")[row % 2]
        assert set(np.unique(masks.mask(row))) == {0, VALUES[name], 255}
        with Image.open(masks.mask_path(row)) as image:
            modes.add(image.mode)
    assert modes == {"P", "L"}


def test_presence_leaves_out_what_is_difficult(folder):
    objects = [("cat", 1, 1, 5, 5, 0), ("cat", 1, 1, 9, 9, 1), ("dog", 1, 1, 9, 9, 1)]
    path = folder / "Annotations/2007_000000.xml"
    path.write_text(annotation(objects, 110, 150))
    presence = VocSet(folder, "few").presence()[0]
    assert presence[CLASSES.index("cat")] == 1
    assert presence[CLASSES.index("dog")] == 0
    assert (presence == -1).sum() == 18


def test_the_fingerprint_follows_the_content(folder, tmp_path):
    def prints():
        hashes = FileHashes(tmp_path / "files.json")
        return [VocSet(folder, "few", kind, hashes=hashes).fingerprint for kind in KINDS]

    before = prints()
    files = [path for path in folder.rglob("*") if path.is_file()]
    for path in files:
        os.utime(path)
    assert prints() == before
    # A mask and a photograph of equal size, but with other content.
    mask, photograph = (next(folder.rglob(f"2007_000002.{kind}")) for kind in ("png", "jpg"))
    old = mask.read_bytes(), photograph.read_bytes()
    mask.write_bytes(old[0][:-1] + b"x")
    assert [a == b for a, b in zip(prints(), before, strict=True)] == [True, False]
    photograph.write_bytes(old[1][:-1] + b"x")
    assert [a == b for a, b in zip(prints(), before, strict=True)] == [False, False]
    mask.write_bytes(old[0])
    photograph.write_bytes(old[1])
    assert prints() == before
    photograph.unlink()
    with pytest.raises(DataError, match=r"2007_000002\.jpg"):
        prints()


def test_the_fingerprint_follows_annotations_masks_and_lists(folder):
    before = VocSet(folder, "few").fingerprint, VocSet(folder, "few", "Segmentation").fingerprint
    assert VocSet(folder, "val").fingerprint == before[0]
    path = folder / "Annotations/2007_000001.xml"
    path.write_text(path.read_text().replace("<difficult>0", "<difficult>1"))
    Image.new("L", (7, 7)).save(folder / "SegmentationClass/2007_000001.png")
    after = VocSet(folder, "few").fingerprint, VocSet(folder, "few", "Segmentation").fingerprint
    assert before[0] != after[0]
    assert before[1] != after[1]


def write(folder, name, text):
    (folder / name).write_text(text)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda f: (f / "ImageSets/Main/few.txt").unlink(),
            r"few\.txt does not exist.* it has other, val",
        ),
        (lambda f: write(f, "ImageSets/Main/few.txt", "\n"), "lists no image"),
        (lambda f: write(f, "ImageSets/Main/few.txt", "x\n"), r"JPEGImages/x\.jpg: No such file"),
        (
            lambda f: write(f, "Annotations/2007_000002.xml", "<a>"),
            "02.xml cannot be read as an XML",
        ),
        (lambda f: (f / "Annotations/2007_000002.xml").unlink(), "2007_000002.xml does not exist"),
        (lambda f: write(f, "Annotations/2007_000002.xml", "<svg/>"), "root element <svg>"),
        (
            lambda f: write(
                f,
                "Annotations/2007_000002.xml",
                '<?xml version="1.0" encoding="bogus"?><annotation/>',
            ),
            "2007_000002.xml cannot be read as an XML file .*bogus",
        ),
        (
            lambda f: write(
                f, "Annotations/2007_000002.xml", annotation([("cow", 1, 1, 8, 5, "ja")], 9, 9)
            ),
            "an object with difficult 'ja'; write 0 or 1",
        ),
        (
            lambda f: write(
                f, "Annotations/2007_000002.xml", annotation([("cow ", 9, 1, 8, 5, 0)], 9, 9)
            ),
            "2007_000002.xml has an empty box: x 9 to 8, y 1 to 5",
        ),
        (
            lambda f: write(
                f, "Annotations/2007_000002.xml", annotation([("cow", "a", 1, 8, 5, 0)], 9, 9)
            ),
            "2007_000002.xml has a box of xmin 'a'",
        ),
        (
            lambda f: write(
                f, "Annotations/2007_000002.xml", annotation([("yak", 1, 1, 8, 5, 0)], 9, 9)
            ),
            "class 'yak'",
        ),
    ],
)
def test_what_is_wrong_with_a_folder_is_named(folder, spoil, message):
    spoil(folder)
    with pytest.raises(DataError, match=message):
        VocSet(folder, "few")


@pytest.mark.parametrize(
    ("text", "difficult"),
    [("1", 1), ("true", 1), ("1.0", 1), (" True ", 1), ("0", 0), ("false", 0), ("0.0", 0), ("", 0)],
)
def test_the_flag_difficult_has_several_spellings(text, difficult):
    content = annotation([("cow", 1, 1, 8, 5, text)], 9, 9).encode()
    assert parse_objects(content, Path("x.xml"), ["cow"]).difficult.tolist() == [bool(difficult)]


def test_entities_that_grow_are_refused():
    entities = "".join(
        f'<!ENTITY e{i} "{f"&e{i - 1};" * 10 if i else "lol" * 10}">' for i in range(12)
    )
    content = f"<!DOCTYPE a [{entities}]><annotation>&e11;</annotation>"
    with pytest.raises(DataError, match=r"x\.xml cannot be read as an XML file"):
        parse_objects(content.encode(), Path("x.xml"), ["cow"])


def renamed(folder, key, name):
    """Give a photograph, its annotation and the lists another name."""
    stem = name.rpartition(".")[0]
    (folder / f"JPEGImages/{key}.jpg").rename(folder / "JPEGImages" / name)
    (folder / f"Annotations/{key}.xml").rename(folder / f"Annotations/{stem}.xml")
    return stem


@pytest.mark.parametrize("name", ["a.JPG", "a.png", "my photo 1.jpg", "my photo 1.Jpeg", "été.jpg"])
@pytest.mark.parametrize("line", ["{}", "{} -1", "{}   1", "\ufeff{}"])
def test_ids_may_have_spaces_flags_and_other_suffixes(folder, name, line):
    key = renamed(folder, "2007_000003", name)
    (folder / "ImageSets/Main/few.txt").write_text(f"{line.format(key)}\r\n", "utf-8")
    photographs = VocSet(folder, "few")
    assert photographs.ids == (key,)
    assert photographs.paths == (f"JPEGImages/{name}",)
    assert len(photographs.objects[0].boxes) == 1


def test_a_list_may_name_the_files(folder):
    (folder / "ImageSets/Main/few.txt").write_text("2007_000003.jpg\n2007_000001.jpg\n")
    assert VocSet(folder, "few").ids == ("2007_000003", "2007_000001")


def test_an_id_that_can_mean_two_photographs_is_refused(folder):
    shutil.copy(folder / "JPEGImages/2007_000001.jpg", folder / "JPEGImages/2007_000000 1.jpg")
    shutil.copy(folder / "Annotations/2007_000001.xml", folder / "Annotations/2007_000000 1.xml")
    path = folder / "ImageSets/Main/few.txt"
    path.write_text("2007_000000 1\n2007_000002 1\n")
    with pytest.raises(DataError, match=r"few\.txt: the line '2007_000000 1' can mean"):
        VocSet(folder, "few")
    path.write_text("2007_000000 1\n2007_000002\n")
    assert VocSet(folder, "few").ids == ("2007_000000 1", "2007_000002")
    for suffix in (".PNG", ".webp"):
        shutil.copy(folder / "JPEGImages/2007_000001.jpg", folder / f"JPEGImages/twice{suffix}")
    path.write_text("twice\n")
    with pytest.raises(DataError, match=r"the id twice can mean twice\.PNG or twice\.webp"):
        VocSet(folder, "few")


def test_a_class_named_twice_is_refused(folder):
    with pytest.raises(ConfigError, match="holds a name twice: cat, train, cat"):
        VocSet(folder, "few", classes=("cat", "train", "cat"))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (Image.new("L", (110, 150), 21), "holds the value 21"),
        (Image.new("RGB", (110, 150)), "is of mode RGB"),
        (None, "cannot be read"),
    ],
)
def test_what_is_wrong_with_a_mask_is_named(folder, image, message):
    path = folder / "SegmentationClass/2007_000003.png"
    path.write_bytes(b"\x89PNG")
    if image is not None:
        image.save(path)
    with pytest.raises(DataError, match=f"2007_000003.png {message}"):
        VocSet(folder, "few", "Segmentation").mask(3)


def test_real_folders_are_read(data_folder):
    """Lists of one class, which VOC gives beside the annotations, say the same."""
    coco = data_folder / "voc/coco128/VOC2012"
    images = VocSet(coco, "train")
    presence = images.presence()
    for k, name in enumerate(CLASSES):
        path = coco / f"ImageSets/Main/{name}_train.txt"
        flags = dict(line.split() for line in path.read_text().splitlines())
        assert [int(flags[key]) for key in images.ids] == presence[:, k].tolist()
    real = VocSet(data_folder / "voc/voc2012_real100/VOC2012", "trainval")
    assert sum(len(objects.boxes) for objects in real.objects) == 273
    assert sum(int(objects.difficult.sum()) for objects in real.objects) == 38
    for row, objects in enumerate(real.objects):
        height, width = real.shape(row)
        assert (objects.boxes >= 0).all()
        assert (objects.boxes <= [width, height, width, height]).all()


# --- views ----------------------------------------------------------------------------------------
def test_one_draw_is_that_of_many():
    ids = torch.tensor([0, 1, 2**62 + 12345, 2**63 - 1])
    for n, number in ((2, 0), (1 << 24, 3), (999, 4)):
        many = draw(ids, n, seed=7, epoch=5, number=number).tolist()
        assert many == [draw_one(i, n, seed=7, epoch=5, number=number) for i in ids.tolist()]


def test_area_crops_cover_what_was_asked_for(photographs):
    view = AreaCrops(photographs, crop=64, area=(0.1, 0.5), seed=0, mirror=True)
    first = view(0, 3)
    assert first.shape == (64, 64, 3)
    assert np.array_equal(first, view(0, 3))
    assert not np.array_equal(first, view(0, 4))
    whole = AreaCrops(photographs, crop=110, area=(1.0, 1.0), seed=0, mirror=False)
    # A square of the full area does not fit: its side is the shorter one's, 110 of 110 x 150.
    pixels = np.asarray(photographs.image(0))
    tops = [int(np.abs(pixels[y : y + 110].astype(int) - whole(0, 0)).sum()) for y in range(41)]
    assert min(tops) < 110 * 110 * 3 * 3


def test_views_are_mirrored_half_of_the_time(photographs):
    view = Masked(photographs, seed=0, mirror=True)
    mirrored = [view.mirrored(row, epoch) for row in range(8) for epoch in range(100)]
    assert 340 < sum(mirrored) < 460
    epoch = next(e for e in range(99) if view.mirrored(0, e))
    plain = Masked(photographs, seed=0, mirror=False)(0, epoch)
    assert np.array_equal(view(0, epoch), plain[:, ::-1])


def test_boxes_move_with_the_pixels(photographs):
    view = Rescaled(photographs, short_sides=(200,), longest=250, seed=0, mirror=True)
    for row, epoch in ((0, 0), (1, 0), (0, 1), (1, 1), (0, 2)):
        geometry, pixels = view.geometry(row, epoch), view(row, epoch)
        assert pixels.shape == (geometry.height, geometry.width, 3)
        assert max(pixels.shape) <= 250
        objects = photographs.objects[row]
        left, top, right, bottom = geometry.into_view(objects.boxes)[0].round().astype(int)
        color = (250, 30, 30) if objects.labels[0] == CLASSES.index("cat") else (30, 30, 250)
        inside = pixels[top + 3 : bottom - 3, left + 3 : right - 3].reshape(-1, 3)
        assert np.abs(inside.astype(int) - color).mean() < 10


def test_mirrored_boxes_keep_left_before_right():
    geometry = ViewGeometry(height=100, width=200, scale_y=1.0, scale_x=2.0, mirrored=True)
    assert geometry.into_view(np.array([[0, 5, 10, 20]], np.float32)).tolist() == [
        [180, 5, 200, 20]
    ]


def test_a_mask_of_another_size_is_named(folder):
    Image.new("L", (7, 9)).save(folder / "SegmentationClass/2007_000000.png")
    view = Masked(VocSet(folder, "few", "Segmentation"), seed=0, mirror=False)
    with pytest.raises(DataError, match=r"2007_000000\.png has 7 x 9 pixels, its photograph 110"):
        view(0, 0)


def test_the_feed_fills_up_smaller_views(folder):
    view = Masked(VocSet(folder, "few", "Segmentation"), seed=0, mirror=False)
    with ViewFeed(view, batch_size=3, shuffle=False, n_threads=2) as feed:
        batches = list(feed.epoch(0))
        later = list(feed.epoch(0, start=2))
    assert [len(batch) for batch in batches] == [3, 3, 2]
    assert torch.equal(batches[2].pool, later[0].pool)
    pool = batches[0].pool.numpy()
    assert pool.shape == (3, 150, 160, 4)
    for row, (height, width) in enumerate([(150, 110), (120, 160), (120, 160)]):
        assert np.array_equal(pool[row, :height, :width], view(row, 0))
        assert (pool[row, height:] == (124, 116, 104, 255)).all()
        assert (pool[row, :, width:] == (124, 116, 104, 255)).all()


def test_a_damaged_photograph_is_named_by_the_feed(folder):
    (folder / "JPEGImages/2007_000001.jpg").write_bytes(b"\xff\xd8\xff")
    view = AreaCrops(VocSet(folder, "few"), crop=64, area=(0.1, 0.5), seed=0, mirror=True)
    with (
        ViewFeed(view, batch_size=3, shuffle=False, n_threads=2) as feed,
        pytest.raises(DataError, match="2007_000001"),
    ):
        list(feed.epoch(0))


# --- regions --------------------------------------------------------------------------------------
def test_windows_overlap_most_objects(data_folder):
    found = windows(120, 160)
    assert (found[:, :2] >= 0).all()
    assert (found[:, 2] <= 160).all()
    assert (found[:, 3] <= 120).all()
    real = VocSet(data_folder / "voc/voc2012_real100/VOC2012", "trainval")
    best = [
        overlaps(objects.boxes[~objects.difficult], windows(*real.shape(row))).max(1)
        for row, objects in enumerate(real.objects)
    ]
    assert (np.concatenate(best) >= 0.5).mean() > 0.9


def test_published_proposals_become_edges(photographs, tmp_path):
    """Girshick's .mat files: top, left, bottom, right, inclusive and counted from 1."""
    cells = np.empty((1, photographs.n), object)
    ids = np.empty((photographs.n, 1), object)
    for row, key in enumerate(photographs.ids):
        ids[row, 0] = key
        cells[0, row] = np.array([[1, 2, 40, 50], [5, 5, 9999, 9999]], np.float64)
    savemat(tmp_path / "ss.mat", {"images": ids, "boxes": cells})
    proposals = Proposals.read(tmp_path / "ss.mat", photographs)
    assert proposals.boxes(0).tolist() == [[1, 0, 50, 40], [4, 4, 110, 150]]
    assert proposals.boxes(1).tolist() == [[1, 0, 50, 40], [4, 4, 160, 120]]


def test_own_proposals_are_read_from_npz(photographs, tmp_path):
    counts = np.arange(1, photographs.n + 1)
    boxes = np.tile([0.5, 1, 20, 30], (counts.sum(), 1))
    np.savez(tmp_path / "own.npz", ids=np.array(photographs.ids), counts=counts, boxes=boxes)
    proposals = Proposals.read(tmp_path / "own.npz", photographs)
    assert [len(proposals.boxes(row)) for row in range(photographs.n)] == counts.tolist()
    assert proposals.boxes(0).tolist() == [[0.5, 1, 20, 30]]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"ids": ["a"], "counts": [1], "boxes": [[0, 0, 1, 1]]}, "no proposals for 8 of the 8"),
        ({"ids": ["a"], "counts": [2], "boxes": [[0, 0, 1, 1]]}, "add up to 2, and 1 boxes"),
        ({"ids": ["a"], "counts": [1]}, "lacks boxes; it holds 'ids', 'counts'"),
        ({"ids": ["a"], "counts": [[1]], "boxes": [[0, 0, 1, 1]]}, "add up to 1, and 1 boxes"),
        ({"ids": ["a", "b"], "counts": [2, -1], "boxes": [[0, 0, 1, 1]]}, "counts int64"),
        ({"ids": ["a"], "counts": [1.0], "boxes": [[0, 0, 1, 1]]}, "counts float64"),
        ({"ids": ["a", "a"], "counts": [1, 1], "boxes": np.ones((2, 4))}, "the image a twice"),
        ({"ids": ["a"], "counts": [4], "boxes": [0, 0, 1, 1]}, r"the shape \[4\], not \[m, 4\]"),
        ({"ids": ["a"], "counts": [4], "boxes": np.ones((4, 5))}, r"the shape \[4, 5\], not"),
        ({"ids": ["a"], "counts": [1], "boxes": [[0, 0, 1, np.nan]]}, "box of a is not finite"),
        ({"ids": ["a"], "counts": [1], "boxes": [["0"] * 4]}, "boxes of a are no numbers"),
    ],
)
def test_what_is_wrong_with_proposals_is_named(photographs, tmp_path, arrays, message):
    np.savez(tmp_path / "own.npz", **arrays)
    with pytest.raises(DataError, match=message):
        Proposals.read(tmp_path / "own.npz", photographs)


@pytest.mark.parametrize("name", ["none.mat", "odd.mat", "odd.npz"])
def test_a_file_that_holds_no_proposals_is_named(photographs, tmp_path, name):
    if name.startswith("odd"):
        (tmp_path / name).write_bytes(b"MATLAB 7.3 MAT-file, or not" * 20)
    with pytest.raises(DataError, match=name):
        Proposals.read(tmp_path / name, photographs)
