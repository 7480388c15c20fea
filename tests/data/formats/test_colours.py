"""Classes of colours, judged by tables made by hand."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segline.data.dataset import IGNORE
from segline.data.formats import LayoutError, Wishes
from segline.data.formats.colours import key, read_table
from segline.data.formats.maskfile import Look, look

BLACK, RED, GREEN, WHITE = 0x000000, 0xFF0000, 0x00FF00, 0xFFFFFF


def drawn(file: Path, rows: list[list[int]]) -> Path:
    packed = np.array(rows)
    Image.fromarray(np.stack([packed >> 16, packed >> 8 & 255, packed & 255], -1).astype(np.uint8)).save(file)
    return file


def test_guess_by_the_order_of_codes(tmp_path: Path) -> None:
    masks = [drawn(tmp_path / "a.png", [[BLACK, RED]]), drawn(tmp_path / "b.png", [[GREEN, RED]])]
    found = key(map(look, masks), Wishes())
    assert found.classes == {BLACK: 0, GREEN: 1, RED: 2}
    assert found.names == {0: "background", 1: "#00ff00", 2: "#ff0000"}
    assert "#000000 -> 0, #00ff00 -> 1, #ff0000 -> 2" in found.reasons[0] and "--colours FILE.csv" in found.reasons[0]
    np.testing.assert_array_equal(found.mask(masks[1]).read(), np.array([[1, 2]], np.uint8))
    assert found == key(map(look, reversed(masks)), Wishes())


def test_one_colour_is_an_object_and_black_may_be_absent() -> None:
    found = key([Look(Path("a"), None, {RED: 9})], Wishes())
    assert found.names == {0: "background", 1: "object"}
    assert "no mask holds black" in found.reasons[-1]


def test_table(tmp_path: Path) -> None:
    masks = [drawn(tmp_path / "a.png", [[BLACK, RED], [GREEN, WHITE]])]
    colours = {(0, 0, 0): 0, (255, 0, 0): 2, (0, 255, 0): 1, (255, 255, 255): IGNORE}
    found = key(map(look, masks), Wishes(colours=colours, names={2: "nucleus"}))
    np.testing.assert_array_equal(found.mask(masks[0]).read(), [[0, 2], [1, IGNORE]])
    assert found.names is not None and found.names[2] == "nucleus"


def test_a_colour_without_class_is_named_with_file_and_pixels(tmp_path: Path) -> None:
    mask = drawn(tmp_path / "a.png", [[BLACK, RED], [GREEN, GREEN]])
    found = key([look(mask)], Wishes(colours={(0, 0, 0): 0, (255, 0, 0): 1}))
    with pytest.raises(LayoutError, match=r"a\.png: 1 colour\(s\) that no class has: #00ff00 \(2 px\); .*--colours"):
        found.mask(mask).read()


def test_objects_by_colour(tmp_path: Path) -> None:
    mask = drawn(tmp_path / "a.png", [[BLACK, RED], [GREEN, WHITE]])
    found = key([look(mask)], Wishes(labels="instances"))
    assert found.names is None
    np.testing.assert_array_equal(found.mask(mask).read(), [[BLACK, RED], [GREEN, WHITE]])


def test_too_many_colours_say_how_to_give_the_table() -> None:
    looks = [Look(Path("a.png"), None, dict.fromkeys(range(1, 30), 1)), Look(Path("b.png"), None, {99: 1})]
    key(looks, Wishes())
    many = [*looks, Look(Path("c.png"), None, dict.fromkeys(range(100, 140), 1))]
    with pytest.raises(LayoutError, match=r"hold 70 colours, c\.png alone 40; .*--colours FILE\.csv, .*colour.*class"):
        key(many, Wishes())


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
    assert key(looks, Wishes()).reading == reading


def test_a_table_is_read(tmp_path: Path) -> None:
    file = tmp_path / "colours.csv"
    file.write_text('colour,class,name\n#000000,0,\n#FF8000,1,cell\n"0, 0, 255",2,nucleus\n00ff00,ignore,void\n')
    assert read_table(file) == (
        {(0, 0, 0): 0, (255, 128, 0): 1, (0, 0, 255): 2, (0, 255, 0): IGNORE},
        {1: "cell", 2: "nucleus"},
    )
    file.write_text("class,colour\n1,#ff0000\n1,#00ff00\n")
    assert read_table(file) == ({(255, 0, 0): 1, (0, 255, 0): 1}, {})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("color,class\n#000000,0\n", r"has no column colour, but color, class; give --colours"),
        ("colour,name\n#000000,x\n", "has no column class"),
        ("colour,class\n#00000,0\n", r"line 2: colour '#00000'; write #rrggbb"),
        ('colour,class\n#000000,0\n"1,2,300",1\n', "line 3: colour '1,2,300'"),
        ('colour,class\n"1,2",1\n', "colour '1,2'"),
        ('colour,class\n"1,-2,3",1\n', "colour '1,-2,3'"),
        ("colour,class\n#000000,zero\n", "class 'zero'; write a number from 0 to 254, or ignore"),
        ("colour,class\n#000000,256\n", "class '256'"),
        ("colour,class\n#000000,0\n#000000,1\n", "line 3: #000000 is class 0 already"),
        ("colour,class,name\n#000000,0,a\n#000001,0,b\n", "class 0 is 'a' already, not 'b'"),
        ("colour,class\n", "has no line"),
        ("colour,class\n#000000,ignore\n", "no class but ignore"),
    ],
)
def test_tables_that_are_none(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "colours.csv").write_text(text)
    with pytest.raises(LayoutError, match=f"colours.csv.*{says}"):
        read_table(tmp_path / "colours.csv")
