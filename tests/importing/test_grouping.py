"""Groups of consecutive images, judged by laws, and by the splits that the groups allow."""

from itertools import pairwise

import pytest

from segline.data.splits import assign
from segline.importing.grouping import series_groups


def series(**lengths: int) -> dict[str, list[str]]:
    return {name: [f"{name}_{number:03}" for number in range(length)] for name, length in lengths.items()}


def test_three_series_are_kept_whole() -> None:
    found, why = series_groups(series(a=3, b=2, c=1), "stack")
    assert found == {"a_000": "a", "a_001": "a", "a_002": "a", "b_000": "b", "b_001": "b", "c_000": "c"}
    assert why == "groups: each stack is a group, because images of one stack look alike"


def test_thirty_slices_are_ten_runs_of_three() -> None:
    found, why = series_groups(series(volume=30), "stack")
    assert list(dict.fromkeys(found.values()))[:2] == ["volume_000-002", "volume_003-005"]
    assert len(set(found.values())) == 10
    assert "groups: runs of about 3 consecutive images" in why


def test_few_images_are_not_grouped() -> None:
    found, why = series_groups(series(a=3, b=2), "sequence")
    assert all(stem == group for stem, group in found.items())
    assert why.startswith("warning: 5 images are too few to group")
    assert set(assign(found, val_percent=10, test_percent=10).values()) == {"train", "validation", "test"}


@pytest.mark.parametrize("lengths", [{"a": 6}, {"a": 9}, {"a": 5, "b": 1}, {"a": 30}, {"a": 57, "b": 8}, {"a": 1000}])
def test_groups_are_runs_and_can_be_split(lengths: dict[str, int]) -> None:
    given = series(**lengths)
    found, _ = series_groups(given, "sequence")
    stems = [stem for run in given.values() for stem in run]
    assert list(found) == stems
    changes = sum(found[one] != found[other] for one, other in pairwise(stems))
    assert changes == len(set(found.values())) - 1  # each group is one run
    assert all(stem.startswith(found[stem][0]) for stem in stems)  # and of one series
    splits = assign(found, val_percent=10, test_percent=10)
    assert set(splits.values()) == {"train", "validation", "test"}
