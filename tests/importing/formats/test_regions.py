"""Filled outlines, judged in exact fractions and by pycocotools; overlaps by hand; run lengths by the COCO API."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from segline.importing.formats import regions
from segline.importing.formats.regions import Region, RunsError, decompress, disc, paint, polygon, region, union

SHAPE = (10, 12)

# Made with maskApi.c of the COCO API (rleFrPoly, then rleDecode).
COCO_API = {
    "kite": (
        [[6.2, 1.1], [10.7, 5.4], [5.9, 9.3], [1.4, 4.8]],
        """
        ............
        ......#.....
        ....####....
        ...######...
        ..########..
        ..#########.
        ...######...
        ....####....
        .....##.....
        ............
        """,
    ),
    "not convex": (
        [[1, 1], [11, 5], [1, 9], [4, 5]],
        """
        ............
        .#..........
        ..###.......
        ...####.....
        ....######..
        ....######..
        ...####.....
        ..###.......
        .#..........
        ............
        """,
    ),
    "crosses itself": (
        [[1.3, 1.2], [10.6, 8.7], [10.6, 1.2], [1.3, 8.7]],
        """
        ............
        .#........#.
        .##......##.
        .###....###.
        .####..####.
        .####..####.
        .###....###.
        .##......##.
        .#........#.
        ............
        """,
    ),
    "box": (
        [[2, 3], [2, 8], [7, 8], [7, 3]],
        """
        ............
        ............
        ............
        ..#####.....
        ..#####.....
        ..#####.....
        ..#####.....
        ..#####.....
        ............
        ............
        """,
    ),
    "sliver": ([[1.0, 4.6], [11.0, 4.8], [11.0, 5.4], [1.0, 5.2]], "............\n" * 10),
}


def picture(text: str) -> np.ndarray:
    return np.array([[sign == "#" for sign in line.strip()] for line in text.strip().splitlines()])


def whole(region: Region, shape: tuple[int, int]) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[region.window] = region.inside
    return mask


@pytest.mark.parametrize("name", COCO_API)
def test_polygons_equal_those_of_pycocotools(name: str) -> None:
    points, expected = COCO_API[name]
    np.testing.assert_array_equal(whole(polygon(np.array(points, float), SHAPE), SHAPE), picture(expected))


def exactly_inside(points: list[tuple[int, int]], x: int, y: int) -> bool:
    """Whether the centre of pixel (x, y) is inside, by a ray to the left in fractions; points are in eighths."""
    centre_x, centre_y, inside = Fraction(2 * x + 1, 2), Fraction(2 * y + 1, 2), False
    corners = [(Fraction(a, 8), Fraction(b, 8)) for a, b in points]
    for (x0, y0), (x1, y1) in zip(corners, corners[1:] + corners[:1], strict=True):
        if (y0 <= centre_y) != (y1 <= centre_y) and x0 + (centre_y - y0) * (x1 - x0) / (y1 - y0) <= centre_x:
            inside = not inside
    return inside


@settings(max_examples=150)
@given(
    points=st.lists(st.tuples(st.integers(-8, 80), st.integers(-8, 64)), min_size=3, max_size=9),
    height=st.integers(1, 8),
    width=st.integers(1, 9),
)
def test_a_pixel_is_inside_when_its_centre_is(points: list[tuple[int, int]], height: int, width: int) -> None:
    mask = whole(polygon(np.array(points) / 8, (height, width)), (height, width))
    expected = [[exactly_inside(points, x, y) for x in range(width)] for y in range(height)]
    np.testing.assert_array_equal(mask, expected)


@settings(max_examples=50)
@given(st.lists(st.tuples(st.floats(0.1, 11.9), st.floats(0.1, 9.9)), min_size=1, max_size=6))
def test_outlines_along_one_line_share_no_pixel_and_leave_none_out(line: list[tuple[float, float]]) -> None:
    cut = [(0.0, 4.0), *line, (12.0, 5.0)]
    above = polygon(np.array([*cut, (12, 0), (0, 0)]), SHAPE)
    below = polygon(np.array([(0, 10), (12, 10), *cut[::-1]]), SHAPE)
    assert (whole(above, SHAPE) ^ whole(below, SHAPE)).all()


def test_disc_holds_the_pixels_within_the_radius() -> None:
    y, x = np.mgrid[:10, :12] + 0.5
    for centre, radius in (((4.25, 5.5), 3.1), ((0.0, 0.0), 4.0), ((11.5, 9.5), 0.2), ((6.0, 5.0), 30.0)):
        expected = (x - centre[0]) ** 2 + (y - centre[1]) ** 2 <= radius**2
        np.testing.assert_array_equal(whole(disc(np.array(centre), radius, SHAPE), SHAPE), expected)


def test_cut_out_then_laid_back_is_the_same() -> None:
    mask = np.zeros(SHAPE, bool)
    assert Region.of(mask).area == 0
    mask[2:5, 3], mask[8, 10] = True, True
    region = Region.of(mask)
    assert (region.top, region.left, region.area) == (2, 3, 4)
    np.testing.assert_array_equal(whole(region, SHAPE), mask)


def test_union_is_or() -> None:
    parts = [box(1, 1, 3, 3), box(5, 7, 2, 4), box(2, 2, 2, 2)]
    expected = np.logical_or.reduce([whole(part, SHAPE) for part in parts])
    np.testing.assert_array_equal(whole(union(parts), SHAPE), expected)


def box(top: int, left: int, height: int, width: int) -> Region:
    return Region(top, left, np.ones((height, width), bool))


def test_the_smaller_object_gets_the_pixels_in_any_order() -> None:
    cell, nucleus = box(1, 1, 6, 6), box(3, 3, 2, 2)
    for order in ([cell, nucleus], [nucleus, cell]):
        painted = paint(order, SHAPE)
        assert (painted.overlapping, painted.hidden) == (4, 0)
        assert np.count_nonzero(painted.labels == order.index(nucleus) + 1) == 4
        assert np.count_nonzero(painted.labels == order.index(cell) + 1) == 32


def test_of_two_equal_objects_the_later_gets_the_pixels() -> None:
    painted = paint([box(0, 0, 2, 2), box(0, 0, 2, 2), box(4, 4, 1, 3), box(4, 5, 1, 3)], SHAPE)
    assert (painted.overlapping, painted.hidden) == (4 + 2, 1)
    assert painted.labels[0, 0] == 2
    assert painted.labels[4].tolist() == [0, 0, 0, 0, 3, 4, 4, 4, 0, 0, 0, 0]
    assert painted.labels.dtype == np.int32


def test_memory_of_a_large_image_depends_on_its_objects() -> None:
    region = polygon(np.array([[19_990.0, 5.0], [19_999.0, 5.0], [19_999.0, 9.0]]), (20_000, 20_000))
    assert region.inside.size < 50
    assert regions.disc(np.array([100.0, 19_999.0]), 4.0, (20_000, 20_000)).inside.size < 100


# Strings by rleToString of maskApi.c, the runs by rleEncode.
RLE_STRINGS = [
    ("h3", [120]),
    ("414", [4, 1, 4]),
    ("g0550000000_1", [23, 5, 5, 5, 5, 5, 5, 5, 5, 5, 52]),
    ("h0272N2O1N11N2N2N2O5", [24, 2, 7, 4, 5, 6, 4, 7, 2, 8, 3, 6, 5, 4, 7, 2, 9, 1, 14]),
    (";83N2N2Ne00[O2N2N28", [11, 8, 3, 6, 5, 4, 7, 2, 28, 2, 7, 4, 5, 6, 3, 8, 11]),
]


@pytest.mark.parametrize(("text", "counts"), RLE_STRINGS)
def test_strings_of_the_coco_api(text: str, counts: list[int]) -> None:
    assert decompress(text) == counts


def runs(mask: np.ndarray) -> list[int]:
    """Column by column, background first."""
    values = mask.T.ravel().tolist()
    grouped = [(value, len(list(group))) for value, group in itertools.groupby(values)]
    return [0] * bool(grouped[0][0]) + [length for _, length in grouped]


def compressed(counts: list[int]) -> str:
    """As the COCO API documents it: changes since the last but one, five bits a character from 48 on."""
    text = ""
    for place, count in enumerate(counts):
        value, more = count - (counts[place - 2] if place > 2 else 0), True
        while more:
            bits, value = value & 31, value >> 5
            more = value != (-1 if bits & 16 else 0)
            text += chr(48 + bits + 32 * more)
    return text


@settings(max_examples=100)
@given(arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=9)))
def test_written_then_read_is_the_same(mask: np.ndarray) -> None:
    counts = runs(mask)
    assert decompress(compressed(counts)) == counts
    found = region(counts, mask.shape)
    again = np.zeros(mask.shape, bool)
    again[found.window] = found.inside
    np.testing.assert_array_equal(again, mask)


@settings(max_examples=100)
@given(st.lists(st.integers(0, 400_000_000), min_size=1, max_size=20))
def test_large_runs_survive(counts: list[int]) -> None:
    assert decompress(compressed(counts)) == counts


def test_runs_of_zero_length_are_allowed() -> None:
    assert region([2, 0, 1, 2, 0, 1, 0], (3, 2)).area == 3


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ([4, 1], "the runs in segmentation.counts have 5 pixels in total, but the image has 3x2 = 6 pixels"),
        ([], "the runs in segmentation.counts have 0 pixels in total"),
        ([7, -1], "a run of 7 pixels"),
        ([5, -1, 2], "a run of -1 pixels"),
        ([2**62, 2**62, 2**62, 2**62, 6], "a run of 4611686018427387904"),
    ],
)
def test_invalid_run_lengths_are_refused(counts: list[int], message: str) -> None:
    with pytest.raises(RunsError, match=message):
        region(counts, (2, 3))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("4 1", "the character ' ' at position 1"),
        ("41é", "the character 'é' at position 2"),
        ("4P", "ends in the middle of a number, so the text is truncated"),
    ],
)
def test_invalid_run_length_strings_are_refused(text: str, message: str) -> None:
    with pytest.raises(RunsError, match=message):
        decompress(text)


def test_only_the_columns_of_the_object_are_unfolded() -> None:
    found = region([20_000 * 19_000 + 7, 3, 20_000 * 999 + 19_990], (20_000, 20_000))
    assert (found.top, found.left, found.inside.shape) == (7, 19_000, (3, 1))
