"""Pictures of puzzles: the squares that were cut, the tiles in their slots, and occluders."""

import numpy as np
import pytest

from ktfast.errors import DataError
from ktfast.pretext.tile_pictures import puzzle_examples
from support.fake_run import CELL, GRID, TILE, puzzle_arrays


def test_cut_squares_hold_the_tiles_that_the_puzzle_shows():
    arrays = puzzle_arrays(1, seed=3)
    arrays["occluded"][:] = 0
    cells, offsets = arrays["cells"][0], arrays["offsets"][0]
    photograph, mosaic = puzzle_examples(arrays)[0].panels
    assert len(photograph.squares) == len(mosaic.squares) == GRID**2
    for slot, (cut, box) in enumerate(zip(photograph.squares, mosaic.squares, strict=True)):
        assert cut.text == box.text == str(cells[slot] + 1)
        assert (cut.y // CELL, cut.x // CELL) == divmod(int(cells[slot]), GRID)
        assert (cut.y % CELL, cut.x % CELL) == tuple(offsets[slot, 1])
        # the green channel of the tile, up to its normalisation, is that square of the photograph
        square = arrays["images"][0, cut.y : cut.y + TILE, cut.x : cut.x + TILE, 1].astype(float)
        tile = arrays["tiles"][0, slot, ..., 1].astype(float)
        inside = (tile > 0) & (tile < 255)
        if square[inside].std() > 10:
            assert np.corrcoef(square[inside], tile[inside])[0, 1] > 0.98
        shown = mosaic.pixels[box.y : box.y + TILE, box.x : box.x + TILE]
        np.testing.assert_array_equal(shown, arrays["tiles"][0, slot])
        assert (box.drawn, cut.drawn) == (False, True)


def test_occluded_tiles_are_marked_and_not_drawn_in_the_photograph():
    arrays = puzzle_arrays(3)
    example = puzzle_examples(arrays)[2]
    photograph, mosaic = example.panels
    assert example.caption.endswith(", 2 tiles from another image")
    assert len(photograph.squares) == GRID**2 - 2
    marked = [slot for slot, box in enumerate(mosaic.squares) if box.marked]
    assert marked == np.flatnonzero(arrays["occluded"][2]).tolist()
    assert all(mosaic.squares[slot].text == "×" and mosaic.squares[slot].drawn for slot in marked)


def test_puzzles_that_do_not_fit_are_refused():
    arrays = puzzle_arrays(1)
    arrays["cells"] = arrays["cells"][:, :4]
    with pytest.raises(DataError, match="do not fit each other"):
        puzzle_examples(arrays)


def test_gaps_lie_between_the_tiles():
    mosaic = puzzle_examples(puzzle_arrays(1))[0].panels[1]
    side = mosaic.pixels.shape[0]
    covered = np.zeros((side, side), bool)
    for x, y, width, height in mosaic.gaps:
        covered[y : y + height, x : x + width] = True
    for box in mosaic.squares:
        assert not covered[box.y : box.y + TILE, box.x : box.x + TILE].any()
    assert (~covered).sum() == GRID**2 * TILE**2
