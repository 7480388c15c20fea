"""Components against skimage; the gap against a table, the cell-by-cell definition and its laws."""

from itertools import product

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from skimage.measure import label

from segline.data.labels import components, renumber, separate

IGNORE = 255


def shapes(largest):
    return st.tuples(st.integers(1, largest), st.integers(1, largest))


@st.composite
def scenes(draw, largest=9, ids=6, class_ids=(0, 1, 1, 1, 2, IGNORE)):
    """Classes and instances as an annotator might leave them: pieces, gaps in the numbering, disagreement."""
    shape = draw(shapes(largest))
    classes = draw(arrays(np.uint8, shape, elements=st.sampled_from(class_ids)))
    instances = draw(arrays(np.int32, shape, elements=st.integers(0, ids)))
    return classes, instances


def neighbours(shape, y, x):
    for dy, dx in product((-1, 0, 1), repeat=2):
        if (dy or dx) and 0 <= y + dy < shape[0] and 0 <= x + dx < shape[1]:
            yield y + dy, x + dx


def rivals(classes, instances, y, x):
    """Neighbours of (y, x) in another instance of its class."""
    if classes[y, x] in (0, IGNORE) or instances[y, x] == 0:
        return []
    return [
        n
        for n in neighbours(classes.shape, y, x)
        if classes[n] == classes[y, x] and instances[n] not in (0, instances[y, x])
    ]


def cell_by_cell(classes, instances):
    """The definition: serve the instances one after the other, fewest untouched pixels first."""
    pixels = {}
    for y, x in np.argwhere((classes != 0) & (classes != IGNORE) & (instances > 0)):
        pixels.setdefault(int(instances[y, x]), []).append((int(y), int(x)))
    untouched = {i: sum(not rivals(classes, instances, *p) for p in ps) for i, ps in pixels.items()}
    kept, result = set(), classes.copy()
    for i in sorted(pixels, key=lambda i: (untouched[i], len(pixels[i]), i)):
        stays = [p for p in pixels[i] if not kept & set(rivals(classes, instances, *p))]
        kept |= set(stays)
        for p in set(pixels[i]) - set(stays):
            result[p] = 0
    return result


def survivors(classes, instances):
    return set(instances[(classes > 0) & (classes != IGNORE) & (instances > 0)].tolist())


class TestComponents:
    @given(
        arrays(np.uint8, shapes(12), elements=st.sampled_from([0, 0, 1, 2, IGNORE])), st.sampled_from([None, IGNORE])
    )
    def test_same_partition_as_skimage(self, classes, ignore):
        found = components(classes, ignore)
        reference = label(np.where(classes == ignore, 0, classes), connectivity=1, background=0)
        pairs = set(zip(found.ravel().tolist(), reference.ravel().tolist(), strict=True))
        assert found.dtype == np.int32
        assert {a == 0 for a, b in pairs} == {b == 0 for a, b in pairs}
        assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})
        assert set(np.unique(found)) - {0} == set(range(1, reference.max() + 1))

    def test_numbered_class_by_class(self):
        classes = np.array([[2, 0, 1], [0, 1, 0], [2, 0, 255]], np.uint8)
        assert components(classes, 255).tolist() == [[3, 0, 1], [0, 2, 0], [4, 0, 0]]


class TestRenumber:
    @given(arrays(np.int64, shapes(6), elements=st.sampled_from([0, 1, 7, 70_000, 2**31 - 1, 2**40])))
    def test_in_the_order_of_the_ids(self, instances):
        numbers, count = renumber(instances)
        ids = [0, *(set(instances.ravel().tolist()) - {0})]
        assert count == len(ids) - 1
        assert (np.array(sorted(ids))[numbers] == instances).all()

    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32, np.uint64])
    def test_any_integer_type(self, dtype):
        assert renumber(np.array([[0, 200, 9]], dtype))[0].tolist() == [[0, 2, 1]]

    def test_refuses_ids_below_zero(self):
        with pytest.raises(ValueError, match="id -1"):
            renumber(np.array([[0, -1]]))


