"""Gaps between instances, judged by a table, by the cell-by-cell definition, and by laws for any strips."""

import tracemalloc
from itertools import product

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from segline.data import gaps, labels
from segline.data.gaps import separate

IGNORE = 255


def shapes(largest):
    return st.tuples(st.integers(1, largest), st.integers(1, largest))


@st.composite
def scenes(draw, largest=9, ids=6, class_ids=(0, 1, 1, 1, 2, IGNORE)):
    """Draw typical annotations: instances in pieces, gaps in the numbering, classes and instances that disagree."""
    shape = draw(shapes(largest))
    classes = draw(arrays(np.uint8, shape, elements=st.sampled_from(class_ids)))
    instances = draw(arrays(np.int32, shape, elements=st.integers(0, ids)))
    return classes, instances


def neighbours(shape, y, x):
    for dy, dx in product((-1, 0, 1), repeat=2):
        if (dy or dx) and 0 <= y + dy < shape[0] and 0 <= x + dx < shape[1]:
            yield y + dy, x + dx


def rivals(classes, instances, y, x):
    """Return the neighbours of (y, x) in another instance of the same class."""
    if classes[y, x] in (0, IGNORE) or instances[y, x] == 0:
        return []
    return [
        n
        for n in neighbours(classes.shape, y, x)
        if classes[n] == classes[y, x] and instances[n] not in (0, instances[y, x])
    ]


def cell_by_cell(classes, instances):
    """Apply the definition: process instances one by one, fewest untouched pixels first."""
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
    def test_separate_matches_a_table_made_by_hand(self, classes, instances, expected):
        def table(rows):
            return np.array([[IGNORE if c == "i" else int(c) for c in row] for row in rows])

        separated = separate(table(classes), table(instances), IGNORE)
        assert separated.dtype == np.uint8
        assert separated.tolist() == table(expected).tolist()

    @given(scenes())
    def test_separate_equals_the_definition_if_no_instance_is_lost(self, scene):
        classes, instances = scene
        reference = cell_by_cell(classes, instances)
        if survivors(reference, instances) == survivors(classes, instances):
            assert separate(classes, instances, IGNORE).tolist() == reference.tolist()

    @given(scenes())
    @settings(max_examples=200)
    def test_separate_obeys_its_laws(self, scene):
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
    def test_two_instances_survive_if_possible(self, scene):
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

    @given(scenes(largest=14), st.integers(1, 5))
    @settings(max_examples=200)
    def test_result_does_not_depend_on_the_strips(self, scene, rows):
        """Chains of waiting pixels, and cells that need room, cross several strips."""
        whole = separate(*scene, IGNORE)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(gaps, "strips", lambda shape: labels.strips(shape, rows * shape[1]))
            assert (separate(*scene, IGNORE) == whole).all()

    def test_a_chain_of_waiting_pixels_crosses_all_strips(self):
        """In a column of single pixels, processed from the bottom up, every second pixel is kept."""
        instances = np.arange(40, 0, -1)[:, None]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(gaps, "strips", lambda shape: labels.strips(shape, 3))
            kept = separate(np.ones((40, 1), np.uint8), instances)[:, 0]
        assert kept.tolist() == [0, 1] * 20

    @pytest.mark.parametrize("side", [4, 40])
    def test_memory_stays_below_three_bytes_for_each_pixel(self, side):
        """Result, state and, briefly, the gap need a byte for each pixel; one strip needs more."""
        place = np.arange(3000) // side
        instances = (place[:, None] * place.max() + place + 1).astype(np.int32)
        tracemalloc.start()
        separate(np.ones(instances.shape, np.uint8), instances)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 3 * instances.size + 200 * labels.STRIP

    def test_input_arrays_stay_unchanged(self):
        classes, instances = np.ones((3, 8), np.uint8), np.repeat([[1, 2]], 4, axis=1).repeat(3, axis=0)
        expected = separate(classes, instances)
        classes.setflags(write=False)
        assert (separate(np.asfortranarray(classes), np.asfortranarray(instances)) == expected).all()
        assert (expected == 0).sum() == 3

    @pytest.mark.parametrize(
        ("classes", "instances", "message"),
        [
            (np.zeros((2, 2), int), np.zeros((2, 3), int), r"\(2, 2\) and instances \(2, 3\)"),
            (np.zeros((1, 2, 2), int), np.zeros((1, 2, 2), int), r"same shape \(H, W\)"),
            (np.zeros((2, 2)), np.zeros((2, 2), int), "classes are of type float64"),
            (np.zeros((2, 2), int), np.zeros((2, 2)), "instances are of type float64"),
            (np.full((2, 2), 256), np.zeros((2, 2), int), "id 256"),
            (np.full((2, 2), -1), np.zeros((2, 2), int), "id -1"),
            (np.ones((2, 2), int), np.full((2, 2), -3), "id -3"),
        ],
    )
    def test_separate_refuses_unusable_arrays(self, classes, instances, message):
        with pytest.raises(ValueError, match=message):
            separate(classes, instances)
