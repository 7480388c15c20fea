"""Give hints about files that `segline import` cannot read: unsupported image types, and exports of other tools."""

import json
import os
from collections import Counter
from collections.abc import Callable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

UNREADABLE = (
    ".webp", ".heic", ".npy", ".npz", ".mat", ".h5", ".nii", ".gz", ".dcm", ".czi", ".nd2", ".lif",
)  # fmt: skip
MOST_FILES = 20  # largest number of files examined for each suffix
HEAD = 4096  # bytes read from the start of a file
LARGEST = 50_000_000  # largest JSON file that is read for a hint, in bytes

COCO = "export it as COCO with polygons or masks"
CONVERSIONS = {
    "VIA (VGG Image Annotator)": "export it in VIA with the menu item 'Annotation > Export Annotations (COCO format)'",
    "Supervisely": "export it in Supervisely with the app 'Export to COCO' or the app 'Export as Masks'",
    "QuPath (GeoJSON)": "export one label image per image in QuPath, with a script that uses LabeledImageServer",
    "Label Studio": "export it in Label Studio as COCO, or brush labels as PNG",
    "Labelbox": f"{COCO}, with Labelbox's Python package",
    "CVAT (XML)": "export it in CVAT in the format 'COCO 1.0' or 'Segmentation mask 1.1'",
    "Pascal VOC boxes (XML)": "boxes do not say which pixels belong to an object; label masks or polygons instead",
    "YOLO (text)": "convert it to COCO; boxes (five numbers per line) do not say which pixels belong to an object",
}


def hints(folder: Path) -> str:
    """Return hints on how to convert unreadable images and exports of other tools, if `folder` holds any."""
    endings = Counter(Path(name).suffix.lower() for _, _, names in os.walk(folder) for name in names)
    unreadable = [f"{endings[ending]} {ending}" for ending in UNREADABLE if endings[ending]]
    line = f"\nimport does not read {', '.join(unreadable)} files; convert them to PNG or TIFF" if unreadable else ""
    return line + foreign_exports(folder)


def foreign_exports(source: Path) -> str:
    """Find exports of other tools in `source` or its subfolders; return a line of conversion advice for each tool."""
    tools = dict.fromkeys(
        tool for suffix, tool_of in TOOL_OF.items() for file in _files(source, suffix) if (tool := tool_of(file))
    )
    return "".join(
        f"\nthis looks like an export of {tool}, which import does not read: {CONVERSIONS[tool]}" for tool in tools
    )


def _files(source: Path, suffix: str) -> list[Path]:
    folder = source if source.is_dir() else source.parent
    return [file for file in islice(sorted(folder.rglob(f"*{suffix}")), MOST_FILES) if file.is_file()]


def _json_tool(file: Path) -> str | None:
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
    """Return the first region of an image in a VIA export, or an empty mapping if there is none.

    In VIA 1, the regions are a mapping by number; in later versions, the regions are a list.
    """
    regions = value.get("regions") if isinstance(value, dict) else None
    listed = list(regions.values()) if isinstance(regions, dict) else regions
    return listed[0] if isinstance(listed, list) and listed and isinstance(listed[0], dict) else {}


def _head(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            return stream.read(HEAD).decode(errors="replace")
    except OSError:
        return ""


def _csv_tool(file: Path) -> str | None:
    return "VIA (VGG Image Annotator)" if "region_shape_attributes" in _head(file) else None


def _xml_tool(file: Path) -> str | None:
    head = _head(file)
    if "<annotations>" in head and "<version>" in head:
        return "CVAT (XML)"
    return "Pascal VOC boxes (XML)" if "<annotation>" in head or "<bndbox>" in head else None


def _text_tool(file: Path) -> str | None:
    lines = [line.split() for line in _head(file).splitlines()[:3]]
    numeric = [[part for part in line if part.replace(".", "", 1).isdecimal()] for line in lines]
    rows = [len(numbers) for line, numbers in zip(lines, numeric, strict=True) if len(line) == len(numbers)]
    return "YOLO (text)" if rows and len(rows) == len(lines) and min(rows) >= 5 else None


TOOL_OF: Mapping[str, Callable[[Path], str | None]] = {
    ".json": _json_tool,
    ".geojson": _json_tool,
    ".ndjson": lambda file: "Labelbox" if "data_row" in _head(file) else None,
    ".csv": _csv_tool,
    ".xml": _xml_tool,
    ".txt": _text_tool,
}
