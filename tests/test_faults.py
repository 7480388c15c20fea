"""Bad input to the real commands: each ends with an error that names the file and the problem, and writes nothing."""

import contextlib
import io
import json
import os
import shlex
import shutil
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from segline import cli
from segline.commands import predict
from segline.commands.check import GroupsFileError
from segline.commands.import_ import ImportFlagError
from segline.commands.predict import PredictError
from segline.commands.preset import PresetError
from segline.commands.summary import SummaryError
from segline.data.checks.problems import UnfitError
from segline.data.dataset import DatasetError
from segline.data.splits import SplitError
from segline.files import FileError
from segline.importing.layout import LayoutError
from segline.model.geometry import SizeError
from segline.model.images import decode, encode_png
from segline.params import ParamsError
from segline.track.registry import Answer
from segline.track.store import StoreError

Plant = Callable[[Path], object]

STEMS = "abcdef"
PARAMS = """\
data: {source: data/raw/small}
prepare: {validation: [a, b], test: [c]}
runtime: {progress: "off"}
"""
SPEC = """\
name: small
classes: {0: background, 1: cell, 2: nucleus}
ignore: 255
labels: classes
"""


def picture(seed: int) -> np.ndarray:
    """Return an image (40, 48) uint8 that differs for each seed."""
    coarse = np.random.default_rng(seed).integers(20, 230, (10, 12), np.uint8)
    return np.asarray(cv2.resize(coarse, (48, 40), interpolation=cv2.INTER_CUBIC))


def classes(seed: int) -> np.ndarray:
    """Return a mask (40, 48) uint8 with rectangles of 1 and 2 on 0."""
    labels = np.zeros((40, 48), np.uint8)
    labels[4:16, 4 : 20 + seed], labels[24:36, 8:30] = 1, 2
    return labels


def soft(seed: int) -> np.ndarray:
    """Return a mask (40, 48) uint8 with an anti-aliased disc of 255 on 0."""
    disc = cv2.circle(np.zeros((40, 48), np.uint8), (16 + seed, 20), 9, 255, -1)
    return np.asarray(cv2.GaussianBlur(disc, (0, 0), 1))


def colourful(seed: int) -> np.ndarray:
    """Return a mask (40, 48, 3) uint8 with thousands of colours."""
    return np.random.default_rng(seed).integers(0, 255, (40, 48, 3), np.uint8)


# Faults to plant in a valid project


def nothing(root: Path) -> None:
    del root


def put(name: str, content: np.ndarray | bytes | str) -> Plant:
    """Write a file: an array in the format of the suffix, bytes and text unchanged."""

    def plant(root: Path) -> None:
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, np.ndarray) and file.suffix == ".tif":
            tifffile.imwrite(file, content, photometric="minisblack")
        elif isinstance(content, np.ndarray):
            Image.fromarray(content).save(file)
        else:
            file.write_bytes(content if isinstance(content, bytes) else content.encode())

    return plant


def edit(name: str, change: Callable[[bytes], bytes]) -> Plant:
    return lambda root: (root / name).write_bytes(change((root / name).read_bytes()))


