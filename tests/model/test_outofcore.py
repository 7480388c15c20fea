"""Compare out-of-core prediction with prediction in memory, to the last bit."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from segline.model import bandwise, maps, normalisation, watershed
from segline.model.images import ImageError
from segline.model.inference import Description, Inference, Predictor
from segline.model.normalisation import Statistics
from segline.model.objects import Separation
from segline.model.outofcore import OutOfCorePrediction
from segline.model.tiling import Source

CLASSES = {0: "background", 1: "a", 2: "b"}
SEPARATIONS = [None, Separation(), Separation(None, 6, 0.4), Separation(0.3, neck=0.2), Separation(0.3, 5, 0.4)]


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maps.os, "fsync", lambda _: None)


def quiet(what: str, done: int, total: int) -> None:
    assert what and 0 < done <= total


def predictor(inference: Inference, input_norm: str = "dataset", dtype: str = "uint8", **network: object) -> Predictor:
    """Make a predictor with random weights."""
    torch.manual_seed(1)
    options = {"width": 4, "depth": 1, "padding": "same", "norm": "none", "upsampling": "transposed", "dropout": 0.0}
    what = Description(options | network, CLASSES, "classes", Statistics(dtype, 1, (0.5,), (0.25,)), input_norm)
    return Predictor(what.build(), what, inference)


def image(height: int, width: int) -> npt.NDArray[np.uint8]:
    """Draw blobs of several sizes, with noise."""
    rng = np.random.default_rng(height * 1000 + width)
    coarse = np.kron(rng.integers(0, 200, (-(-height // 7), -(-width // 7))), np.ones((7, 7)))[:height, :width]
    return (coarse + rng.integers(0, 56, (height, width))).astype(np.uint8)[..., np.newaxis]


def of(raw: npt.NDArray[np.uint8]) -> Source:
    return Source(*raw.shape[:2], lambda rows, columns: raw[rows, columns])


def assert_same(subject: Predictor, raw: npt.NDArray[np.uint8], folder: Path) -> None:
    large = OutOfCorePrediction(subject, of(raw), folder, quiet)
    everything = slice(0, raw.shape[0])
    probabilities = large.probabilities(everything)
    assert np.array_equal(probabilities, subject.probabilities(raw))
    assert len(probabilities) == len(CLASSES)
    expected = subject.predict(raw)
    for actual, array in zip(large.predict(everything), expected, strict=True):
        assert actual.dtype == array.dtype
        assert np.array_equal(actual, array)
    assert large.count == expected.objects.max()
    assert np.array_equal(large.labels(slice(3, 9)), expected.labels[3:9])


@pytest.mark.parametrize(
    "network",
    [{"padding": padding, "upsampling": up} for padding in ("same", "valid") for up in ("transposed", "bilinear")],
)
@pytest.mark.parametrize(("views", "shape"), [(1, (61, 83)), (4, (61, 83)), (8, (45, 61)), (8, (1, 1))])
def test_out_of_core_equals_in_memory(
    network: dict[str, str], views: int, shape: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watershed, "BAND", 500)
    assert_same(predictor(Inference(None, None, Separation(0.3, 3), views, 40), **network), image(*shape), tmp_path)


@pytest.mark.parametrize("views", [1, 8])
def test_objects_from_an_object_map_equal_those_in_memory(
    views: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watershed, "BAND", 500)
    separation = Separation(0.3, 3, heights="object_map")
    subject = predictor(Inference(None, None, separation, views, 40), object_map=True)
    assert_same(subject, image(61, 83), tmp_path)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_an_image_normalised_by_its_own_statistics_equals_the_one_in_memory(
    dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(normalisation, "SIDE", 30)
    settings = Inference(None, None, Separation(0.3, 3), 4, 40)
    assert_same(
        predictor(settings, "image", dtype),
        (image(61, 83) / 255 if dtype == "float32" else image(61, 83)).astype(dtype),
        tmp_path,
    )


@pytest.mark.parametrize("inference", [Inference(segment_threshold=0.5), Inference()])
def test_models_that_need_the_whole_image_are_refused(inference: Inference, tmp_path: Path) -> None:
    subject = predictor(inference, norm="none" if inference.segment_threshold else "group")
    with pytest.raises(
        ImageError,
        match=r"83 x 61 px is too large for memory, and cannot be predicted window by window, because .* whole "
        r"image.*; cut the image into parts",
    ):
        OutOfCorePrediction(subject, of(image(61, 83)), tmp_path, quiet)


class Drawn(Predictor):
    """A predictor whose probability of foreground grows with the brightness."""

    def _forward(self, inputs: torch.Tensor) -> npt.NDArray[np.float32]:
        sure = torch.sigmoid(8 * inputs).numpy()
        return np.concatenate([1 - sure, sure, 0 * sure], axis=1)


@pytest.mark.parametrize("band", [1, 700, 10**6])
@pytest.mark.parametrize("kind", ["touching everywhere", "as wide as the image", "all of it"])
def test_objects_of_any_size_equal_those_in_memory(
    kind: str, band: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images whose nearest background is near, outside of the search margin, or missing."""
    monkeypatch.setattr(watershed, "BAND", band)
    monkeypatch.setattr(bandwise, "MARGIN", 1)
    y, x = np.indices((150, 70))
    raw = np.full((150, 70), 255, np.uint8)
    if kind == "touching everywhere":
        raw = (128 + 127 * np.cos(y / 3) * np.cos(x / 4)).clip(120).astype(np.uint8)
    elif kind == "as wide as the image":
        raw[:5, :9], raw[140:, 30:], raw[80:83, 20:60] = 0, 0, 150
    subject = predictor(Inference(separation=Separation(0.5), tile=40), depth=1)
    subject = Drawn(subject.network, subject.description, subject.inference)
    assert (subject.predict(raw[..., np.newaxis]).objects.max() > 50) == (kind == "touching everywhere")
    assert_same(subject, raw[..., np.newaxis], tmp_path)


def test_a_stop_between_any_two_windows_changes_no_result(tmp_path: Path) -> None:
    raw, reads = image(61, 83), list[int]()
    subject = predictor(Inference(separation=Separation(0.3), views=4, tile=40))

    def read(rows: slice, columns: slice) -> npt.NDArray[np.uint8]:
        reads.append(1)
        if len(reads) % 7 == 0:
            raise KeyboardInterrupt
        return raw[rows, columns]

    for _ in range(100):
        try:
            large = OutOfCorePrediction(subject, Source(61, 83, read), tmp_path, quiet)
            break
        except KeyboardInterrupt:
            continue
    assert len(reads) > 20
    assert np.array_equal(large.probabilities(slice(0, 61)), subject.probabilities(raw))


@pytest.mark.parametrize("separation", SEPARATIONS)
@pytest.mark.parametrize(("band", "threshold"), [(1, 0.2), (333, None), (333, 0.3), (10**6, 0.6)])
def test_separated_objects_equal_those_in_memory(
    separation: Separation | None, band: int, threshold: float | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watershed, "BAND", band)
    subject = predictor(Inference(threshold, None, separation, 1, 48))
    assert subject.predict(image(120, 97)).objects.max() > 10
    assert_same(subject, image(120, 97), tmp_path)
