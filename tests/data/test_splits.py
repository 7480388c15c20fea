"""Splits, judged by tables made by hand and by laws that hold for any dataset."""

from collections import Counter, defaultdict
from itertools import product

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from segline.data.splits import SplitError, assign

SLICES = {f"{number:02d}": f"{number:02d}" for number in [*range(9), *range(15, 24)]}


def counts(groups: dict[str, str], **settings: object) -> tuple[int, int, int]:
    images_of = Counter(assign(groups, **({"val_percent": 10, "test_percent": 10} | settings)).values())  # type: ignore[arg-type]
    return images_of["train"], images_of["validation"], images_of["test"]


def singles(number: int) -> dict[str, str]:
    return {f"image{index}": f"image{index}" for index in range(number)}


@pytest.mark.parametrize(
    ("images", "percent", "expected"),
    [
        (24, (10, 10), (18, 3, 3)),  # 2.4 is rounded up
        (30, (10, 10), (24, 3, 3)),  # 3.0000000000000004 is not
        (10, (10, 10), (7, 2, 1)),  # at least two validation images
        (4, (10, 10), (1, 2, 1)),
        (1000, (5, 20), (750, 50, 200)),
    ],
)
def test_percentages_give_the_expected_counts(
    images: int, percent: tuple[float, float], expected: tuple[int, int, int]
) -> None:
    assert counts(singles(images), val_percent=percent[0], test_percent=percent[1]) == expected


def test_blocks_are_named_by_group() -> None:
    splits = assign(
        SLICES,
        val_percent=10,
        test_percent=10,
        validation=("04", "19"),
        test=("06", "07", "08", "21", "22", "23"),
    )
    assert [name for name, split in splits.items() if split == "test"] == ["06", "07", "08", "21", "22", "23"]
    assert [name for name, split in splits.items() if split == "validation"] == ["04", "19"]
    assert Counter(splits.values())["train"] == 10


def test_a_split_without_names_is_drawn_by_percentage() -> None:
    splits = assign(SLICES, val_percent=20, test_percent=50, test=("06", "07"))
    assert Counter(splits.values()) == {"train": 12, "validation": 4, "test": 2}
    assert splits["06"] == splits["07"] == "test"


def test_a_group_name_stands_for_its_images() -> None:
    groups = {"a": "mouse", "b": "mouse", "c": "rat", "d": "cat", "e": "dog", "f": "dog"}
    splits = assign(groups, val_percent=10, test_percent=10, validation=("mouse",), test=("e", "f"))
    assert splits == {"a": "validation", "b": "validation", "c": "train", "d": "train", "e": "test", "f": "test"}


@settings(max_examples=150)
@given(
    members=st.lists(st.integers(0, 12), min_size=4, max_size=60),
    percents=st.tuples(st.floats(1, 45), st.floats(1, 45)),
    seed=st.integers(0, 5),
    shuffle=st.randoms(use_true_random=False),
)
def test_splits_obey_their_laws(members: list[int], percents: tuple[float, float], seed: int, shuffle: object) -> None:
    groups = {f"image{index}": f"group{member}" for index, member in enumerate(members)}
    try:
        splits = assign(groups, val_percent=percents[0], test_percent=percents[1], seed=seed)
    except SplitError:
        assume(False)
    images_of = Counter(splits.values())
    assert sum(images_of.values()) == len(groups)
    assert images_of["train"] >= 1
    assert images_of["validation"] >= 2
    assert images_of["test"] >= 1
    of_group = defaultdict(set)
    for image, split in splits.items():
        of_group[groups[image]].add(split)
    assert all(len(found_in) == 1 for found_in in of_group.values())
    order = list(groups.items())
    shuffle.shuffle(order)  # type: ignore[attr-defined]
    assert assign(dict(order), val_percent=percents[0], test_percent=percents[1], seed=seed) == splits


def test_large_groups_approximate_the_percentages() -> None:
    groups = {f"image{index}": f"group{index % 10}" for index in range(100)}
    assert counts(groups) == (80, 10, 10)
    assert counts(groups, val_percent=14) == (80, 10, 10)
    assert counts(groups, val_percent=16) == (70, 20, 10)