def half(name: str) -> Plant:
    """Truncate a file to its first half."""
    return edit(name, lambda content: content[: len(content) // 2])


def remove(name: str) -> Plant:
    return lambda root: shutil.rmtree(root / name) if (root / name).is_dir() else (root / name).unlink()


def move(one: str, other: str) -> Plant:
    return lambda root: os.rename(root / one, root / other)  # noqa: PTH104 a name may be bytes that are no text


def instead(name: str, other: str, content: np.ndarray | bytes | str) -> Plant:
    """Replace the file `name` by a new file `other`."""
    return several(remove(name), put(other, content))


def link(name: str, target: str) -> Plant:
    """Replace a file by a symbolic link."""
    return several(remove(name), lambda root: (root / name).symlink_to(target))


def folder(name: str) -> Plant:
    """Replace a file by a folder."""
    return several(remove(name), lambda root: (root / name).mkdir())


def pipe(name: str) -> Plant:
    return several(remove(name), lambda root: os.mkfifo(root / name))


def every(folder: str, make: Callable[[int], np.ndarray], suffix: str = ".png") -> Plant:
    """Replace the files in `folder` by a new file for each stem."""
    made = (put(f"{folder}/{stem}{suffix}", make(index)) for index, stem in enumerate(STEMS))
    return several(remove(folder), *made)


def several(*plants: Plant) -> Plant:
    return lambda root: [plant(root) for plant in plants]


def only(*plants: Plant) -> Plant:
    """Replace the source folder by the files that `plants` create."""
    return several(remove("source"), *plants)


def images(folder: str = "source", suffix: str = ".png") -> list[Plant]:
    return [put(f"{folder}/{stem}{suffix}", picture(index)) for index, stem in enumerate(STEMS)]


def groups(*lines: str) -> str:
    return "image,group\n" + "".join(f"{line}\n" for line in lines)


def bomb() -> bytes:
    """Return a PNG that declares 60,000 x 60,000 px in 200 bytes."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(bytes(100_000))), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


# Layouts other than images/ and masks/


def coco(change: Callable[[dict[str, Any]], object] = bool) -> Plant:
    """Write COCO JSON with a triangle on each image; `change` damages the JSON."""
    content: dict[str, Any] = {
        "images": [
            {"id": 10 + index, "file_name": f"{stem}.png", "height": 40, "width": 48}
            for index, stem in enumerate(STEMS)
        ],
        "categories": [{"id": 1, "name": "cell"}],
        "annotations": [
            {"id": index, "image_id": 10 + index, "category_id": 1, "segmentation": [[4, 4, 20, 4, 20, 20]]}
            for index in range(len(STEMS))
        ],
    }
    change(content)
    return only(*images(), put("source/annotations.json", json.dumps(content)))


def annotation(**fields: object) -> Plant:
    return coco(lambda content: content["annotations"][2].update(fields))


def listing(**fields: object) -> Plant:
    return coco(lambda content: content["images"][2].update(fields))


def runs(height: int, width: int, *counts: int) -> Plant:
    return annotation(segmentation={"size": [height, width], "counts": counts})


def labelme(change: Callable[[dict[str, Any]], object] = bool) -> Plant:
    """Write LabelMe JSON with a triangle on each image; `change` damages the file of image c."""
    made = []
    for stem in STEMS:
        content: dict[str, Any] = {
            "shapes": [{"label": "cell", "points": [[4, 4], [20, 4], [20, 20]], "shape_type": "polygon"}],
            "imagePath": f"{stem}.png",
            "imageHeight": 40,
            "imageWidth": 48,
        }
        if stem == "c":
            change(content)
        made.append(put(f"source/{stem}.json", json.dumps(content)))
    return only(*images(), *made)


def file(**fields: object) -> Plant:
    return labelme(lambda content: content.update(fields))


def shape(**fields: object) -> Plant:
    return labelme(lambda content: content["shapes"][0].update(fields))


def objects(spoil: Plant) -> Plant:
    """Write one mask per object: source/STEM/images/STEM.png and source/STEM/masks/0.png, 1.png."""
    made = []
    for index, stem in enumerate(STEMS):
        made.append(put(f"source/{stem}/images/{stem}.png", picture(index)))
        made += [put(f"source/{stem}/masks/{value - 1}.png", np.uint8(255) * (classes(0) == value)) for value in (1, 2)]
    return only(*made, spoil)


def tracked(spoil: Plant) -> Plant:
    """Write the layout of the Cell Tracking Challenge: source/01/t000.tif and source/01_GT/SEG/man_seg000.tif, ..."""
    frames = [put(f"source/01/t{index:03}.tif", picture(index)) for index in range(6)]
    truth = [put(f"source/01_GT/SEG/man_seg{index:03}.tif", classes(index).astype(np.uint16)) for index in range(6)]
    return only(*frames, *truth, spoil)


def stack(labels: np.ndarray) -> Plant:
    """Write a stack of six images, and the stack `labels`."""
    pages = np.stack([picture(index) for index in range(6)])
    return only(put("source/train-volume.tif", pages), put("source/train-labels.tif", labels))


def prepared(spoil: Plant) -> Plant:
    """Run stage prepare, then plant the fault."""
    return lambda root: (cli.app(["prepare"], standalone_mode=False), spoil(root))


@dataclass(frozen=True)
class Fault:
    """A fault to plant, the command that must refuse it, the error class, and parts of the message."""

    plant: Plant
    command: str
    error: type[Exception]
    says: tuple[str, ...]


def faults(command: str, error: type[Exception], rows: dict[str, tuple[Any, ...]], place: str = "") -> dict[str, Fault]:
    """Return the faults of one command, planted in folder `place`; `error` is the class for rows without one."""
    table = {}
    for name, (plant, *says) in rows.items():
        kind = says.pop(0) if isinstance(says[0], type) else error
        planted = (lambda root, plant=plant: plant(root / place)) if place else plant
        table[f"{command.split(maxsplit=1)[0]}: {name}"] = Fault(planted, command, kind, tuple(says))
    return table


def flags(command: str, rows: dict[str, tuple[Any, ...]]) -> dict[str, Fault]:
    """Return the faults of command-line options: error class, and parts of the message."""
    return {
        f"{command} {flag}": Fault(nothing, f"{command} {flag}", error, tuple(says))
        for flag, (error, *says) in rows.items()
    }


NINTH = np.float32(9)
HUGE = np.full((40, 48), 2**31, np.uint32)
TALL = classes(2)[:, :40]
WIDE = picture(2).astype(np.uint16)
FLAT = 0 * classes(0)
NAN = np.full((40, 48), np.nan, np.float32)
INK = np.dstack([picture(2)] * 4)  # four channels, the last of which an alpha may be
HAZE = np.dstack([classes(2)] * 3 + [picture(2)])
PAGES = np.stack([picture(index) for index in range(6)])
JPEG = "source/images/c.jpg"
TIFF = "source/images/c.tif"
IMAGE = "source/images/c.png"
GROUPS = "source/groups.csv"
MASK = "source/masks/c.png"
MASK_TIFF = "source/masks/c.tif"
SEG = "source/01_GT/SEG"
STACK = "source/train-labels.tif"
OBJECT = "source/c/masks/1.png"
ANNOTATIONS = "source/annotations.json"


def twofold(said: dict[str, Any]) -> None:
    said["categories"].append({"id": 2, "name": "cell"})


def nested(root: Path) -> None:
    """Move images and masks into subfolders."""
    for kind in ("images", "masks"):
        several(move(f"source/{kind}", "moved"), put(f"source/{kind}/deep/a.png", FLAT), remove("moved"))(root)


def both(name: str) -> Plant:
    """Rename the image and the mask c."""
    return several(*(move(f"source/{kind}/c.png", f"source/{kind}/{name}.png") for kind in ("images", "masks")))


def jpeg(mode: str) -> Plant:
    return several(remove(IMAGE), lambda root: Image.fromarray(picture(2)).convert(mode).save(root / JPEG))


IMAGES = faults(
    "import source --name new",
    UnfitError,
    {
        "image is truncated": (half(IMAGE), "images/c.png", "truncated"),
        "image is empty": (put(IMAGE, b""), "images/c.png", "not a readable"),
        "image is text": (put(IMAGE, "hello"), "images/c.png", "not a readable PNG, JPEG, BMP, GIF"),
        "image is damaged": (edit(IMAGE, lambda data: data[:60] + b"\xff\0" + data[62:]), "images/c.png", "checksum"),
        "image is a bomb": (put(IMAGE, bomb()), "images/c.png", "cannot hold 60000 x 60000 px"),
        "image is half a GIF": (put(IMAGE, b"GIF89a"), "images/c.png", "not a readable GIF", "truncated"),
        "image is a WebP": (put(IMAGE, b"RIFF$\0\0\0WEBPVP8 "), "images/c.png", "not a readable", "convert the file"),
        "TIFF is truncated": (several(instead(IMAGE, TIFF, picture(2)), half(TIFF)), "images/c.tif", "truncated"),
        "JPEG is truncated": (several(jpeg("L"), half(JPEG)), "images/c.jpg", "truncated"),
        "JPEG is for print": (jpeg("CMYK"), "images/c.jpg", "CMYK"),
        "image is complex": (instead(IMAGE, TIFF, picture(2) + 1j), "images/c.tif", "COMPLEX"),
        "image is transparent": (put(IMAGE, INK), "images/c.png", "transparent", "flatten"),
        "image is not finite": (instead(IMAGE, TIFF, NAN), "images/c.tif", "1920 values are NaN"),
        "mask of another size": (
            put(MASK, TALL),
            "classes/c.png",
            "has 40x40 px, but its image images/c.png has 48x40 px",
        ),
        "names differ by case": (both("A"), "images/a.png", "differs from images/A.png by case only"),
        "a name of two lines": (both("c\n"), "images/c\\n.png", "a control character"),
        "a name that is no text": (both("c\udcff"), "images/c\\xff.png", "bytes that are not UTF-8"),
    },
)
SOURCES = faults(
    "import source --name new",
    LayoutError,
    {
        "nothing there": (remove("source"), "source does not exist"),
        "an empty folder": (only(lambda root: (root / "source").mkdir()), "source is an empty folder"),
        "an archive": (only(put("source", b"PK\3\4")), "source is a single file"),
        "a dataset already": (put("source/dataset.yaml", SPEC), "source is already a dataset folder"),
        "no masks": (remove("source/masks"), "source has images in images/, but no masks", "--masks"),
        "no images": (remove("source/images"), "source has masks in masks/, but no folder of images", "--images"),
        "image without mask": (remove(MASK), "1 of 6 images have no mask: c.png", "--skip-unpaired"),
        "mask without image": (remove(IMAGE), "1 of 6 masks have no image: c.png", "--skip-unpaired"),
        "two images of one stem": (put(TIFF, picture(9)), "c.tif", "c.png have the same name"),
        "images in deeper folders": (
            nested,
            "source/images holds no image itself, but its subfolders do, such as deep",
        ),
        "image is a folder": (folder(IMAGE), "no image: c.png"),
        "image is a pipe": (pipe(IMAGE), "no image: c.png"),
        "mask is a pipe": (pipe(MASK), "no mask: c.png"),
        "image is a link to nowhere": (link(IMAGE, "gone.png"), "no image: c.png"),
        "image is a link to itself": (link(IMAGE, "c.png"), "no image: c.png"),
        "masks hold nothing": (every("source/masks", lambda _: FLAT), "source/masks/a.png", "other than 0"),
        "masks are anti-aliased": (every("source/masks", soft), "source/masks/", "pixels are grey", "--threshold 127"),
        "masks are JPEG": (every("source/masks", classes, ".jpg"), "source/masks/a.jpg: JPEG changes values"),
        "masks of many colours": (every("source/masks", colourful), "colours (", "in source/masks/", "--colours"),
        "mask is truncated": (half(MASK), FileError, f"{MASK}: ", "truncated"),
        "mask is empty": (put(MASK, b""), FileError, f"{MASK}: not a readable"),
        "mask is half transparent": (put(MASK, HAZE), FileError, MASK, "half transparent"),
        "mask of fractions": (instead(MASK, MASK_TIFF, classes(2) / NINTH), FileError, MASK_TIFF, "are not integers"),
        "mask below zero": (instead(MASK, MASK_TIFF, FLAT - np.int16(1)), FileError, MASK_TIFF, "ids range from -1"),
        "mask of ids too large": (instead(MASK, MASK_TIFF, HUGE), FileError, MASK_TIFF, "ids range from 2147483648"),
        "groups of some images": (
            put(GROUPS, groups("a,1")),
            DatasetError,
            f"{GROUPS} does not list these images: b, c, d",
        ),
        "groups with semicolons": (put(GROUPS, "image;group\na;1\n"), DatasetError, "no column image", "image;group"),
        "groups are no text": (put(GROUPS, b"\xff\xfe\0"), FileError, f"{GROUPS}: not a readable table"),
        "groups are ragged": (put(GROUPS, groups("a,1", "b,1,2")), FileError, f"{GROUPS}: ", "line 3"),
        "groups are empty": (put(GROUPS, ""), FileError, f"{GROUPS}: not a readable table"),
        "outside of a project": (remove("params.yaml"), ImportFlagError, "there is no params.yaml"),
    },
)
LAYOUTS = faults(
    "import source --name new",
    LayoutError,
    {
        "COCO image is missing": (several(coco(), remove("source/c.png")), "annotations.json: file_name 'c.png'"),
        "COCO image of no id": (annotation(image_id=99), "annotations.json: annotation 2: image_id 99"),
        "COCO category of no id": (annotation(category_id=99), "annotations.json: annotation 2: category_id 99"),
        "COCO two points": (annotation(segmentation=[[1, 1, 2, 2]]), "annotation 2: segmentation[0] has 2 points"),
        "image is a stack": (
            instead(IMAGE, TIFF, PAGES),
            "images/c.tif",
            "a stack of 6 pages",
            "save each page of both files as a separate file",
        ),
        "COCO half a point": (
            annotation(segmentation=[[1, 1, 2, 2, 3, 3, 4]]),
            "annotation 2: segmentation[0] has 7 numbers",
        ),
        "COCO outside": (annotation(segmentation=[[99, 1, 120, 1, 99, 9]]), "annotation 2: point x 99, y 1 is outside"),
        "COCO not a number": (annotation(segmentation=[[1, 1, 2, 2, 3, np.nan]]), "(id 2): segmentation[0][5] is nan"),
        "COCO a box alone": (
            annotation(segmentation=[]),
            "annotations.json: annotation 2: the field segmentation is empty",
        ),
        "COCO runs too short": (runs(40, 48, 1, 2), "annotation 2: the runs in segmentation.counts have 3 pixels"),
        "COCO runs of another size": (runs(4, 4, 16), "annotation 2: segmentation.size is 4x4"),
        "COCO runs below zero": (runs(40, 48, -5, 1925), "annotation 2: ", "-5 pixels"),
        "COCO another size": (listing(height=41), "annotations.json gives the size 48x41 px", "source/c.png"),
        "COCO one id twice": (listing(id=10), "annotations.json: images: id 10 occurs twice"),
        "COCO one file twice": (listing(file_name="a.png"), "source/a.png is listed twice"),
        "COCO no object": (coco(lambda said: said.update(annotations=[])), "none of the 6 images has an object"),
        "COCO two categories of one name": (coco(twofold), "annotations.json: two of the categories ['cell', 'cell']"),
        "COCO path that climbs": (listing(file_name="../../params.yaml"), "file_name '../../params.yaml'"),
        "COCO truncated": (several(coco(), half(ANNOTATIONS)), FileError, "annotations.json: not valid JSON"),
        "LabelMe no label": (shape(label=""), "source/c.json: shapes[0]: label is ''"),
        "LabelMe one point": (shape(points=[[1, 1]]), "source/c.json: shapes[0] (cell): the polygon has 1 point(s)"),
        "LabelMe no numbers": (shape(points=[["x", "y"]] * 3), "source/c.json: shapes[0]: points[0][0] is 'x'"),
        "LabelMe outside": (shape(points=[[99, 1], [120, 1], [99, 9]]), "c.json: shapes[0] (cell): point x 99, y 1"),
        "LabelMe a line": (shape(shape_type="line"), "source/c.json: shapes[0] (cell): shape_type 'line'"),
        "LabelMe image is missing": (file(imagePath="gone.png"), "c.json: imagePath 'gone.png'"),
        "LabelMe another size": (file(imageHeight=41), "source/c.json gives the size 48x41 px"),
        "LabelMe one image twice": (file(imagePath="a.png"), "c.json: imagePath names source/a.png"),
        "LabelMe truncated": (several(labelme(), half("source/c.json")), FileError, "source/c.json: not valid JSON"),
        "object of another size": (objects(put(OBJECT, TALL)), f"{OBJECT} is 40x40 px", "48x40"),
        "object with soft edges": (objects(put(OBJECT, soft(0))), f"{OBJECT}: ", "--threshold"),
        "object without pixels": (objects(put(OBJECT, FLAT)), "source/c/masks has masks that cover no pixel: 1.png"),
        "object is truncated": (objects(half(OBJECT)), f"{OBJECT}: ", "truncated"),
        "no folder of objects": (objects(remove("source/c/masks")), "c.png has no folder of masks"),
        "objects of two images": (objects(put("source/c/images/d.png", picture(9))), "source/c has 2 image(s)"),
        "tracked cells without outlines": (tracked(remove(SEG)), "no folder 01_GT/SEG with man_seg*.tif"),
        "tracked frame is missing": (tracked(remove("source/01/t002.tif")), "man_seg002.tif has no frame", "source/01"),
        "tracked volume": (tracked(put("source/01/t000.tif", PAGES)), "source/01/t000.tif has 6 slices"),
        "tracked cells of another size": (tracked(put(f"{SEG}/man_seg002.tif", TALL)), UnfitError, "t002.png", "40x40"),
        "stack of one page less": (
            stack(PAGES[:5] % 3),
            "train-volume.tif has 6 page(s)",
            "train-labels.tif have 5 page(s)",
        ),
        "stack of another size": (stack(PAGES[:, :9] % 3), "train-volume.tif has pages of 48x40 px", "48x9"),
        "stack of fractions": (stack(PAGES / NINTH), FileError, "train-labels.tif: ", "are not integers"),
        "stack is truncated": (several(stack(PAGES % 3), half(STACK)), FileError, f"{STACK}: ", "truncated"),
    },
)


def table(*lines: str) -> Plant:
    return put("colours.csv", "colour,class\n" + "".join(f"{line}\n" for line in lines))


COLOURS = faults(
    "import source --name new --colours colours.csv",
    LayoutError,
    {
        "no table of colours": (nothing, FileError, "colours.csv: cannot be read"),
        "no column of colours": (
            put("colours.csv", "a,b\n1,2\n"),
            "colours.csv has no column colour, only the columns a, b",
        ),
        "no colour": (table("#zzz,1"), "colours.csv, line 2: the colour is '#zzz'"),
        "no class of a colour": (table("#000000,999"), "colours.csv, line 2: the class is '999'"),
        "a colour of two classes": (
            table("#000000,0", "#000000,1"),
            "colours.csv, line 3: an earlier line already gives colour #000000 the class 0",
        ),
        "colours of no class": (table("#000000,0", "#ff0000,1"), "source/masks/a.png: 2 colour(s)", "#020202"),
    },
)
IMPORT_FLAGS = flags(
    "import source",
    {
        "--name ../up": (DatasetError, "--name '../up'"),
        "--name ''": (DatasetError, "--name ''"),
        "--name 'a\n'": (DatasetError, "--name 'a\\n'"),
        "--name cells": (ImportFlagError, "--name cells", "choose another name"),
        "--name small": (DatasetError, "data/raw/small already exists", "--replace"),
        "--name new --class nucleus": (ImportFlagError, "--class 'nucleus'", "--class 1=nucleus"),
        "--name new --class one=nucleus": (ImportFlagError, "--class 'one=nucleus'"),
        "--name new --class 1=": (ImportFlagError, "--class '1='"),
        "--name new --class 1=x --class 1=y": (ImportFlagError, "--class 1 is given twice"),
        "--name new --class 1=x --class 2=x": (DatasetError, "'x', 'x'", "two classes have the same name"),
        "--name new --labels instances --class 2=y": (LayoutError, "--class 2", "omit this option"),
        "--name new --labels instances --ignore 2": (LayoutError, "--ignore 2", "leave the option out"),
        "--name new --ignore -3": (ImportFlagError, "--ignore -3"),
        "--name new --labels boundaries": (
            LayoutError,
            "--labels boundaries needs masks with two values",
            "0, 1, 2",
        ),
        "--name new --threshold 900": (LayoutError, "no mask holds a pixel above 900", "source/masks/a.png"),
        "--name new --images 'raw/*'": (LayoutError, "--images 'raw/*' matches no file below source", "images/a.png"),
        "--name new --images '*/*' --masks 'masks/*'": (LayoutError, "images */*, masks masks/*", "have no mask"),
        "--name new --group-by '(('": (LayoutError, "--group-by '((' is not a regular expression"),
        "--name new --group-by 'patient(.)'": (LayoutError, "--group-by 'patient(.)' does not match the image names a"),
    },
) | flags(
    "import",
    {
        "data --name new": (
            DatasetError,
            "the source data and the dataset folder data/raw/new are the same, or one is inside the other",
        )
    },
)


def spec(old: str, new: str) -> Plant:
    return put("dataset.yaml", SPEC.replace(old, new))


def listed(*lines: str) -> Plant:
    return put("groups.csv", groups(*lines))


def pairs(*stems: str) -> Plant:
    """Remove images and their labels."""
    return several(*(remove(f"{kind}/{stem}.png") for kind in ("images", "classes") for stem in stems))


def renamed(one: str, other: str) -> Plant:
    return several(*(move(f"{kind}/{one}.png", f"{kind}/{other}.png") for kind in ("images", "classes")))


def away(name: str) -> Plant:
    """Move a file out of the dataset, and replace it by a symbolic link."""
    return several(move(name, "../moved.png"), lambda root: (root / name).symlink_to("../../moved.png"))


def ones(root: Path) -> None:
    """Add instances of class 1 only."""
    for index, stem in enumerate(STEMS):
        put(f"instances/{stem}.png", np.uint8(classes(index) == 1))(root)


def blank(*stems: str) -> Plant:
    return several(*(put(f"classes/{stem}.png", FLAT) for stem in stems))


def planar(stem: str) -> Plant:
    """Replace an image by a TIFF with two channels."""
    pixels = np.stack([picture(2), picture(3)])
    options = {"photometric": "minisblack", "planarconfig": "separate"}
    return several(remove(f"{stem}.png"), lambda root: tifffile.imwrite(root / f"{stem}.tif", pixels, **options))


EACH = [f"{stem},1" for stem in STEMS]
CHECK = faults(
    "check",
    UnfitError,
    {
        "image without label": (remove("classes/c.png"), "images/c.png", "has no label image classes/c.*"),
        "label without image": (remove("images/f.png"), "classes/f.png", "has no image images/f.*"),
        "image is truncated": (half("images/c.png"), "images/c.png", "not a readable PNG", "truncated"),
        "label is truncated": (half("classes/c.png"), "classes/c.png", "not a readable PNG", "truncated"),
        "label of another size": (
            put("classes/c.png", TALL),
            "classes/c.png",
            "has 40x40 px, but its image images/c.png has 48x40 px",
        ),
        "label in colour": (put("classes/c.png", np.dstack([TALL] * 3)), "classes/c.png", "colour"),
        "value of no class": (put("classes/c.png", 3 * classes(2)), "classes/c.png", "outside the class table: 3 ("),
        "anti-aliased label": (put("classes/c.png", soft(2)), "classes/c.png", "between the classes", "--threshold"),
        "no label anywhere": (every("classes", lambda _: FLAT), "dataset", "the labels contain only background"),
        "no label to learn from": (blank(*"def"), "train split", "the labels contain only background"),
        "instances of some": (put("instances/c.png", classes(2)), "images/a.png", "has no label image instances/a.*"),
        "a class without instance": (ones, "instances/a.png", "no instance, the first at x 8, y 24"),
        "image is not finite": (instead("images/c.png", "images/c.tif", NAN), "images/c.tif", "1920 values are NaN"),
        "16 bit among 8 bit": (put("images/c.png", WIDE), "images/c.png", "uint16 with 1 ", "uint8 with 1"),
        "two channels among one": (planar("images/c"), "images/c.tif", "uint8 with 2 channel(s)", "uint8 with 1"),
        "same pixels in two splits": (put("images/d.png", picture(2)), "images/c.png", "same pixels as images/d.png"),
        "names differ by case": (renamed("f", "A"), "images/a.png", "differs from images/A.png by case"),
        "link out of the folder": (away("images/c.png"), "images/c.png", "is a link to ", "outside the dataset"),
        "link to nowhere": (link("images/c.png", "gone.png"), "images/c.png", "cannot be read: No such file"),
        "link to itself": (link("images/c.png", "c.png"), "images/c.png", "cannot be read: Too many levels"),
        "image is a pipe": (pipe("images/f.png"), "classes/f.png", "has no image images/f.*"),
        "three images": (pairs(*"def"), "images", "there are 3 image(s), but at least 4 are needed"),
        "no images": (several(pairs(*STEMS), put("images/notes.txt", "")), "images holds no files of type .png"),
        "two images of one stem": (put("images/c.tif", picture(9)), "images", "c.tif and c.png have the same stem"),
        "dataset.yaml is empty": (
            put("dataset.yaml", ""),
            "dataset.yaml",
            "holds a value of type NoneType instead of the fields name, classes",
        ),
        "dataset.yaml is no YAML": (put("dataset.yaml", "name: [small"), "dataset.yaml", "not valid YAML", "line 1"),
        "dataset.yaml is a folder": (folder("dataset.yaml"), "dataset.yaml", "Is a directory"),
        "dataset.yaml runs code": (put("dataset.yaml", "!!python/object:os.system x"), "dataset.yaml", "os.system"),
        "one field twice": (spec("name", "name: other\nname"), "dataset.yaml", 'duplicate key "name"'),
        "name that climbs": (spec("small", "../up"), "dataset.yaml", "name = '../up'"),
        "hole in the ids": (
            spec("2:", "3:"),
            "dataset.yaml",
            "class ids [0, 1, 3]",
            "must be consecutive numbers from 0",
        ),
        "id that is none": (spec("2:", "2.5:"), "dataset.yaml", "classes.2.5"),
        "one class": (spec(", 1: cell, 2: nucleus", ""), "dataset.yaml", "ids [0]", "at least two"),
        "two classes of one name": (
            spec("nucleus", "cell"),
            "dataset.yaml",
            "'cell'",
            "two classes have the same name",
        ),
        "ignore is a class": (spec("255", "1"), "dataset.yaml", "`ignore: 1` is the id of a class"),
        "ignore beyond 8 bit": (spec("255", "300"), "dataset.yaml", "ignore = 300"),
        "labels of no kind": (spec("labels: classes", "labels: boxes"), "dataset.yaml", "labels = 'boxes'"),
        "boundaries of three classes": (spec("labels: classes", "labels: boundaries"), "dataset.yaml", "not 3"),
        "field too many": (spec("name", "license: none\nname"), "dataset.yaml", "license is not a field"),
        "field too few": (spec("labels: classes\n", ""), "dataset.yaml", "labels is missing"),
        "groups without column": (put("groups.csv", "image,patient\na,1\n"), "groups.csv", "no column group"),
        "groups of some images": (listed("a,1"), "groups.csv", "does not list these images: b, c, d, e, f (5 in all)"),
        "groups of an unknown image": (listed(*EACH, "z,1"), "groups.csv", "lists images that do not exist: z"),
        "groups of an image twice": (listed(*EACH, "a,2"), "groups.csv", "lists these images more than once: a"),
        "groups without group": (listed(*EACH[:5], "f,"), "groups.csv", "gives no group to these images: f"),
        "no dataset.yaml": (remove("dataset.yaml"), DatasetError, "small holds no dataset.yaml", "segline import"),
    },
    place="data/raw/small",
) | flags(
    "check",
    {
        "gone": (DatasetError, "gone is not a folder", "segline import"),
        "params.yaml": (DatasetError, "params.yaml is not a folder"),
        "source": (DatasetError, "source holds no dataset.yaml; `segline import source --name NAME`"),
        "--groups params.yaml": (GroupsFileError, "--groups params.yaml: the file exists already"),
    },
)


def params(old: str, new: str) -> Plant:
    return put("params.yaml", PARAMS.replace(old, new))


def setting(text: str) -> Plant:
    return put("params.yaml", f"{PARAMS}{text}\n")


def grouped(*lines: str) -> Plant:
    return put(f"{DATA}/groups.csv", groups(*lines))


DATA = "data/raw/small"
ARRAY = "data/prepared/instances/a.npy"
SETTINGS = faults(
    "prepare",
    ParamsError,
    {
        "no params.yaml": (remove("params.yaml"), "params.yaml is missing in "),
        "params.yaml is empty": (
            put("params.yaml", ""),
            "params.yaml must hold a mapping of sections, but holds a value of type NoneType",
        ),
        "params.yaml is no YAML": (put("params.yaml", "data: ["), "params.yaml is not valid YAML", "line 1"),
        "params.yaml is no text": (put("params.yaml", b"\xff\xfe\0"), "params.yaml is not valid YAML", "0xff"),
        "params.yaml is a folder": (folder("params.yaml"), "params.yaml cannot be read"),
        "unknown section": (setting("trian: {}"), "params.yaml: trian is not a setting"),
        "unknown setting": (setting("train: {learnin_rate: 1}"), "params.yaml: train.learnin_rate is not a setting"),
        "section without settings": (setting("train:"), "params.yaml: train = None"),
        "one section twice": (setting("data: {source: x}"), "params.yaml is not valid YAML", 'duplicate key "data"'),
        "text for a number": (setting("train: {epochs: many}"), "params.yaml: train.epochs = 'many'"),
        "not a number": (setting("train: {learning_rate: .nan}"), "params.yaml: train.learning_rate = nan"),
        "below zero": (setting("weights: {sigma: -1}"), "params.yaml: weights.sigma = -1"),
        "word of no meaning": (setting("model: {padding: mirror}"), "params.yaml: model.padding = 'mirror'"),
        "bounds the wrong way round": (setting("augment: {min_scale: 2}"), "params.yaml: augment", "min_scale 2.0"),
        "number for a folder": (params("data/raw/small", "7"), "params.yaml: data.source = 7"),
        "no such dataset": (params("small", "gone"), DatasetError, "data/raw/gone is not a folder"),
        "unknown image": (params("[c]", "[z]"), SplitError, "prepare.test: 'z' is neither an image nor a group"),
        "image in two splits": (params("[c]", "[a]"), SplitError, "prepare.validation and prepare.test both name a"),
        "one to validate": (params("[a, b]", "[a]"), SplitError, "1 validation image(s), but at least 2"),
        "nothing to learn from": (
            params("[a, b]", "[a, b, d, e, f]"),
            SplitError,
            "together take all 6 image(s), so no image is left for training",
        ),
        "nothing to validate": (params("validation: [a, b]", "val_percent: 0"), SplitError, "val_percent above 0"),
        "group is split": (
            grouped("a,g", "b,b", "c,c", "d,g", "e,e", "f,f"),
            SplitError,
            "of group 'g', but not its image 'd'",
        ),
        "same pixels in two splits": (put(f"{DATA}/images/d.png", picture(2)), UnfitError, "same pixels as"),
        "truncated image": (half(f"{DATA}/images/c.png"), UnfitError, "images/c.png", "truncated"),
        "wrong dataset.yaml": (put(f"{DATA}/dataset.yaml", "{}"), DatasetError, "dataset.yaml: name is missing"),
        "wrong groups.csv": (grouped("a,1"), DatasetError, f"{DATA}/groups.csv does not list these images: b, c"),
    },
)
STAGES = (
    faults("sample", ParamsError, {"sizes": (setting("sample: {min_size: 300, max_size: 99}"), "min_size 300")})
    | faults(
        "weights",
        FileError,
        {
            "nothing prepared": (nothing, "data/prepared/manifest.csv: cannot be read"),
            "array is truncated": (prepared(half(ARRAY)), f"{ARRAY}: not a readable array", "dvc repro"),
            "array is missing": (prepared(remove(ARRAY)), f"{ARRAY}: not a readable array", "dvc repro"),
            "no JSON": (prepared(put("data/prepared/statistics.json", "{")), "statistics.json: not valid JSON"),
        },
    )
    | faults("tune", SizeError, {"tile": (setting("train: {tile: 101}"), "train.tile = 101 px", "96 or 104")})
    | faults(
        "preset isbi2012_paper",
        ParamsError,
        {"wrong params.yaml": (setting("a: 1"), "params.yaml: a is not a setting")},
    )
    | flags("preset", {"nonsense": (PresetError, "there is no preset 'nonsense'", "isbi2012_paper")})
    | flags("summary", {"": (SummaryError, "data/reports/test.json does not exist yet")})
)
PREDICT = faults(
    "predict in --model models:/x@champion --out out",
    PredictError,
    {
        "nothing there": (nothing, "in: cannot be read"),
        "empty folder": (lambda root: (root / "in").mkdir(), "in: no image found"),
        "pipe": (lambda root: [(root / "in").mkdir(), os.mkfifo(root / "in/a.png")], "in: no image found"),
        "link to itself": (lambda root: (root / "in").symlink_to("in"), "in: cannot be read: Too many levels"),
        "text": (put("in/a.txt", "hello"), "in/a.txt: not a readable"),
        "truncated": (several(put("in/a.png", picture(0)), half("in/a.png")), "in/a.png: ", "truncated"),
        "bomb": (put("in/a.png", bomb()), "in/a.png: ", "60000 x 60000 px"),
        "stack": (put("in/a.tif", PAGES), "in/a.tif: ", "a stack of 6 pages"),
        "transparent": (put("in/a.png", INK), "in/a.png: ", "flatten"),
        "two of one stem": (
            several(put("in/a.png", FLAT), put("in/a.tif", FLAT)),
            "the results of two images would both be named a",
        ),
        "out is a file": (several(put("in/a.png", picture(0)), put("out", "")), "--out out is a file"),
        "no project": (put("in/a.png", picture(0)), StoreError, "holds dvc.yaml or .dvc; run segline inside a project"),
    },
)
FAULTS = IMAGES | SOURCES | LAYOUTS | COLOURS | IMPORT_FLAGS | CHECK | SETTINGS | STAGES | PREDICT


@pytest.fixture(scope="session")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A valid project: a source folder, a dataset and params.yaml."""
    root = tmp_path_factory.mktemp("sound")
    put("params.yaml", PARAMS)(root)
    put("data/raw/small/dataset.yaml", SPEC)(root)
    for place, kind in (("source", "masks"), ("data/raw/small", "classes")):
        for index, stem in enumerate(STEMS):
            put(f"{place}/images/{stem}.png", picture(index))(root)
            put(f"{place}/{kind}/{stem}.png", classes(index))(root)
    return root


@pytest.fixture
def project(sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the valid project as the working directory; models label every pixel 0."""
    shutil.copytree(sound, tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project"


def tree(root: Path) -> dict[bytes, bytes]:
    """Return every path below `root`, with the bytes of files and the targets of links."""
    found = {}
    for path in root.rglob("*"):
        if path.is_symlink():
            found[bytes(path)] = bytes(path.readlink())
        else:
            found[bytes(path)] = path.read_bytes() if path.is_file() else b""
    return found


def test_the_tables_have_no_duplicate_names_and_at_least_60_faults() -> None:
    tables = (IMAGES, SOURCES, LAYOUTS, COLOURS, IMPORT_FLAGS, CHECK, SETTINGS, STAGES, PREDICT)
    assert len(FAULTS) == sum(map(len, tables)) >= 60, "the name of a fault occurs twice"


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_refused_and_nothing_is_written(
    name: str, project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fault, app, raised = FAULTS[name], cli.app, list[Exception]()
    fault.plant(project)
    before = tree(project)

    def recorded() -> None:
        try:
            app()
        except Exception as error:
            raised.append(error)
            raise

    class Blind:
        md5 = "0" * 32

        def __call__(self, image: bytes, **_: object) -> Answer:
            return Answer(encode_png(np.zeros(decode(image).shape[:2], np.uint8)))

    if name in PREDICT and fault.error is PredictError:
        monkeypatch.setattr(predict.answers, "load", lambda _address, **_: Blind())
    monkeypatch.setattr(cli, "app", recorded)
    monkeypatch.setattr("sys.argv", ["segline", *shlex.split(fault.command)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    message = capsys.readouterr().err
    assert ended.value.code == 1
    assert [type(error) for error in raised] == [fault.error]
    assert [part for part in fault.says if part not in message] == [], message
    assert "Traceback" not in message
    assert tree(project) == before


# Random input: it is valid, or refused with an error of segline and nothing is written


def refusal(command: str, root: Path) -> Exception | None:
    """Run a command, and return its error, if any, which must be a class of segline; nothing may be written."""
    before = tree(root)
    try:
        cli.app(shlex.split(command), standalone_mode=False)
    except Exception as error:
        refused = error
    else:
        return None
    assert type(refused).__module__.startswith("segline."), repr(refused)
    assert tree(root) == before
    return refused


@pytest.fixture(scope="module")
def scratch(sound: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Path]]:
    """Return a function that changes to a fresh copy of the valid project."""
    root = tmp_path_factory.mktemp("scratch") / "project"

    def fresh() -> Path:
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(sound, root)
        os.chdir(root)
        return root

    with contextlib.chdir(root.parent):
        yield fresh


def encoded(form: str) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(picture(9)).save(stream, form)
    return stream.getvalue()


FILES = {
    "images/c.png": encoded("PNG"),
    "images/c.tif": encoded("TIFF"),
    "images/c.jpg": encoded("JPEG"),
    "images/c.bmp": encoded("BMP"),
    "dataset.yaml": SPEC.encode(),
    "groups.csv": groups(*EACH).replace("1", "g").encode(),
}
HOW = st.sampled_from(("cut", "overwritten", "inserted"))


@settings(max_examples=60)
@given(st.sampled_from(sorted(FILES)), HOW, st.integers(0, 2500), st.binary(max_size=8))
def test_a_damaged_file_is_read_or_named(
    scratch: Callable[[], Path], name: str, how: str, at: int, content: bytes
) -> None:
    root, data = scratch(), FILES[name]
    at %= len(data)
    rest = {"cut": b"", "overwritten": content + data[at + len(content) :], "inserted": content + data[at:]}[how]
    (root / DATA / "images/c.png").unlink()
    put(f"{DATA}/images/c.png", FILES["images/c.png"])(root)
    if name.startswith("images"):
        (root / DATA / "images/c.png").unlink()
    put(f"{DATA}/{name}", data[:at] + rest)(root)
    error = refusal(f"check {DATA}", root)
    assert error is None or name in str(error) or "params.yaml" in str(error)


@settings(max_examples=40)
@given(
    st.lists(st.tuples(st.integers(-1, 4) | st.just(0.5), st.sampled_from(("a", "b", "c", "", None, 7))), max_size=4),
    st.none() | st.integers(-1, 300),
    st.sampled_from(("instances", "classes", "boundaries", "boxes")),
)
def test_a_random_class_table_is_used_or_refused(
    scratch: Callable[[], Path], rows: list[tuple[Any, Any]], ignore: int | None, labels: str
) -> None:
    root, table = scratch(), dict(rows)
    lines = "".join(f"  {class_id}: {json.dumps(name)}\n" for class_id, name in table.items())
    said = f"name: small\nlabels: {labels}\nclasses:\n{lines}" + ("" if ignore is None else f"ignore: {ignore}\n")
    put(f"{DATA}/dataset.yaml", said)(root)
    sound = [
        list(table) == list(range(len(table))) and len(table) >= 2,
        all(isinstance(name, str) for name in table.values()) and len(set(table.values())) == len(table),
        ignore is None or (1 <= ignore <= 255 and ignore not in table),
        labels in ("instances", "classes") or (labels == "boundaries" and len(table) == 2),
    ]
    error = refusal(f"check {DATA}", root)
    assert error is None or isinstance(error, UnfitError)
    assert all(sound) or "dataset.yaml" in str(error)
    assert not all(sound) or "error    dataset.yaml" not in str(error)


JUNK = st.sampled_from((None, True, -1, 0, 0.5, 1e300, float("nan"), "", "x", "a.png", [], {}, [[]], [None], {"id": 1}))


def places(content: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every value in a JSON document."""
    if path:
        yield path
    for key in content if isinstance(content, dict) else range(len(content)) if isinstance(content, list) else ():
        yield from places(content[key], (*path, key))


@settings(max_examples=80)
@given(st.sampled_from((coco, labelme)), st.data())
def test_annotations_with_random_values_are_used_or_refused(
    scratch: Callable[[], Path], layout: Callable[[Callable[[Any], object]], Plant], data: st.DataObject
) -> None:
    def spoil(content: Any) -> None:
        *path, last = data.draw(st.sampled_from(list(places(content))))
        for key in path:
            content = content[key]
        content[last] = data.draw(JUNK)

    root = scratch()
    layout(spoil)(root)
    error = refusal("import source --name new", root)
    assert error is None or isinstance(error, LayoutError | UnfitError | FileError)


VALUES = st.sampled_from((0, 1, 2, 3, 7, 20, 127, 128, 254, 255, 256, 65535, 2**31 - 1, 2**31, -1, 0.5, float("nan")))


@settings(max_examples=30)
@given(
    st.lists(VALUES, min_size=1, max_size=6),
    st.sampled_from(["uint8", "uint16", "int16", "uint32", "int64", "float32"]),
    st.integers(0, 9),
)
def test_masks_of_random_values_are_used_or_refused(
    scratch: Callable[[], Path], values: list[float], dtype: str, seed: int
) -> None:
    root, rng = scratch(), np.random.default_rng(seed)
    remove("source/masks")(root)
    for stem in STEMS:
        blocks = rng.choice(np.array(values), (5, 6)).repeat(8, 0).repeat(8, 1)
        with np.errstate(invalid="ignore"):
            put(f"source/masks/{stem}.tif", blocks.astype(dtype))(root)
    error = refusal("import source --name new", root)
    assert error is None or isinstance(error, LayoutError | UnfitError | FileError)
    if error is None:
        assert refusal("check data/raw/new", root) is None
