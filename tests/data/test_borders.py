"""Weight maps, judged by one full distance transform for each cell, by tables made by hand, and by laws."""

import os
import tracemalloc
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.ndimage import distance_transform_edt

from segline.data import borders
from segline.data.borders import class_weights, two_nearest, weight_band, weight_map
from segline.data.gaps import separate
from segline.data.labels import components

IGNORE = 255
PAPER = {"kind": "paper", "w0": 10, "sigma": 5, "background": 0.1, "background_sigma": 10, "class_weights": [0.5, 2, 3]}
FALK = PAPER | {"kind": "falk2019", "w0": 50, "sigma": 6}


def oracle(target, instances, *, kind, w0, sigma, background, background_sigma, class_weights, ignore=None):
    """Apply the definition to separated cells in float64, with one transform of the whole image for each cell."""
    inside = (target != 0) & (target != (-1 if ignore is None else ignore))
    cells = [inside & (instances == i) for i in np.unique(instances[inside]) if i != 0]
    distances = [distance_transform_edt(~cell) for cell in cells]
    distances += [np.full(target.shape, np.inf)] * 2
    d1, d2 = np.sort(distances, axis=0)[:2]
    border = w0 * np.exp(-((d1 + d2) ** 2) / (2 * sigma**2))
    base = np.array([*class_weights, *[0] * 256])[target]
    if kind == "paper":
        weights = base + border
    elif kind == "falk2019":
        near = background + (1 - background) * np.exp(-(d1**2) / (2 * background_sigma**2))
        weights = np.where(target == 0, base * near + border, base)
    else:
        weights = base
    return np.where(target == (-1 if ignore is None else ignore), 0, weights)


def assert_equals_oracle(classes, instances, **settings):
    weights = weight_map(classes, instances, **settings)
    target = separate(classes, instances, settings.get("ignore"))
    expected = oracle(target, instances, **settings)
    assert weights.dtype == np.float32
    assert weights.shape == classes.shape
    tolerance = 1e-6 * expected.max() + np.finfo(np.float32).tiny
    np.testing.assert_allclose(weights, expected, rtol=0, atol=tolerance)


