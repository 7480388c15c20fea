"""Label images, judged by skimage and numpy; strips and parts, judged by laws."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from skimage.measure import label

from segline.data import labels
from segline.data.labels import areas, components, grown, ids, parts, renumber, strips

IGNORE = 255


def shapes(largest):
    return st.tuples(st.integers(1, largest), st.integers(1, largest))


class TestComponents:
    @given(
        arrays(np.uint8, shapes(12), elements=st.sampled_from([0, 0, 1, 2, IGNORE])),
        st.sampled_from([None, IGNORE]),
        st.sampled_from([4, 8]),
    )
    def test_components_equal_those_of_skimage(self, classes, ignore, connectivity):
        instances = components(classes, ignore, connectivity)
        reference = label(np.where(classes == ignore, 0, classes), connectivity=connectivity // 4, background=0)
        pairs = set(zip(instances.ravel().tolist(), reference.ravel().tolist(), strict=True))
        assert instances.dtype == np.int32
        assert {a == 0 for a, b in pairs} == {b == 0 for a, b in pairs}
        assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})
        assert set(np.unique(instances)) - {0} == set(range(1, reference.max() + 1))

    def test_components_are_numbered_class_by_class(self):
        classes = np.array([[2, 0, 1], [0, 1, 0], [2, 0, 255]], np.uint8)
        assert components(classes, 255).tolist() == [[3, 0, 1], [0, 2, 0], [4, 0, 0]]


class TestIds:
    @given(arrays(np.int64, shapes(6), elements=st.sampled_from([0, 1, 7, 70_000, 2**31 - 1, 2**40])))
    def test_ids_equal_those_of_numpy(self, instances):
        assert ids(instances).tolist() == np.setdiff1d(instances, 0).tolist()

    @given(arrays(np.uint8, shapes(6)))
    def test_areas_equal_those_of_numpy(self, classes):
        assert areas(classes, 256).tolist() == np.bincount(classes.ravel(), minlength=256).tolist()

    def test_results_do_not_depend_on_the_strips(self, monkeypatch):
        instances = np.random.default_rng(0).choice([0, 3, 70_000, 2**40], (40, 30))
        whole = ids(instances), areas(instances % 7, 7), renumber(instances)[0]
        monkeypatch.setattr(labels, "strips", lambda shape: strips(shape, 90))
        for part, expected in zip(
            (ids(instances), areas(instances % 7, 7), renumber(instances)[0]), whole, strict=True
        ):
            assert (part == expected).all()


class TestRenumber:
    @given(arrays(np.int64, shapes(6), elements=st.sampled_from([0, 1, 7, 70_000, 2**31 - 1, 2**40])))
    def test_renumber_keeps_the_order_of_the_ids(self, instances):
        numbers, count = renumber(instances)
        ids = [0, *(set(instances.ravel().tolist()) - {0})]
        assert count == len(ids) - 1
        assert (np.array(sorted(ids))[numbers] == instances).all()

    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32, np.uint64])
    def test_renumber_accepts_any_integer_type(self, dtype):
        assert renumber(np.array([[0, 200, 9]], dtype))[0].tolist() == [[0, 2, 1]]

    def test_renumber_refuses_ids_below_zero(self):
        with pytest.raises(ValueError, match="the array of instance ids contains -1"):
            renumber(np.array([[0, -1]]))


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 500))
def test_strips_cover_each_row_once(height: int, width: int, pixels: int) -> None:
    all_rows = list(strips((height, width, 3), pixels))
    assert [row for rows in all_rows for row in range(height)[rows]] == list(range(height))
    assert all(rows.stop - rows.start == 1 or (rows.stop - rows.start) * width <= pixels for rows in all_rows)


@given(st.integers(0, 5000), st.integers(1, 20), st.integers(1, 16))
def test_parts_cover_the_axis_once(length: int, steps: int, step: int) -> None:
    all_parts = parts(length, steps * step, step)
    assert [place for part in all_parts for place in range(length)[part]] == list(range(length))
    assert all(part.start % step == 0 and 0 < part.stop - part.start <= steps * step for part in all_parts)


def test_parts_have_about_equal_size() -> None:
    assert parts(1000, 512) == [slice(0, 500), slice(500, 1000)]
    assert parts(1000, 512, 16) == [slice(0, 512), slice(512, 1000)]
    assert parts(512, 512, 16) == [slice(0, 512)]


@given(st.integers(1, 50), st.integers(0, 20), st.data())
def test_a_grown_part_contains_the_part(length: int, margin: int, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, length - 1))
    part = slice(start, data.draw(st.integers(start + 1, length)))
    around, inner = grown(part, margin, length)
    assert list(range(length))[around][inner] == list(range(length))[part]
    assert around.start == max(0, part.start - margin)
    assert around.stop == min(length, part.stop + margin)
