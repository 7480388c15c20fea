"""Run lengths, judged by strings and runs that the COCO API wrote, and by writing and reading back."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from segline.importing.formats.regions import RunsError, decompress, region

# Strings by rleToString of maskApi.c, the runs by rleEncode.
COCO_API = [
    ("h3", [120]),
    ("414", [4, 1, 4]),
    ("g0550000000_1", [23, 5, 5, 5, 5, 5, 5, 5, 5, 5, 52]),
    ("h0272N2O1N11N2N2N2O5", [24, 2, 7, 4, 5, 6, 4, 7, 2, 8, 3, 6, 5, 4, 7, 2, 9, 1, 14]),
    (";83N2N2Ne00[O2N2N28", [11, 8, 3, 6, 5, 4, 7, 2, 28, 2, 7, 4, 5, 6, 3, 8, 11]),
]


@pytest.mark.parametrize(("text", "counts"), COCO_API)
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
    ("counts", "says"),
    [
        ([4, 1], "add up to 5 pixels, but the image has 3x2 = 6"),
        ([], "add up to 0 pixels"),
        ([7, -1], "a run of 7 pixels"),
        ([5, -1, 2], "a run of -1 pixels"),
        ([2**62, 2**62, 2**62, 2**62, 6], "a run of 4611686018427387904"),
    ],
)
def test_runs_that_are_no_mask(counts: list[int], says: str) -> None:
    with pytest.raises(RunsError, match=says):
        region(counts, (2, 3))


@pytest.mark.parametrize(("text", "says"), [("4 1", "' ' at place 1"), ("41é", "'é' at place 2"), ("4P", "break off")])
def test_strings_that_are_no_runs(text: str, says: str) -> None:
    with pytest.raises(RunsError, match=says):
        decompress(text)


def test_only_the_columns_of_the_object_are_unfolded() -> None:
    found = region([20_000 * 19_000 + 7, 3, 20_000 * 999 + 19_990], (20_000, 20_000))
    assert (found.top, found.left, found.inside.shape) == (7, 19_000, (3, 1))