class TestSeparate:
    @pytest.mark.parametrize(
        ("classes", "instances", "expected"),
        [
            pytest.param(["111111"], ["112222"], ["110111"], id="the thicker one yields"),
            pytest.param(["111222"], ["111222"], ["111222"], id="two classes need no gap"),
            pytest.param(["110", "110", "001"], ["110", "110", "002"], ["110", "100", "001"], id="diagonal neighbours"),
            pytest.param(["111", "111", "111"], ["333", "353", "333"], ["000", "010", "000"], id="surrounded pixel"),
            pytest.param(["1111111"], ["1112333"], ["1101011"], id="thin strip between two thick ones"),
            pytest.param(["1111", "1111"], ["1111", "2222"], ["0011", "1000"], id="two strips, each keeps some"),
            pytest.param(["1i11"], ["1222"], ["1i11"], id="ignored pixels stay and separate"),
            pytest.param(["1101"], ["1221"], ["0101"], id="background of the classes belongs to no instance"),
            pytest.param(["111"], ["102"], ["111"], id="a pixel of no instance stays"),
            pytest.param(["11"], ["12"], ["10"], id="no room for two"),
        ],
    )
    def test_table(self, classes, instances, expected):
        def table(rows):
            return np.array([[IGNORE if c == "i" else int(c) for c in row] for row in rows])

        separated = separate(table(classes), table(instances), IGNORE)
        assert separated.dtype == np.uint8
        assert separated.tolist() == table(expected).tolist()

    @given(scenes())
    def test_equals_cell_by_cell_where_none_is_lost(self, scene):
        classes, instances = scene
        reference = cell_by_cell(classes, instances)
        if survivors(reference, instances) == survivors(classes, instances):
            assert separate(classes, instances, IGNORE).tolist() == reference.tolist()

    @given(scenes())
    @settings(max_examples=200)
    def test_laws(self, scene):
        classes, instances = scene
        separated = separate(classes, instances, IGNORE)
        assert not any(rivals(separated, instances, *p) for p in np.ndindex(classes.shape)), "some still touch"
        for p in map(tuple, np.argwhere(separated != classes)):
            restored = separated.copy()
            restored[p] = classes[p]
            assert separated[p] == 0
            assert rivals(restored, instances, *p), f"{p} could be given back"
        assert (separate(separated, instances, IGNORE) == separated).all(), "twice differs from once"

    @given(scenes(largest=5, ids=2, class_ids=(0, 1, 1)))
    @example((np.ones((2, 3), np.uint8), np.array([[1, 1, 1], [2, 2, 2]])))
    def test_two_instances_both_survive_where_they_can(self, scene):
        classes, instances = scene
        one, two = (np.argwhere((classes == 1) & (instances == i)) for i in (1, 2))
        apart = any(abs(p - q).max() > 1 for p in one for q in two)
        if apart or not (len(one) and len(two)):
            assert survivors(separate(classes, instances), instances) == survivors(classes, instances)

    @given(scenes())
    def test_ids_may_be_huge_and_have_gaps(self, scene):
        classes, instances = scene
        huge = np.array([0, 3, 900, 70_000, 2**31, 2**40, 2**62])[instances]
        assert (separate(classes, huge, IGNORE) == separate(classes, instances, IGNORE)).all()

    def test_layout_and_input_are_left_alone(self):
        classes, instances = np.ones((3, 8), np.uint8), np.repeat([[1, 2]], 4, axis=1).repeat(3, axis=0)
        expected = separate(classes, instances)
        classes.setflags(write=False)
        assert (separate(np.asfortranarray(classes), np.asfortranarray(instances)) == expected).all()
        assert (expected == 0).sum() == 3

    @pytest.mark.parametrize(
        ("classes", "instances", "message"),
        [
            (np.zeros((2, 2), int), np.zeros((2, 3), int), r"\(2, 2\) and instances \(2, 3\)"),
            (np.zeros((1, 2, 2), int), np.zeros((1, 2, 2), int), r"one \(H, W\)"),
            (np.zeros((2, 2)), np.zeros((2, 2), int), "classes are float64"),
            (np.zeros((2, 2), int), np.zeros((2, 2)), "instances are float64"),
            (np.full((2, 2), 256), np.zeros((2, 2), int), "id 256"),
            (np.full((2, 2), -1), np.zeros((2, 2), int), "id -1"),
            (np.ones((2, 2), int), np.full((2, 2), -3), "id -3"),
        ],
    )
    def test_refuses(self, classes, instances, message):
        with pytest.raises(ValueError, match=message):
            separate(classes, instances)