def of_sizes(*sizes: int) -> dict[str, str]:
    """Map images to groups of these sizes."""
    return {f"{group}-{index}": f"group{group}" for group, size in enumerate(sizes) for index in range(size)}


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ((6, 6, 1), (6, 6, 1)),  # two validation images take a group of six
        ((6, 6, 1, 1, 1), (12, 2, 1)),  # the test takes one of three images, because the validation needs two
        ((10, 1, 1, 1), (10, 2, 1)),
        ((9, 1, 1), (1, 9, 1)),
        ((6, 1, 1, 1, 1), (7, 2, 1)),
        ((8, 7, 6), (8, 7, 6)),
    ],
)
@pytest.mark.parametrize("seed", range(5))
def test_whole_groups_fill_a_split_to_its_minimum(sizes: tuple[int, ...], expected: tuple[int, ...], seed: int) -> None:
    assert counts(of_sizes(*sizes), seed=seed) == expected


@settings(max_examples=150)
@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=6),
    percents=st.tuples(st.floats(1, 25), st.floats(1, 25)),
    seed=st.integers(0, 3),
)
def test_splits_are_found_whenever_they_exist(sizes: list[int], percents: tuple[float, float], seed: int) -> None:
    possible = False
    for choice in product(range(3), repeat=len(sizes)):
        train, validation, test = (
            sum(size for size, at in zip(sizes, choice, strict=True) if at == i) for i in range(3)
        )
        possible |= train >= 1 and validation >= 2 and test >= 1
    try:
        counts(of_sizes(*sizes), val_percent=percents[0], test_percent=percents[1], seed=seed)
    except SplitError:
        assert not possible
    else:
        assert possible


def test_the_draw_of_ungrouped_images_has_not_changed() -> None:
    splits = assign({f"{index:02d}": f"{index:02d}" for index in range(24)}, val_percent=10, test_percent=10)
    assert [image for image, split in splits.items() if split == "test"] == ["04", "18", "21"]
    assert [image for image, split in splits.items() if split == "validation"] == ["02", "10", "11"]


def test_different_seeds_give_different_splits() -> None:
    drawn = {tuple(assign(singles(20), val_percent=10, test_percent=10, seed=seed).values()) for seed in range(5)}
    assert len(drawn) == 5


@pytest.mark.parametrize(
    ("groups", "settings", "says"),
    [
        (SLICES, {"test": ("6",)}, r"prepare\.test: '6' is neither an image nor a group; similar names: .*06"),
        (SLICES, {"validation": ("04", "05"), "test": ("05",)}, "both name 05"),
        (
            SLICES,
            {"validation": ("04",)},
            r"1 validation image\(s\), but at least 2.*name more images in prepare\.validation",
        ),
        (SLICES, {"test_percent": 0}, r"0 test image\(s\), but at least 1.*set prepare\.test_percent above 0"),
        (SLICES, {"val_percent": 0}, r"0 validation image\(s\), but at least 2.*set prepare\.val_percent above 0"),
        (
            of_sizes(12, 1),
            {},
            r"together take all 13 image\(s\) in 2 undivided group\(s\), so no image is left for training",
        ),
        (
            of_sizes(13),
            {},
            r"val_percent = 10 selects no further image from 13 image\(s\) in 1 undivided group\(s\); add images",
        ),
        (singles(3), {}, r"together take all 3 image\(s\), so no image is left for training"),
        (singles(2), {}, "validation"),
        (
            {"a": "m", "b": "m", **singles(9)},
            {"test": ("a",)},
            "group 'm', but not its image 'b'; name the whole group",
        ),
        ({"a": "b", "b": "c", **singles(9)}, {"test": ("b",)}, "'b' is both a group and an image of group 'c'"),
    ],
)
def test_impossible_splits_are_refused(groups: dict[str, str], settings: dict[str, object], says: str) -> None:
    with pytest.raises(SplitError, match=says):
        counts(groups, **settings)
