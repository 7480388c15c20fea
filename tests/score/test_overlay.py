"""Judges: a loop over neighbours, sets of pixels compared, Machado's model of colour blindness, and sizes by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from skimage.color import rgb2lab

from segline.score.overlay import CLASS_COLOURS, CONFUSED, FALSE, MISSED, PAPER, gallery, legend, overlay, view

# Machado, Oliveira, Fernandes 2009, severity 1: on linear RGB.
BLINDNESS = {
    "none": np.eye(3),
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
labels = hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.integers(0, 3))


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).random(shape, dtype=np.float32)


def is_coloured(picture: np.ndarray) -> np.ndarray:
    return picture.min(axis=2) != picture.max(axis=2)


def naive_edges(predicted: np.ndarray) -> np.ndarray:
    edges = np.zeros(predicted.shape, bool)
    for y, x in np.ndindex(predicted.shape):
        for v, u in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
            if 0 <= v < predicted.shape[0] and 0 <= u < predicted.shape[1]:
                edges[y, x] |= predicted[v, u] < predicted[y, x]
    return edges


@given(labels)
def test_predictions_are_outlined_in_the_colours_of_their_classes(predicted: np.ndarray) -> None:
    picture = overlay(noise(*predicted.shape, 1), predicted)
    edges = naive_edges(predicted)
    for number in (1, 2, 3):
        assert (picture[edges & (predicted == number)] == CLASS_COLOURS[number - 1]).all()
    assert np.array_equal(is_coloured(picture), edges)


@given(labels, st.data())
def test_each_object_is_outlined(predicted: np.ndarray, data: st.DataObject) -> None:
    ids = data.draw(hnp.arrays(np.int32, predicted.shape, elements=st.integers(0, 5)))
    picture = overlay(noise(*predicted.shape, 1), predicted, objects=ids)
    edges = naive_edges(ids) & (predicted > 0)
    for number in (1, 2, 3):
        assert (picture[edges & (predicted == number)] == CLASS_COLOURS[number - 1]).all()
    assert np.array_equal(is_coloured(picture), edges)


@given(labels, st.data())
def test_exactly_the_wrong_pixels_are_tinted(predicted: np.ndarray, data: st.DataObject) -> None:
    truth = data.draw(hnp.arrays(np.uint8, predicted.shape, elements=st.sampled_from([0, 1, 2, 3, 255])))
    image, edges = noise(*predicted.shape, 1), naive_edges(predicted)
    plain, judged = overlay(image, predicted), overlay(image, predicted, truth, ignore=255)
    assert np.array_equal(is_coloured(judged) & ~edges, (predicted != truth) & (truth != 255) & ~edges)
    right = (predicted == truth) & (truth != 255)
    assert np.array_equal(judged[right], plain[right])
    assert (judged[(truth == 255) & ~edges] <= plain[(truth == 255) & ~edges]).all()


def test_missed_false_and_confused_pixels_have_different_tints() -> None:
    truth, predicted = np.zeros((32, 32), np.uint8), np.zeros((32, 32), np.uint8)
    truth[:16], predicted[:, :16] = 1, 1
    truth[20:30, 20:30] = predicted[2:12, 2:12] = 2
    picture = overlay(np.zeros((32, 32, 1), np.uint8), predicted, truth)
    for (y, x), colour in {(5, 25): MISSED, (25, 25): MISSED, (25, 5): FALSE, (6, 6): CONFUSED}.items():
        assert np.corrcoef(picture[y, x], colour)[0, 1] > 0.999
    assert not picture[18, 18].any()
    assert not picture[5, 14].any()


def test_outlines_grow_with_the_image() -> None:
    predicted = np.zeros((1024, 1024), np.uint8)
    predicted[:, 512:] = 1
    outline = np.flatnonzero(is_coloured(overlay(noise(1024, 1024, 1), predicted))[7])
    assert outline.tolist() == [512, 513, 514]


def test_overlay_does_not_change_its_arguments() -> None:
    image, predicted, truth = noise(8, 8, 3), np.eye(8, dtype=np.uint8), np.ones((8, 8), np.uint8)
    copies = [array.copy() for array in (image, predicted, truth)]
    overlay(image, predicted, truth)
    for array, copy in zip((image, predicted, truth), copies, strict=True):
        assert np.array_equal(array, copy)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_any_raw_image_can_be_drawn_on(dtype: type, channels: int) -> None:
    image = (noise(20, 30, channels) * 200).astype(dtype)
    picture = overlay(image, np.ones((20, 30), np.uint8), np.zeros((20, 30), np.uint8))
    assert picture.shape == (20, 30, 3)
    assert picture.dtype == np.uint8


def test_the_view_does_not_depend_on_the_type_or_range_of_the_image() -> None:
    image = np.random.default_rng(0).integers(0, 200, (40, 40, 3)).astype(np.uint8)
    expected = view(image)
    assert (expected.min(), expected.max()) == (0, 255)
    assert np.array_equal(view(image.astype(np.uint16) * 256), expected)
    assert np.array_equal(view(image.astype(np.float32) / 1024 - 8), expected)


def test_the_view_of_a_constant_or_nan_image_is_black() -> None:
    assert not view(np.full((5, 5, 1), 77, np.uint8)).any()
    image = np.full((5, 5, 1), np.nan, np.float32)
    image[0, 0] = np.inf
    assert not view(image).any()


def test_a_rare_bright_spot_is_visible() -> None:
    image = np.zeros((100, 100, 1), np.uint16)
    image[50, 50] = 3
    assert view(image)[50, 50].tolist() == [255, 255, 255]
    assert view(image).sum() == 3 * 255


def test_a_grey_image_is_grey_and_a_colour_image_keeps_its_hues() -> None:
    assert not is_coloured(view(noise(9, 9, 2))).any()
    image = np.zeros((10, 10, 3), np.uint8)
    image[:5], image[5:] = (200, 100, 0), (100, 200, 0)
    assert view(image)[0, 0].tolist() == [255, 128, 0]
    assert view(image)[9, 9].tolist() == [128, 255, 0]


@pytest.mark.parametrize("blindness", BLINDNESS)
def test_colours_can_be_told_apart(blindness: str) -> None:
    colours = np.array([*CLASS_COLOURS, MISSED, FALSE, CONFUSED]) / 255
    linear = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ np.array(BLINDNESS[blindness]).T, 0, 1)
    gamma = np.where(seen <= 0.0031308, 12.92 * seen, 1.055 * seen ** (1 / 2.4) - 0.055)
    lab = rgb2lab(gamma)
    distances = np.linalg.norm(lab[:, np.newaxis] - lab, axis=2)
    # About 2.3 can just be noticed side by side.
    assert distances[~np.eye(len(lab), dtype=bool)].min() > 15


def test_labels_of_another_size_are_refused() -> None:
    image, labels = np.zeros((4, 5, 1), np.uint8), np.zeros((4, 5), np.uint8)
    with pytest.raises(ValueError, match=r"predicted has shape \(5, 4\), but the image has shape \(4, 5\)"):
        overlay(image, labels.T)
    with pytest.raises(ValueError, match=r"truth has shape \(5, 4\)"):
        overlay(image, labels, labels.T)


def test_the_legend_names_the_visible_colours() -> None:
    assert legend({1: "cell", 0: "background"}, errors=False) == [("cell", CLASS_COLOURS[0])]
    assert [name for name, _ in legend({0: "background", 1: "cell"})] == ["cell", "missed", "false"]
    assert [name for name, _ in legend({2: "nucleus", 1: "cytoplasm"})][-1] == "other class"


def test_panels_are_placed_row_by_row_without_changes() -> None:
    panels = [(f"panel {number}", np.full((256, 300, 3), number * 40, np.uint8)) for number in range(5)]
    sheet = gallery(panels)
    assert sheet.dtype == np.uint8
    assert sheet.shape == (8 + 2 * (22 + 256 + 8), 8 + 3 * (300 + 8), 3)
    for number in range(5):
        top, left = 8 + 22 + number // 3 * (22 + 256 + 8), 8 + number % 3 * (300 + 8)
        assert (sheet[top : top + 256, left : left + 300] == number * 40).all()
        assert (sheet[top - 22 : top, left : left + 300] < 128).any(), "a title"
    assert (sheet[-256 - 8 :, 8 + 2 * 308 :] == PAPER).all()


def test_small_panels_are_enlarged_and_large_ones_reduced() -> None:
    small, large = np.random.default_rng(0).integers(0, 256, (100, 60, 3), np.uint8), np.zeros((600, 1024, 3), np.uint8)
    sheet = gallery([("small", small), ("large", large)], columns=1)
    assert sheet.shape == (8 + 22 + 500 + 8 + 22 + 300 + 8, 8 + 512 + 8, 3)
    assert np.array_equal(sheet[30:530:5, 8:308:5], small)


def test_a_legend_has_a_line_with_its_colours() -> None:
    panels = [("one", np.zeros((256, 256, 3), np.uint8))]
    without, sheet = gallery(panels), gallery(panels, legend=[("cell", MISSED)])
    assert sheet.shape[0] == without.shape[0] + 22
    assert (sheet[without.shape[0] :] == MISSED).all(axis=2).any()


@pytest.mark.parametrize("width", [60, 256])
def test_a_wide_legend_continues_on_the_next_line(width: int) -> None:
    panels = [("one", np.zeros((256, width, 3), np.uint8))]
    names = ["granulocyte", "lymphocyte", "monocyte", "eosinophil", "basophil", "platelet", "erythroblast"]
    colours = [(100 + number, 0, 200) for number in range(7)]
    without, sheet = gallery(panels), gallery(panels, legend=list(zip(names, colours, strict=True)))
    assert sheet.shape[1] == without.shape[1]
    below = sheet[without.shape[0] :]
    assert below.shape[0] % 22 == 0
    assert below.shape[0] > 22
    assert (below[:, -8:] == PAPER).all(), "a margin"
    for colour in colours:
        rows, columns = np.nonzero((below == colour).all(axis=2))
        assert rows.size == 11 * 11
        name = below[rows.min() - 1 : rows.max() + 2, columns.max() + 6 : columns.max() + 20]
        assert (name < 128).any(), "its name beside it"
    assert np.array_equal(sheet[: without.shape[0]], without)


def test_a_long_title_is_cut_before_the_next_panel() -> None:
    sheet = gallery([("w" * 500, np.zeros((256, 256, 3), np.uint8)), ("", np.zeros((256, 256, 3), np.uint8))])
    assert (sheet[8:30, 8 + 256 :] == PAPER).all()


def test_an_empty_gallery_is_refused() -> None:
    with pytest.raises(ValueError, match="there is no picture to arrange; pass at least one"):
        gallery([])
