import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segline.model import tiling
from segline.model.geometry import Geometry, of_unet

GEOMETRIES = st.builds(
    of_unet, st.integers(1, 4), st.sampled_from(["valid", "same"]), st.sampled_from(["transposed", "bilinear"])
)


def legal_tile(geometry: Geometry, extra: int) -> int:
    context = geometry.margin + geometry.fringe if geometry.margin else geometry.at_least(geometry.fringe)
    return geometry.at_least(2 * context + geometry.stride) + extra * geometry.stride


@given(GEOMETRIES, st.integers(1, 1500), st.integers(0, 20))
def test_every_pixel_is_kept_once_and_never_from_a_fringe(geometry: Geometry, length: int, extra: int) -> None:
    spans = tiling.plan(length, legal_tile(geometry, extra), geometry)
    kept = np.concatenate([np.arange(s.keep, s.end) for s in spans])
    assert np.array_equal(kept, np.arange(length))
    sizes = {s.stop - s.start for s in spans}
    assert len(sizes) == 1
    (size,) = sizes
    true_end = geometry.at_least(max(length, 2 * geometry.stride))
    for span in spans:
        assert (span.start - spans[0].start) % geometry.stride == 0
        output = geometry.output(size)
        assert span.start + geometry.margin + span.offset == span.keep
        left, right = span.offset, output - span.offset - (span.end - span.keep)
        if geometry.margin:
            assert left >= geometry.fringe
            assert right >= geometry.fringe
        else:
            assert left >= geometry.fringe or span.start == 0
            assert right >= geometry.fringe or span.stop == true_end


@given(GEOMETRIES, st.integers(1, 700))
def test_without_a_tile_size_one_window_covers_the_image(geometry: Geometry, length: int) -> None:
    (span,) = tiling.plan(length, None, geometry)
    assert (span.keep, span.end) == (0, length)
    assert geometry.legal(span.stop - span.start)


def test_the_paper_tile_advances_by_384_not_388() -> None:
    spans = tiling.plan(1000, 572, of_unet(4, "valid", "transposed"))
    assert [s.keep for s in spans] == [0, 384, 768]


def test_an_image_of_512_px_needs_one_window_of_700_px() -> None:
    (span,) = tiling.plan(512, None, of_unet(4, "valid", "transposed"))
    assert (span.start, span.stop) == (-92, 608)


@pytest.mark.parametrize(("padding", "size", "need"), [("valid", 188, 204), ("same", 192, 208)])
def test_a_tile_that_cannot_advance_is_refused(padding: str, size: int, need: int) -> None:
    with pytest.raises(ValueError, match=f"use a tile of at least {need} px"):
        tiling.plan(1000, size, of_unet(4, padding, "transposed"))


@given(st.integers(1, 12), st.integers(-60, 60))
def test_fold_mirrors_like_numpy_pads(length: int, index: int) -> None:
    mirrored = np.pad(np.arange(length), 60, mode="reflect")
    assert tiling.fold(np.array([index]), length)[0] == mirrored[index + 60]


@given(st.integers(1, 90), st.integers(1, 90))
def test_reach_equals_the_window_of_the_mirrored_image(length: int, side: int) -> None:
    geometry = of_unet(1, "valid", "transposed")
    axis = np.arange(length)
    output = np.full(length, -1)
    for span in tiling.plan(length, min(30, geometry.at_least(side)), geometry):
        seen, indices = tiling.reach(span, length)
        assert 0 <= seen.start < seen.stop <= length
        window = axis[seen][indices]
        assert np.array_equal(window, np.pad(axis, 60, mode="reflect")[span.start + 60 : span.stop + 60])
        output[span.keep : span.end] = window[geometry.margin : -geometry.margin][span.kept]
    assert np.array_equal(output, axis)


@given(GEOMETRIES, st.integers(1, 1500), st.integers(0, 20))
def test_a_fitted_size_is_the_smallest_with_the_same_number_of_windows(
    geometry: Geometry, length: int, extra: int
) -> None:
    size = legal_tile(geometry, extra)
    many = len(tiling.plan(length, size, geometry))
    enough = [
        smaller
        for smaller in range(tiling.smallest(geometry), size + 1, geometry.stride)
        if len(tiling.plan(length, smaller, geometry)) == many
    ]
    assert tiling.fitted(length, size, geometry) == min(enough)
