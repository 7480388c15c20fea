"""The model card, judged by its rendered Markdown."""

import re

import pytest

from segline.score import card


@pytest.mark.parametrize(
    "name", ["cell", "cell_type-2", "[red]x", "<b>", "a|b", "*a*", "`a`", "_a_", "a\\b", "R&D", "клетки"]
)
def test_class_names_are_escaped_in_the_card(name: str) -> None:
    text = card.render(
        dataset={"name": "x", "classes": {0: "background", 1: name}, "licence": "", "source": ""},
        splits={"test": 1},
        result={"iou": {name: 0.5}, "dice": {name: 0.5}},
        statistics={"dtype": "uint8", "channels": 1},
        inference={"threshold": None, "segment_threshold": None, "separation": None, "views": 1},
        settings={},
        best_epoch=1,
    )
    row = next(line for line in text.splitlines() if "0.5000" in line)
    assert len(re.findall(r"(?<!\\)\|", row)) == 4
    shown = re.split(r"(?<!\\)\|", row)[1].strip()
    assert re.sub(r"\\(.)", r"\1", shown) == name
    assert not re.search(r"(?<!\\)(?:\\\\)*[<>\[\]*`&]", shown)
    if re.fullmatch(r"[\w-]+", name) and not name.startswith("_"):
        assert shown == name