def discs(shape, count, radius, seed):
    """Draw touching instances, with every third id unused."""
    rng = np.random.default_rng(seed)
    instances = np.zeros(shape, np.int32)
    for number, (y, x) in enumerate(rng.integers(0, shape, (count, 2)).tolist(), 1):
        cv2.circle(instances, (x, y), radius, number + number // 2, -1)
    return instances


@st.composite
def scenes(draw):
    shape = (draw(st.integers(1, 24)), draw(st.integers(1, 24)))
    ids = draw(st.sampled_from([[0], [0, 1], [0, 0, 0, 4, 9], [0] * 20 + [1, 2, 3, 2**31 - 1], range(40)]))
    classes = draw(arrays(np.uint8, shape, elements=st.sampled_from([0, 1, 1, 2, IGNORE])))
    instances = draw(arrays(np.int32, shape, elements=st.sampled_from(ids)))
    return classes, instances


@st.composite
def arguments(draw):
    positive = st.floats(0.3, 60)
    return {
        "kind": draw(st.sampled_from(["paper", "falk2019", "none"])),
        "w0": draw(st.floats(0, 100)),
        "sigma": draw(positive),
        "background": draw(st.floats(0, 1)),
        "background_sigma": draw(positive),
        "class_weights": draw(st.lists(st.floats(0, 5), min_size=3, max_size=4)),
        "ignore": IGNORE,
    }


class TestOracle:
    @given(scenes(), arguments())
    @settings(max_examples=150)
    def test_weights_equal_the_definition_on_any_scene(self, scene, arguments):
        assert_equals_oracle(*scene, **arguments)

    @pytest.mark.parametrize("settings", [PAPER, FALK, PAPER | {"kind": "none"}], ids=lambda s: s["kind"])
    @pytest.mark.parametrize("shape", [(96, 160), (130, 70), (1, 300), (300, 1), (2, 200)], ids=str)
    def test_weights_equal_the_definition_on_touching_discs(self, settings, shape):
        instances = discs(shape, 40, 7, seed=shape[0])
        classes = (instances > 0).astype(np.uint8) + (instances % 3 == 1)
        assert_equals_oracle(classes, instances, **settings)

    @pytest.mark.parametrize("settings", [PAPER, FALK], ids=lambda s: s["kind"])
    @pytest.mark.parametrize("count", [0, 1, 2, 3, 4])
    def test_weights_equal_the_definition_with_few_cells(self, settings, count):
        instances = np.zeros((40, 60), np.int32)
        for number in range(count):
            instances[5 + 7 * number : 9 + 7 * number, 3 * number : 3 * number + 20] = 10 + number
        assert_equals_oracle((instances > 0).astype(np.uint8), instances, **settings)

    def test_tiny_weights_are_exact(self):
        """The largest weight of distant cells without class weights is tiny, but must not be cut off or rounded."""
        instances = np.zeros((30, 90), np.int32)
        instances[3:8, 2:9], instances[20:26, 70:80] = 1, 2
        assert_equals_oracle((instances > 0).astype(np.uint8), instances, **PAPER | {"class_weights": [0, 0]})

    def test_ten_thousand_cells_equal_brute_force(self):
        """Compare random pixels with brute force over all cell pixels."""
        instances = np.zeros((201, 303), np.int32)
        instances[::2, ::3] = np.random.default_rng(0).permutation(101 * 101).reshape(101, 101) + 1
        instances[1::2, ::3][:, 1::2] = instances[:-1:2, ::3][:, 1::2]
        d1, d2 = two_nearest(instances)
        rows, columns = np.nonzero(instances)
        owner = instances[rows, columns]
        for y, x in np.random.default_rng(1).integers(0, instances.shape, (100, 2)):
            distances = np.full(owner.max() + 1, np.inf)
            np.minimum.at(distances, owner, np.hypot(rows - y, columns - x))
            assert np.allclose([d1[y, x], d2[y, x]], np.sort(distances)[:2], rtol=1e-12)

    @pytest.mark.parametrize("count", [*range(2, 40), 252, 253])
    def test_codewords_distinguish_any_number_of_cells(self, count):
        """On a line of single pixels both distances are known: the codewords must distinguish all cells."""
        d1, d2 = two_nearest(np.arange(1, count + 1)[None])
        assert (d1 == 0).all()
        assert (d2 == 1).all()

    @pytest.mark.parametrize("stem", ["isbi2012", "dsb2018"])
    def test_weights_equal_the_definition_on_a_real_image(self, stem):
        root = os.environ.get("SEGLINE_TEST_DATA")
        if not root:
            pytest.skip("SEGLINE_TEST_DATA is not set")
        file = sorted(Path(root, stem, "masks").iterdir())[0]
        labels = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)[:200, :256]
        classes = (labels > 0).astype(np.uint8)
        instances = components(classes) if stem == "isbi2012" else labels.astype(np.int32)
        assert instances.max() > 3
        assert_equals_oracle(classes, instances, **PAPER)
        assert_equals_oracle(classes, instances, **FALK)


