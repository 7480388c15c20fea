"""Parts of an array: together they are all of it, each once, and none is too large."""

from hypothesis import given
from hypothesis import strategies as st

from segline.data.blocks import grown, parts, strips


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 500))
def test_strips_make_up_the_rows(height: int, width: int, pixels: int) -> None:
    found = list(strips((height, width, 3), pixels))
    assert [row for rows in found for row in range(height)[rows]] == list(range(height))
    assert all(rows.stop - rows.start == 1 or (rows.stop - rows.start) * width <= pixels for rows in found)


@given(st.integers(0, 5000), st.integers(1, 20), st.integers(1, 16))
def test_parts_make_up_the_axis(length: int, steps: int, step: int) -> None:
    found = parts(length, steps * step, step)
    assert [place for part in found for place in range(length)[part]] == list(range(length))
    assert all(part.start % step == 0 and 0 < part.stop - part.start <= steps * step for part in found)


def test_parts_are_of_about_one_size() -> None:
    assert parts(1000, 512) == [slice(0, 500), slice(500, 1000)]
    assert parts(1000, 512, 16) == [slice(0, 512), slice(512, 1000)]
    assert parts(512, 512, 16) == [slice(0, 512)]


@given(st.integers(1, 50), st.integers(0, 20), st.data())
def test_a_part_lies_in_its_margin(length: int, margin: int, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, length - 1))
    part = slice(start, data.draw(st.integers(start + 1, length)))
    around, inner = grown(part, margin, length)
    assert list(range(length))[around][inner] == list(range(length))[part]
    assert around.start == max(0, part.start - margin)
    assert around.stop == min(length, part.stop + margin)
