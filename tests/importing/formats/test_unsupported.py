"""Hints about exports of other tools, with examples from the documentation of each tool."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segline import files
from segline.data import imagefiles
from segline.importing.formats import recognise
from segline.importing.layout import ImportOptions, LayoutError

REGION = {
    "shape_attributes": {"name": "polygon", "all_points_x": [1, 2], "all_points_y": [1, 2]},
    "region_attributes": {},
}
VIA = {"a.png123": {"filename": "a.png", "size": 123, "regions": [REGION], "file_attributes": {}}}
SUPERVISELY = {"description": "", "tags": [], "size": {"height": 9, "width": 9}, "objects": []}
FEATURE = {
    "type": "Feature",
    "geometry": {"type": "Polygon", "coordinates": [[[0, 0], [1, 0], [1, 1]]]},
    "properties": {},
}
HEADER = "filename,file_size,file_attributes,region_count,region_id,region_shape_attributes,region_attributes\n"


@pytest.mark.parametrize(
    ("name", "content", "tool"),
    [
        ("via_region_data.json", VIA, "VIA"),
        ("via_export.json", {"a.png123": {**VIA["a.png123"], "regions": {"0": REGION}}}, "VIA"),
        ("via_project.json", {"_via_settings": {}, "_via_img_metadata": VIA}, "VIA"),
        ("via.csv", HEADER, "VIA"),
        ("ds0/ann/a.png.json", SUPERVISELY, "Supervisely"),
        ("a.geojson", {"type": "FeatureCollection", "features": [FEATURE]}, "QuPath"),
        ("a.json", [FEATURE], "QuPath"),
        ("project.json", [{"id": 1, "data": {"image": "a.png"}, "annotations": []}], "Label Studio"),
        ("annotations.xml", "<?xml version='1.0'?>\n<annotations>\n  <version>1.1</version>", "CVAT"),
        ("Annotations/a.xml", "<annotation><object><bndbox>", "boxes"),
        ("labels/a.txt", "0 0.5 0.5 0.1 0.2\n1 0.1 0.2 0.3 0.4\n", "YOLO"),
    ],
)
def test_the_hint_names_the_tool_and_the_way_out(tmp_path: Path, name: str, content: Any, tool: str) -> None:
    imagefiles.write_png(tmp_path / "images" / "a.png", np.zeros((9, 9), np.uint8))
    text = content if isinstance(content, str) else json.dumps(content)
    files.write_bytes(tmp_path / name, text.encode())
    with pytest.raises(LayoutError, match=rf"this looks like an export of .*{tool}.*, which import does not read: \w+"):
        recognise(tmp_path, ImportOptions())


@pytest.mark.parametrize("text", ["{", "[]", "null", "[[1]]", '{"a": 1}', "1 2", "cells\n3", "\x00\xff"])
@pytest.mark.parametrize("name", ["a.json", "a.xml", "a.txt", "a.csv"])
def test_other_files_give_no_hint(tmp_path: Path, name: str, text: str) -> None:
    imagefiles.write_png(tmp_path / "images" / "a.png", np.zeros((9, 9), np.uint8))
    (tmp_path / name).write_text(text)
    with pytest.raises(LayoutError) as refused:
        recognise(tmp_path, ImportOptions())
    assert "export of" not in str(refused.value)