class TestTables:
    CLASSES = np.array([[1, 1, 0, 0, 0, 1, 0, 0, 0]], np.uint8)
    INSTANCES = np.array([[7, 7, 0, 0, 0, 3, 0, 0, 0]])

    def test_distances_match_a_table_made_by_hand(self):
        d1, d2 = two_nearest(self.INSTANCES)
        assert d1.tolist() == [[0, 0, 1, 2, 1, 0, 1, 2, 3]]
        assert d2.tolist() == [[5, 4, 3, 2, 3, 4, 5, 6, 7]]

    def test_paper_weights_match_a_table_made_by_hand(self):
        """10 exp(-s^2 / 50) for s = 5, 4, 6, 8, 10 is 6.065307, 7.261490, 4.867523, 2.780373, 1.353353."""
        weights = weight_map(self.CLASSES, self.INSTANCES, **PAPER | {"class_weights": [0.5, 2]})
        expected = [8.065307, 9.261490, 7.761490, 7.761490, 7.761490, 9.261490, 5.367523, 3.280373, 1.853353]
        assert weights[0] == pytest.approx(expected, abs=2e-6)

    def test_falk2019_weights_match_a_table_made_by_hand(self):
        """The first term 0.1 + 0.9 exp(-d^2 / 200) is 0.995511, 0.982179, 0.960398 for d = 1, 2, 3."""
        settings = FALK | {"sigma": 5, "w0": 10, "class_weights": [1, 1]}
        weights = weight_map(self.CLASSES, self.INSTANCES, **settings)
        expected = [1, 1, 8.257001, 8.243669, 8.257001, 1, 5.863034, 3.762552, 2.313750]
        assert weights[0] == pytest.approx(expected, abs=2e-6)

    def test_falk2019_class_weights_scale_the_first_term_only(self):
        settings = FALK | {"sigma": 5, "w0": 10, "class_weights": [0.5, 2]}
        weights = weight_map(self.CLASSES, self.INSTANCES, **settings)
        assert weights[0, 0] == 2
        assert weights[0, 3] == pytest.approx(0.5 * 0.982179 + 7.261490, abs=2e-6)

    def test_falk2019_without_cells_is_far_background(self):
        nothing = np.zeros((3, 4), np.uint8)
        assert (weight_map(nothing, nothing, **FALK | {"class_weights": [2, 1]}) == np.float32(0.2)).all()

    def test_the_gap_between_touching_cells_has_the_largest_weight(self):
        classes, instances = np.ones((5, 10), np.uint8), np.repeat([[1, 2]], 5, axis=1).repeat(5, axis=0)
        weights = weight_map(classes, instances, **FALK)
        column = int(np.flatnonzero(separate(classes, instances)[2] == 0)[0])
        near = 0.5 * (0.1 + 0.9 * np.exp(-1 / 200))
        assert weights[:, column] == pytest.approx(near + 50 * np.exp(-4 / 72), abs=1e-5)
        assert (np.delete(weights, column, axis=1) == 2).all()


class TestLaws:
    @given(scenes(), st.sampled_from([PAPER, FALK]))
    def test_the_map_is_the_same_before_and_after_the_gap(self, scene, arguments):
        classes, instances = scene
        separated = separate(classes, instances, IGNORE)
        before = weight_map(classes, instances, **arguments, ignore=IGNORE)
        assert (before == weight_map(separated, instances, **arguments, ignore=IGNORE)).all()

    @given(scenes(), st.sampled_from([PAPER, FALK]))
    def test_ignored_pixels_have_weight_0(self, scene, arguments):
        classes, instances = scene
        assert (weight_map(classes, instances, **arguments, ignore=IGNORE)[classes == IGNORE] == 0).all()

    @given(scenes())
    def test_a_mirrored_scene_has_mirrored_distances(self, scene):
        for distances, mirrored in zip(two_nearest(scene[1]), two_nearest(scene[1].T[::-1]), strict=True):
            assert (distances.T[::-1] == mirrored).all()

    def test_pieces_of_one_instance_are_one_cell(self):
        instances = np.array([[5, 0, 5, 0, 5, 0, 0, 8]])
        assert two_nearest(instances)[1].tolist() == [[7, 6, 5, 4, 3, 2, 2, 3]]

    def test_classes_of_one_cell_are_one_cell(self):
        """Nucleus and cytoplasm of one white blood cell have no border between them."""
        classes, instances = np.array([[1, 2, 2, 1, 0, 0]], np.uint8), np.array([[4, 4, 4, 4, 0, 0]])
        assert weight_map(classes, instances, **PAPER).tolist() == [[2, 3, 3, 2, 0.5, 0.5]]


