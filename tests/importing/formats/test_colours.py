"""Classes of colours, judged by tables made by hand."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segline.data.dataset import IGNORE
from segline.importing.formats.colours import key
from segline.importing.formats.pixels import Look, look
from segline.importing.layout import ImportOptions, LayoutError

BLACK, RED, GREEN, WHITE = 0x000000, 0xFF0000, 0x00FF00, 0xFFFFFF


def drawn(file: Path, rows: list[list[int]]) -> Path:
    packed = np.array(rows)
    Image.fromarray(np.stack([packed >> 16, packed >> 8 & 255, packed & 255], -1).astype(np.uint8)).save(file)
    return file


def test_guess_by_the_order_of_codes(tmp_path: Path) -> None:
    masks = [drawn(tmp_path / "a.png", [[BLACK, RED]]), drawn(tmp_path / "b.png", [[GREEN, RED]])]
    found = key(map(look, masks), ImportOptions())
    assert found.classes == {BLACK: 0, GREEN: 1, RED: 2}
    assert found.names == {0: "background", 1: "#00ff00", 2: "#ff0000"}
    assert "#000000 -> 0, #00ff00 -> 1, #ff0000 -> 2" in found.reasons[0] and "--colours FILE.csv" in found.reasons[0]
    np.testing.assert_array_equal(found.mask(masks[1]).read(), np.array([[1, 2]], np.uint8))
    assert found == key(map(look, reversed(masks)), ImportOptions())


def test_one_colour_is_an_object_and_black_may_be_absent() -> None:
    found = key([Look(Path("a"), None, {RED: 9})], ImportOptions())
    assert found.names == {0: "background", 1: "object"}
    assert "no mask holds black" in found.reasons[-1]


def test_table(tmp_path: Path) -> None:
    masks = [drawn(tmp_path / "a.png", [[BLACK, RED], [GREEN, WHITE]])]
    colours = {(0, 0, 0): 0, (255, 0, 0): 2, (0, 255, 0): 1, (255, 255, 255): IGNORE}
    found = key(map(look, masks), ImportOptions(colours=colours, names={2: "nucleus"}))
    np.testing.assert_array_equal(found.mask(masks[0]).read(), [[0, 2], [1, IGNORE]])
    assert found.names is not None and found.names[2] == "nucleus"


def test_a_colour_without_class_is_named_with_file_and_pixels(tmp_path: Path) -> None:
    mask = drawn(tmp_path / "a.png", [[BLACK, RED], [GREEN, GREEN]])
    found = key([look(mask)], ImportOptions(colours={(0, 0, 0): 0, (255, 0, 0): 1}))
    with pytest.raises(LayoutError, match=r"a\.png: 1 colour\(s\) without a class: #00ff00 \(2 px\); .*--colours"):
        found.mask(mask).read()


def test_objects_by_colour(tmp_path: Path) -> None:
    mask = drawn(tmp_path / "a.png", [[BLACK, RED], [GREEN, WHITE]])
    found = key([look(mask)], ImportOptions(labels="instances"))
    assert found.names is None
    np.testing.assert_array_equal(found.mask(mask).read(), [[BLACK, RED], [GREEN, WHITE]])


def test_too_many_colours_are_refused_with_the_way_out() -> None:
    drawn = dict.fromkeys(range(1, 30), 1)
    looks = [Look(Path("a.png"), None, drawn, drawn), Look(Path("b.png"), None, {99: 1}, {99: 1})]
    key(looks, ImportOptions())
    many = [*looks, Look(Path("c.png"), None, dict.fromkeys(range(100, 140), 1))]
    expected = r"hold 70 colours \(40 in .*c\.png alone\), .*--colours FILE\.csv, .*colour.*class"
    with pytest.raises(LayoutError, match=expected):
        key(many, ImportOptions())


def palette(**colours: int) -> Look:
    of = {int(index.removeprefix("i")): colour for index, colour in colours.items()}
    return Look(Path("p.png"), of, dict.fromkeys(of.values(), 1))


@pytest.mark.parametrize(
    ("looks", "reading"),
    [
        ([palette(i0=BLACK, i1=RED), palette(i0=BLACK, i2=GREEN)], "numbers"),
        ([palette(i0=WHITE, i1=RED)], "numbers"),  # white paper is index 0
        ([palette(i0=BLACK, i1=RED), palette(i0=BLACK, i1=GREEN)], "colours"),  # each file has its own palette
        ([palette(i0=WHITE, i1=BLACK)], "greys"),  # drawn black on white by index, white on black to the eye
        ([palette(i0=BLACK, i1=0x808080, i2=WHITE)], "numbers"),
        ([palette(i0=BLACK, i1=WHITE), palette(i0=WHITE, i1=BLACK)], "greys"),
        ([palette(i0=BLACK, i1=RED), Look(Path("a"), None, {BLACK: 1, RED: 2})], "colours"),
        ([Look(Path("a"), None, {BLACK: 1, 0x070707: 2})], "numbers"),
        ([Look(Path("a"))], "numbers"),
        ([palette(i0=BLACK, i1=WHITE), Look(Path("a"), None, {BLACK: 1, WHITE: 2})], "greys"),
    ],
)
def test_reading_of_palettes(looks: list[Look], reading: str) -> None:
    assert key(looks, ImportOptions()).reading == reading


def rgb(file: Path, packed: np.ndarray) -> Path:
    Image.fromarray(np.stack([packed >> 16, packed >> 8 & 255, packed & 255], -1).astype(np.uint8)).save(file)
    return file


def painted(*colours: int) -> np.ndarray:
    """64 x 64 px, black with a square of 16 x 16 px of each colour."""
    mask = np.zeros((64, 64), int)
    for place, colour in enumerate(colours):
        y, x = divmod(place, 3)
        mask[20 * y : 20 * y + 16, 20 * x : 20 * x + 16] = colour
    return mask


@pytest.mark.parametrize("noise", [0xFE0000, 0xFF0203, 0xF50000, 0x800000, 0x7F8000, 0x000001, 0x0A0A0A, 0x1234AA])
@pytest.mark.parametrize("run", [1, 3])
def test_noise_colours_are_refused(tmp_path: Path, noise: int, run: int) -> None:
    mask = painted(RED, GREEN)
    mask[4, 4 : 4 + run] = noise
    looks = [look(rgb(tmp_path / "a.png", mask)), look(rgb(tmp_path / "b.png", painted(RED, GREEN)))]
    with pytest.raises(
        LayoutError,
        match=rf"a\.png: the masks hold the rare colour\(s\) #{noise:06x} \({run} px\)\. Compression, .*--colours",
    ):
        key(looks, ImportOptions())
    number = sorted([RED, GREEN, noise]).index(noise) + 1
    assert len(key(looks, ImportOptions(names={number: "spot"})).classes) == 4


@pytest.mark.parametrize("quality", [60, 90, 97])
def test_colours_changed_by_compression_are_refused(tmp_path: Path, quality: int) -> None:
    Image.open(rgb(tmp_path / "a.png", painted(RED, GREEN, 0x0000FF))).save(tmp_path / "a.jpg", quality=quality)
    Image.open(tmp_path / "a.jpg").save(tmp_path / "a.png")
    with pytest.raises(LayoutError, match=r"(?i)compression"):
        key([look(tmp_path / "a.png")], ImportOptions())


@pytest.mark.parametrize("line", [1, 2])
@pytest.mark.parametrize("rare", [0x800000, 0x0000FF, 0x7F7F00])
def test_a_line_of_one_colour_is_a_class(tmp_path: Path, rare: int, line: int) -> None:
    mask = painted(RED, GREEN)
    mask[60 : 60 + line, 2:60] = rare
    if line == 2 or rare == 0x0000FF:
        assert len(key([look(rgb(tmp_path / "a.png", mask))], ImportOptions()).classes) == 4


CITYSCAPES = (0x804080, 0xF423E8, 0x464646, 0x66669C, 0xBE9999, 0x999999, 0xFAAA1E, 0xDC143C, 0xFF0000)
MORE = (0x00008E, 0x000046, 0x003C64, 0x005064, 0x0000E6, 0x770B20, 0x6B8E23, 0x98FB98, 0x4682B4)


@pytest.mark.parametrize("colours", [CITYSCAPES, MORE])
def test_colours_of_cityscapes_are_classes(tmp_path: Path, colours: tuple[int, ...]) -> None:
    mask = painted(*colours)
    mask[:16, :16] = 0
    mask[:3, :3] = colours[0]  # rare, but an area
    assert len(key([look(rgb(tmp_path / "a.png", mask))], ImportOptions()).classes) == len(colours) + 1


def test_void_of_the_palette_of_pascal_voc_does_not_count(tmp_path: Path) -> None:
    mask = np.kron(np.array([[0, 1, 255]], np.uint8), np.ones((8, 8), np.uint8))
    for name, void in (("voc", [224, 224, 192]), ("other", [255, 255, 255])):
        image = Image.fromarray(mask)
        shown = np.zeros((256, 3), np.uint8)
        shown[1], shown[255] = [128, 0, 0], void
        image.putpalette(shown.tobytes())
        image.save(tmp_path / f"{name}.png")
    found = key([look(tmp_path / "voc.png")], ImportOptions())
    assert (found.reading, found.ignore) == ("numbers", 255)
    assert "ignored pixels in Pascal VOC" in found.reasons[-1]
    assert key([look(tmp_path / "voc.png")], ImportOptions(ignore=1)).ignore is None
    assert key([look(tmp_path / "other.png")], ImportOptions()).ignore is None
