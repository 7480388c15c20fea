"""Exports of other tools that are not read, known by what is in them, and how to convert them."""

import json
from collections.abc import Callable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

LOOKED_AT = 20  # files of a kind
HEAD = 4096  # bytes
LARGEST = 50_000_000  # bytes of a JSON that is read for a hint

COCO = "export it as COCO with polygons or masks"
WAYS = {
    "VIA (VGG Image Annotator)": "export it in VIA by Annotation > Export Annotations (COCO format)",
    "Supervisely": "export it in Supervisely by the app Export to COCO, or Export as Masks",
    "QuPath (GeoJSON)": "export label images in QuPath by a script with LabeledImageServer, one image each",
    "Label Studio": "export it in Label Studio as COCO, or brush labels as PNG",
    "Labelbox": f"{COCO}, by Labelbox's Python package",
    "CVAT (XML)": "export it in CVAT as COCO 1.0 or Segmentation mask 1.1",
    "Pascal VOC boxes (XML)": "boxes say not which pixels are of an object: label masks or polygons",
    "YOLO (text)": "convert it to COCO; boxes (five numbers a line) say not which pixels are of an object",
}


def hint(source: Path) -> str:
    """A line that names the tools whose exports lie below `source`, and says how to convert them; or nothing."""
    found = dict.fromkeys(tool for kind, tell in TELL.items() for file in _some(source, kind) if (tool := tell(file)))
    return "".join(f"\nthis looks like an export of {tool}, which is not read: {WAYS[tool]}" for tool in found)


def _some(source: Path, kind: str) -> list[Path]:
    folder = source if source.is_dir() else source.parent
    return [file for file in islice(sorted(folder.rglob(f"*{kind}")), LOOKED_AT) if file.is_file()]


def _json(file: Path) -> str | None:
    try:
        content = json.loads(file.read_bytes()) if file.stat().st_size < LARGEST else None
    except (OSError, ValueError, RecursionError):
        return None
    first = content[0] if isinstance(content, list) and content else content
    if not isinstance(first, dict):
        return None
    if first.get("type") in ("Feature", "FeatureCollection"):
        return "QuPath (GeoJSON)"
    if "objects" in first and isinstance(first.get("size"), dict):
        return "Supervisely"
    if "_via_img_metadata" in first or any("region_attributes" in _first_region(value) for value in first.values()):
        return "VIA (VGG Image Annotator)"
    if isinstance(content, list) and isinstance(first.get("data"), dict) and "annotations" in first:
        return "Label Studio"
    return "Labelbox" if "data_row" in first or "Labeled Data" in first else None


def _first_region(value: Any) -> Mapping[str, Any]:
    """The first region of an image as VIA writes it, in a list or, in version 1, by number."""
    regions = value.get("regions") if isinstance(value, dict) else None
    listed = list(regions.values()) if isinstance(regions, dict) else regions
    return listed[0] if isinstance(listed, list) and listed and isinstance(listed[0], dict) else {}


def _head(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            return stream.read(HEAD).decode(errors="replace")
    except OSError:
        return ""


def _csv(file: Path) -> str | None:
    return "VIA (VGG Image Annotator)" if "region_shape_attributes" in _head(file) else None


def _xml(file: Path) -> str | None:
    head = _head(file)
    if "<annotations>" in head and "<version>" in head:
        return "CVAT (XML)"
    return "Pascal VOC boxes (XML)" if "<annotation>" in head or "<bndbox>" in head else None


def _text(file: Path) -> str | None:
    lines = [line.split() for line in _head(file).splitlines()[:3]]
    numbers = [[part for part in line if part.replace(".", "", 1).isdecimal()] for line in lines]
    rows = [len(found) for line, found in zip(lines, numbers, strict=True) if len(line) == len(found)]
    return "YOLO (text)" if rows and len(rows) == len(lines) and min(rows) >= 5 else None


TELL: Mapping[str, Callable[[Path], str | None]] = {
    ".json": _json,
    ".geojson": _json,
    ".ndjson": lambda file: "Labelbox" if "data_row" in _head(file) else None,
    ".csv": _csv,
    ".xml": _xml,
    ".txt": _text,
}