class TestBlocks:
    """A map computed in small blocks is bit-identical to the map computed at once."""

    SETTINGS = st.fixed_dictionaries(
        {
            "kind": st.sampled_from(["paper", "falk2019", "none"]),
            "w0": st.sampled_from([0, 1e-30, 10, 1e6]),
            "sigma": st.sampled_from([0.3, 1, 3]),
            "background": st.sampled_from([0, 1e-9, 0.1, 1]),
            "background_sigma": st.sampled_from([0.3, 1, 3]),
            "class_weights": st.sampled_from([[0, 0, 0], [0.5, 2, 3], [1e-6, 1, 0]]),
        }
    )

    @given(SETTINGS, st.integers(0, 99), st.sampled_from([16, 32]))
    @settings(max_examples=60)
    def test_blocks_do_not_change_the_map_for_any_terms(self, terms, seed, side):
        rng = np.random.default_rng(seed)
        shape = tuple(rng.integers(1, 150, 2))
        instances = discs(shape, int(rng.integers(0, 12)), 5, seed)
        classes = np.where(rng.random(shape) < 0.01, IGNORE, (instances > 0) + (instances % 3 == 1)).astype(np.uint8)
        whole = weight_map(classes, instances, **terms, ignore=IGNORE)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(borders, "SIDE", side)
            assert (weight_map(classes, instances, **terms, ignore=IGNORE) == whole).all()

    @pytest.mark.parametrize("terms", [PAPER, FALK], ids=lambda terms: terms["kind"])
    def test_blocks_do_not_change_the_map_for_default_terms(self, terms):
        """With few cells, most blocks have at most one cell near, so the reach of a cell shows in the map."""
        instances = discs((700, 900), 40, 12, seed=4)
        classes = (instances > 0).astype(np.uint8)
        in_blocks = weight_map(classes, instances, **terms)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(borders, "SIDE", 1 << 20)
            assert (weight_map(classes, instances, **terms) == in_blocks).all()

    def test_bands_start_at_multiples_of_16_and_cover_the_rows(self):
        for height in (1, 511, 512, 513, 1025, 20_000):
            bands = borders.bands(height)
            assert [row for band in bands for row in range(height)[band]] == list(range(height))
            assert all(band.start % 16 == 0 and band.stop - band.start <= borders.SIDE for band in bands)

    def test_memory_does_not_grow_with_the_height(self):
        peaks = []
        for height in (1024, 4096):
            instances = discs((height, 256), height // 10, 9, seed=0)
            target = separate((instances > 0).astype(np.uint8), instances)
            tracemalloc.start()
            for rows in borders.bands(height):
                weight_band(target, instances, rows, **PAPER)
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
        assert peaks[1] < 1.2 * peaks[0]


class TestClassWeights:
    @given(st.lists(st.integers(0, 10**9), min_size=1, max_size=6), st.floats(0, 1))
    @example([0, 3], 0.5)
    def test_mean_over_pixels_is_one_and_ratio_follows_frequency(self, pixels, balance):
        if not any(pixels):
            return
        weights = class_weights(pixels, balance)
        assert np.average(weights, weights=pixels) == pytest.approx(1)
        present = [(n, w) for n, w in zip(pixels, weights, strict=True) if n]
        assert all(w / present[0][1] == pytest.approx((present[0][0] / n) ** balance) for n, w in present)
        assert all(w == 0 for n, w in zip(pixels, weights, strict=True) if n == 0)

    def test_class_weights_match_a_table_made_by_hand(self):
        assert class_weights([900, 100], 1).tolist() == pytest.approx([5 / 9, 5])
        assert class_weights([900, 100], 0.5).tolist() == pytest.approx([5 / 6, 2.5])
        assert class_weights([900, 100], 0).tolist() == [1, 1]

    @pytest.mark.parametrize("pixels", [[0, 0], [], [5, -1]])
    def test_class_weights_refuse_unusable_counts(self, pixels):
        with pytest.raises(ValueError, match="no number may be negative, and at least one must be above 0"):
            class_weights(pixels, 0.5)


class TestRefusals:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"kind": "unet"}, "kind = 'unet'"),
            ({"sigma": 0}, "sigma = 0"),
            ({"kind": "falk2019", "background_sigma": -1}, "background_sigma = -1"),
            ({"class_weights": [1, 1]}, "id 2, but class_weights ends at id 1"),
        ],
    )
    def test_weight_map_refuses_wrong_arguments(self, change, message):
        with pytest.raises(ValueError, match=message):
            weight_map(np.full((2, 2), 2), np.ones((2, 2), int), **PAPER | change)

    def test_an_ignored_id_needs_no_weight(self):
        assert (weight_map(np.full((2, 2), 9), np.ones((2, 2), int), **PAPER, ignore=9) == 0).all()
