"""Perceptual hashes of changed and of different images, and the search for duplicates against all pairs."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segline.data import imagefiles
from segline.data.checks import duplicates
from segline.data.checks.duplicates import LEAST_BITS, MOST_BITS, code, digest, joined, limit, partners, twins, united


def bits(one: np.ndarray, other: np.ndarray) -> int:
    """Count the bits in which two codes differ, in plain Python."""
    return sum((int(a) ^ int(b)).bit_count() for a, b in zip(one, other, strict=True))


def cells(seed: int, shape: tuple[int, int] = (180, 200)) -> np.ndarray:
    """Draw blurred discs at random places, uint8 (H, W, 1)."""
    rng = np.random.default_rng(seed)
    picture = np.full(shape, 40, np.uint8)
    for _ in range(25):
        cv2.circle(picture, rng.integers(0, 200, 2).tolist(), int(rng.integers(4, 14)), int(rng.integers(90, 200)), -1)
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), 2))[..., None]


def recompressed(image: np.ndarray) -> np.ndarray:
    done, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 30])
    assert done
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_GRAYSCALE))[..., None]


CHANGES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "recompressed": recompressed,
    "brighter": lambda image: np.clip(image * 1.1 + 5, 0, 255).astype(np.uint8),
    "halved": lambda image: cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)[..., None],
    "moved": lambda image: image[2:, 2:],
    "colour": lambda image: np.repeat(image, 3, axis=2),
    "seven channels": lambda image: np.repeat(image, 7, axis=2),
    "16 bit": lambda image: image.astype(np.uint16) * 257,
    "float": lambda image: image.astype(np.float32) / 255,
    "noisy": lambda image: np.clip(image + np.random.default_rng(0).normal(0, 5, image.shape), 0, 255).astype(np.uint8),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_image_stays_similar(change: str) -> None:
    for seed in range(5):
        assert bits(code(cells(seed)), code(CHANGES[change](cells(seed)))) <= MOST_BITS


def test_different_images_of_one_kind_are_not_similar() -> None:
    codes = [code(cells(seed)) for seed in range(40)]
    assert min(bits(a, b) for i, a in enumerate(codes) for b in codes[:i]) > MOST_BITS + 20


def eye(seed: int) -> np.ndarray:
    """Draw a photograph of a retina: in all of them, the bright disc, its shading and the large vessels lie alike."""
    rng = np.random.default_rng(seed)
    picture = np.zeros((200, 200), np.uint8)
    cv2.circle(picture, (100, 100), 90, 120, -1)
    cv2.circle(picture, (45, 100), 14, 200, -1)
    for end in ((150, 40), (150, 160), (170, 80), (170, 120)):
        cv2.line(picture, (45, 100), (np.array(end) + rng.integers(-12, 13, 2)).tolist(), 70, 4)
    for _ in range(6):
        start = rng.integers(50, 150, 2)
        cv2.line(picture, start.tolist(), (start + rng.integers(-25, 26, 2)).tolist(), 80, 2)
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), 2))[..., None]


def test_images_of_one_kind_count_as_similar_only_if_they_differ_less_than_their_kind() -> None:
    codes = np.array([code(eye(seed)) for seed in range(40)])
    labels = np.arange(40)
    assert (partners(codes, labels) >= 0).any()
    assert (partners(codes, labels, limit(codes)) == -1).all()
    for change in ("recompressed", "brighter", "halved", "noisy"):
        both = np.append(codes, [code(CHANGES[change](eye(0)))], axis=0)
        partner_of = partners(both, np.arange(41), limit(both))
        assert (partner_of[0], partner_of[40]) == (40, 0), change


def test_frames_of_a_film_are_similar_although_all_images_look_alike() -> None:
    rng = np.random.default_rng(1)
    frames = [cells(0)]
    for _ in range(20):
        frames.append(np.clip(frames[0] + rng.normal(0, 6, frames[0].shape), 0, 255).astype(np.uint8))
    codes = np.array([code(frame) for frame in frames])
    assert limit(codes) == LEAST_BITS
    assert (partners(codes, np.arange(21), limit(codes)) >= 0).all()


def test_the_limit_follows_the_median_pair() -> None:
    rng = np.random.default_rng(0)
    unrelated = rng.integers(0, 2**64, (30, 4), np.uint64, endpoint=False)
    unrelated[:, 3] &= np.uint64(2**64 - 2)  # the last bit is not used
    assert MOST_BITS - 2 <= limit(unrelated) <= MOST_BITS
    halfway = unrelated.copy()
    halfway[:, :2] = 0
    assert abs(limit(halfway) - max(LEAST_BITS, MOST_BITS / 2)) <= 1
    assert limit(np.repeat(unrelated[:1], 30, axis=0)) == LEAST_BITS
    assert limit(unrelated[:4]) == MOST_BITS  # too few pairs


def test_different_real_images_are_not_similar(shared_data: Callable[[str], Path]) -> None:
    # These are consecutive slices of tissue, and nuclei on black ground; no image was recorded twice.
    for name in ("isbi2012", "dsb2018"):
        codes = [code(imagefiles.read_image(file)) for file in sorted((shared_data(name) / "images").iterdir())]
        assert (partners(np.array(codes), np.arange(len(codes))) == -1).all()


def test_real_images_recorded_twice_are_found(shared_data: Callable[[str], Path]) -> None:
    # Confirmed by eye: these cells were cut out twice, 112 with identical pixels; others differ by 60 bits or more.
    images = sorted((shared_data("wbc") / "images").iterdir())
    raw = [imagefiles.read_image(file) for file in images]
    partner_of = partners(np.array([code(image) for image in raw]), np.arange(len(raw)))
    pairs = {frozenset((images[one].stem, images[partner_of[one]].stem)) for one in np.flatnonzero(partner_of >= 0)}
    assert pairs == {frozenset(pair) for pair in (("112", "139"), ("157", "158"), ("166", "171"), ("167", "169"))}
    same = twins([digest(image) for image in raw], range(len(raw)))
    assert {images[one].stem for one in same} == {"112", "139"}


def test_large_images_are_reduced_in_their_own_type() -> None:
    large = np.kron(cells(0), np.ones((8, 8, 1), np.uint8))
    assert bits(code(cells(0)), code(large)) <= 8


@pytest.mark.parametrize("image", [np.zeros((1, 1, 1), np.uint8), np.full((9, 70, 2), 3e38, np.float32)])
def test_images_without_content_have_a_code(image: np.ndarray) -> None:
    assert (code(image).shape, code(image).dtype) == ((4,), np.uint64)


def test_digest_depends_on_pixels_type_and_shape() -> None:
    image = cells(0)
    assert digest(image) == digest(image.copy()) == digest(np.asfortranarray(image))
    others = [image + 1, image.astype(np.uint16), image.reshape(200, 180, 1)]
    assert len({digest(image), *map(digest, others)}) == 4


@given(st.lists(st.tuples(st.sampled_from([b"x", b"y", b"z"]), st.integers(0, 2)), max_size=12))
def test_twins_have_the_same_digest_and_another_label(items: list[tuple[bytes, int]]) -> None:
    twin_of = twins([digest for digest, _ in items], [label for _, label in items])
    for index, (content, label) in enumerate(items):
        others = [i for i, (c, other) in enumerate(items) if c == content and other != label]
        assert (index in twin_of) == bool(others)
        assert index not in twin_of or twin_of[index] in others


CODES = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 7), st.integers(0, 2)), max_size=40)


def _codes(items: list[tuple[int, int, int]]) -> tuple[np.ndarray, np.ndarray]:
    """Make codes around a few distant centres by flipping bits, and their labels."""
    centres = np.random.default_rng(0).integers(0, 2**62, (4, 4), dtype=np.uint64)
    codes = [centres[centre] ^ np.uint64((1 << 9 * flips) - 1) for centre, flips, _ in items]
    return np.array(codes, np.uint64).reshape(-1, 4), np.array([label for *_, label in items], np.intp)


@given(CODES)
def test_partners_equal_those_of_all_pairs(items: list[tuple[int, int, int]]) -> None:
    codes, labels = _codes(items)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(duplicates, "ROWS", 3)
        patch.setattr(duplicates, "COLUMNS", 5)
        partner_of = partners(codes, labels)
    for index in range(len(items)):
        alike = [
            other
            for other in range(len(items))
            if bits(codes[index], codes[other]) <= MOST_BITS and labels[index] != labels[other]
        ]
        assert partner_of[index] in alike if alike else partner_of[index] == -1


@given(CODES)
def test_united_joins_similar_codes_along_any_chain(items: list[tuple[int, int, int]]) -> None:
    codes, labels = _codes(items)
    expected = labels.tolist()
    for _ in items:  # enough rounds to spread labels along any chain
        for one in range(len(items)):
            for other in range(len(items)):
                if bits(codes[one], codes[other]) <= MOST_BITS:
                    low, high = sorted((expected[one], expected[other]))
                    expected = [low if label == high else label for label in expected]
    united_labels = united(codes, labels)
    assert [[a == b for a in united_labels] for b in united_labels] == [[a == b for a in expected] for b in expected]


def test_joined_takes_the_smaller_label() -> None:
    assert joined(np.array([3, 1, 2, 3, 5]), [(0, 2), (2, 4)]).tolist() == [2, 1, 2, 2, 2]
