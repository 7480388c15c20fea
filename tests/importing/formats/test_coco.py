"""COCO JSON, judged by the pixels that the outlines were drawn around, and by error messages."""

import copy
import json
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from segline import files
from segline.data import imagefiles, labels
from segline.data.dataset import IGNORE, Dataset
from segline.files import FileError
from segline.importing import bring
from segline.importing.formats.coco import recognise
from segline.importing.layout import ImportOptions, Layout, LayoutError

HEIGHT, WIDTH = 8, 10

Form = Literal["NFC", "NFD"]


def box(left: int, top: int, right: int, bottom: int) -> list[list[float]]:
    return [[left, top, right, top, right, bottom, left, bottom]]


def example() -> dict[str, Any]:
    """Two images, one without object; categories 7 and 3; a polygon, runs, compressed runs, a crowd."""
    return {
        "images": [
            {"id": 1, "file_name": "a.png", "height": HEIGHT, "width": WIDTH},
            {"id": 2, "file_name": "b.png", "height": HEIGHT, "width": WIDTH},
        ],
        "categories": [{"id": 7, "name": "nucleus"}, {"id": 3, "name": "cell"}],
        "annotations": [
            {"id": 11, "image_id": 1, "category_id": 3, "segmentation": [*box(0, 0, 4, 4), *box(5, 5, 6, 6)]},
            {"id": 12, "image_id": 1, "category_id": 7, "segmentation": box(1, 1, 3, 3), "iscrowd": 0},
            # Column 8, rows 2 to 4.
            {"id": 13, "image_id": 1, "category_id": 7, "segmentation": {"size": [8, 10], "counts": [66, 3, 11]}},
            # Column 9, row 0: 72, 1, 7.
            {"id": 14, "image_id": 1, "category_id": 3, "segmentation": {"size": [8, 10], "counts": "X217"}},
        ],
    }


CROWD = {"id": 15, "image_id": 1, "category_id": 3, "iscrowd": 1, "segmentation": box(0, 3, 10, 8)}

INSTANCES = """
    1111.....4
    1221......
    1221....3.
    1111....3.
    ........3.
    .....1....
    ..........
    ..........
"""


def picture(text: str) -> np.ndarray:
    return np.array([[0 if sign == "." else int(sign) for sign in line] for line in text.split()])


def write(folder: Path, content: object, images: tuple[str, ...] = ("a.png", "b.png"), name: str = "all.json") -> None:
    files.write_json(folder / name, content)
    for image in images:
        imagefiles.write_png(
            folder / "images" / image, np.arange(HEIGHT * WIDTH, dtype=np.uint8).reshape(HEIGHT, WIDTH)
        )


def found(source: Path, **options: Any) -> Layout:
    layout = recognise(source, ImportOptions(**options))
    assert layout is not None
    return layout


def test_outlines_become_classes_and_instances(tmp_path: Path) -> None:
    write(tmp_path, example())
    layout = found(tmp_path)
    assert (layout.labels, dict(layout.names)) == ("instances", {0: "background", 1: "cell", 2: "nucleus"})
    instances = layout.instances["a"].read()
    np.testing.assert_array_equal(instances, picture(INSTANCES))
    assert instances.dtype == np.int32
    np.testing.assert_array_equal(layout.classes["a"].read(), np.array([0, 1, 2, 2, 1])[picture(INSTANCES)])
    assert not layout.instances["b"].read().any() and not layout.classes["b"].read().any()
    assert {stem: image.file for stem, image in layout.images.items()} == {
        stem: tmp_path / "images" / f"{stem}.png" for stem in "ab"
    }
    assert layout.reasons[0] == "COCO annotations of all.json"
    assert "categories to classes: 3 cell -> 1, 7 nucleus -> 2" in layout.reasons
    assert "4 objects in 2 images: 2 cell, 2 nucleus; 1 image(s) have no object" in layout.reasons
    assert (
        "objects overlap: 4 pixels went to the smaller object, or to the later of two equally large objects"
        in layout.reasons
    )


def test_one_category_needs_no_classes(tmp_path: Path) -> None:
    content = example()
    content["categories"] = [{"id": 3, "name": "cell"}]
    content["annotations"] = content["annotations"][:1]
    write(tmp_path, content)
    layout = found(tmp_path, names={1: "yeast"})
    assert (layout.classes, layout.class_of, dict(layout.names)) == ({}, None, {0: "background", 1: "yeast"})
    np.testing.assert_array_equal(layout.instances["a"].read() > 0, np.isin(picture(INSTANCES), (1, 2)))


def test_crowds_are_ignored_pixels_where_no_object_is(tmp_path: Path) -> None:
    content = example()
    content["annotations"].append(CROWD)
    write(tmp_path, content)
    layout = found(tmp_path)
    np.testing.assert_array_equal(layout.instances["a"].read(), picture(INSTANCES))
    expected = np.array([0, 1, 2, 2, 1])[picture(INSTANCES)]
    expected[3:][picture(INSTANCES)[3:] == 0] = IGNORE
    np.testing.assert_array_equal(layout.classes["a"].read(), expected)
    assert layout.class_of == {0: 0, 1: 1, 2: 2, IGNORE: IGNORE}
    assert any("the pixels of 1 region(s) are ignored (crowds, or" in reason for reason in layout.reasons)


def test_an_imported_dataset_has_the_same_labels(tmp_path: Path) -> None:
    content = example()
    content["annotations"].append(CROWD)
    write(tmp_path / "coco", content)
    layout = found(tmp_path / "coco")
    dataset = Dataset.open(bring.bring(tmp_path / "coco", "cells", raw=tmp_path / "raw").folder)
    for stem in "ab":
        classes, instances = dataset.truth(stem)
        np.testing.assert_array_equal(classes, layout.classes[stem].read())
        np.testing.assert_array_equal(instances, layout.instances[stem].read())


def test_labels_classes_gives_class_masks_only(tmp_path: Path) -> None:
    write(tmp_path, example())
    layout = found(tmp_path, labels="classes")
    assert (layout.labels, layout.instances, set(layout.classes)) == ("classes", {}, {"a", "b"})


@pytest.mark.parametrize(
    ("file_name", "image"),
    [
        ("a.png", "a.png"),
        ("images/a.png", "images/a.png"),
        ("C:\\data\\images\\a.png", "images/a.png"),
        ("/somewhere/else/a.png", "deep/down/a.png"),
        ("a.png", "train/a.png"),
    ],
)
@pytest.mark.parametrize("json_name", ["all.json", "annotations/all.json"])
def test_images_are_found_by_name(tmp_path: Path, file_name: str, image: str, json_name: str) -> None:
    content = example()
    content["images"][0]["file_name"] = file_name
    write(tmp_path, content, ("b.png",), json_name)
    imagefiles.write_png(tmp_path / image, np.zeros((HEIGHT, WIDTH), np.uint8))
    for source in (tmp_path, tmp_path / json_name):
        assert found(source).images["a"].file == tmp_path / image


def test_of_two_files_with_one_name_the_closer_is_chosen(tmp_path: Path) -> None:
    content = example()
    content["images"] = content["images"][:1]
    files.write_json(tmp_path / "train" / "_annotations.coco.json", content)
    for folder in ("train", "valid", "masks"):
        imagefiles.write_png(tmp_path / folder / "a.png", np.zeros((HEIGHT, WIDTH), np.uint8))
    assert found(tmp_path).images["a"].file == tmp_path / "train" / "a.png"
    content["images"][0]["file_name"] = "valid/a.png"
    files.write_json(tmp_path / "train" / "_annotations.coco.json", content)
    layout = found(tmp_path)
    assert layout.images["a"].file == tmp_path / "valid" / "a.png"
    assert any("2 image file(s) are not listed in any JSON and were left out" in reason for reason in layout.reasons)
    (tmp_path / "train" / "_annotations.coco.json").rename(tmp_path / "all.json")
    content["images"][0]["file_name"] = "a.png"
    files.write_json(tmp_path / "all.json", content)
    with pytest.raises(LayoutError, match=r"file_name 'a\.png' matches several files: .* before the name in file_name"):
        recognise(tmp_path, ImportOptions())


def test_several_files_are_merged(tmp_path: Path) -> None:
    for split in ("train", "valid"):
        content = example()
        content["images"] = content["images"][:1]
        content["annotations"] = content["annotations"][: 1 + (split == "train")]
        files.write_json(tmp_path / split / "_annotations.coco.json", content)
        imagefiles.write_png(tmp_path / split / "a.png", np.zeros((HEIGHT, WIDTH), np.uint8))
    layout = found(tmp_path)
    assert set(layout.images) == {"train_a", "valid_a"}
    assert [layout.instances[stem].read().max() for stem in ("train_a", "valid_a")] == [2, 1]
    assert any("files are merged" in reason and "prepare.validation" in reason for reason in layout.reasons)
    assert set(found(tmp_path / "valid" / "_annotations.coco.json").images) == {"a"}


def test_an_unused_supercategory_is_not_a_class(tmp_path: Path) -> None:
    content = example()
    content["categories"] = [
        {"id": 0, "name": "cells", "supercategory": "none"},
        {"id": 3, "name": "cell", "supercategory": "cells"},
        {"id": 5, "name": "spare", "supercategory": "cells"},
        {"id": 7, "name": "nucleus", "supercategory": "cells"},
        {"id": 9, "name": "Background"},
        {"id": 11, "name": "other", "supercategory": "other"},
    ]
    write(tmp_path, content)
    layout = found(tmp_path)
    assert dict(layout.names) == {0: "background", 1: "cell", 2: "spare", 3: "nucleus", 4: "other"}
    assert any("left out: cells, Background; without any object: spare, other" in reason for reason in layout.reasons)


def test_missing_images_are_left_out_with_skip_unpaired(tmp_path: Path) -> None:
    write(tmp_path, example(), ("a.png",))
    layout = found(tmp_path, skip_unpaired=True)
    assert set(layout.images) == {"a"}
    assert any("1 image(s) without file left out because of --skip-unpaired" in reason for reason in layout.reasons)


def test_other_json_is_not_recognised(tmp_path: Path) -> None:
    assert recognise(tmp_path, ImportOptions()) is None
    files.write_json(tmp_path / "notes.json", {"images": 3})
    files.write_json(tmp_path / "results.json", [{"image_id": 3}])
    files.write_json(tmp_path / "captions.json", {"images": [], "annotations": [{"caption": "a cell"}]})
    files.write_json(tmp_path / "numbers.json", {"images": [1], "annotations": [2]})
    (tmp_path / "broken.json").write_text('{"images": [')
    assert recognise(tmp_path, ImportOptions()) is None
    files.write_json(tmp_path / "a.json", {"shapes": [], "imagePath": "a.png"})
    assert recognise(tmp_path, ImportOptions()) is None


def change(content: dict[str, Any], path: str, value: object) -> None:
    """Set the value at `path`, such as images.0.height; None removes it."""
    *parents, last = path.split(".")
    where: Any = content
    for key in parents:
        where = where[int(key) if key.isdecimal() else key]
    if value is None:
        del where[int(last) if last.isdecimal() else last]
    else:
        where[int(last) if last.isdecimal() else last] = value


ANNOTATION = "annotations.0.segmentation"
RUNS = "annotations.2.segmentation"


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (
            "annotations.0.category_id",
            4,
            "annotation 11: category_id 4 is not listed in `categories` .3 cell, 7 nucleus|7 nuc",
        ),
        ("annotations.0.category_id", None, r"annotations\[0\] .id 11.: category_id is missing"),
        (
            "annotations.0.category_id",
            "cell",
            r"annotations\[0\] .id 11.: category_id is 'cell'; category_id must be a whole number; correct or remove",
        ),
        ("annotations.0.image_id", "x1", "annotation 11: image_id 'x1' is not listed in `images` .ids such as 1"),
        ("annotations.0.image_id", 9, "annotation 11: image_id 9 is not listed in `images`"),
        ("annotations.0.image_id", [1], r"image_id is \[1\]"),
        (
            "annotations.0",
            "polygon",
            r"annotations\[0\] is 'polygon', not a JSON object with the fields image_id, category_id",
        ),
        (ANNOTATION, None, r"annotations\[0\] .id 11.: segmentation is missing; .*a box alone"),
        (ANNOTATION, [], "annotation 11: the field segmentation is empty, and a box alone"),
        (ANNOTATION, [[1, 1, 2, 2]], r"annotation 11: segmentation\[0\] has 2 points"),
        (
            ANNOTATION,
            [[1, 1, 2, 2, 3]],
            r"annotation 11: segmentation\[0\] has 5 numbers, but a list of x, y pairs has an even number",
        ),
        (ANNOTATION, [[1, 1, 2, "2", 3, "x"]], r"\(id 11\): segmentation\[0\]\[5\] is 'x'; .* \[\[x, y, x, y"),
        (ANNOTATION, [[[1, 1], [2, 2], [3, 1]]], r"\(id 11\): segmentation\[0\]\[0\] is \[1, 1\]; .* \[\[x, y, x, y"),
        (ANNOTATION, [1, 1, 2, 2, 3, 3], r"\(id 11\): segmentation\[0\] is 1; .* \[\[x, y, x, y"),
        (ANNOTATION, box(0, 0, 12, 4), "annotation 11: point x 12, y 0 is outside the image of 10x8 px"),
        (ANNOTATION, box(0, -3, 2, 4), "annotation 11: point x 0, y -3 is outside"),
        (
            "annotations.1.iscrowd",
            "0",
            r"annotations\[1\] \(id 12\): iscrowd is '0'; iscrowd must be 0 for one object or 1 for a crowd",
        ),
        (
            f"{RUNS}.counts",
            [1, 2],
            "annotation 13: the runs in segmentation.counts have 3 pixels in total, but the image has 10x8 = 80",
        ),
        (f"{RUNS}.counts", [-1, 81], "annotation 13: segmentation.counts has a run of -1 pixels"),
        (
            f"{RUNS}.counts",
            [2**70, 81],
            "annotation 13: segmentation.counts has a run of 1180591620717411303424 pixels",
        ),
        (f"{RUNS}.counts", [1.5, 78.5], r"annotations\[2\] \(id 13\): segmentation\.counts.* is 1.5; .* counts"),
        (f"{RUNS}.counts", "P", "annotation 13: segmentation.counts ends in the middle of a number"),
        (f"{RUNS}.counts", "X2 17", "annotation 13: segmentation.counts has the character ' ' at position 2"),
        (f"{RUNS}.counts", "h3h3", "annotation 13: segmentation.counts has a run of 120 pixels|pixels in total"),
        (f"{RUNS}.size", [10, 8], "annotation 13: segmentation.size is 8x10 px, but the image is 10x8 px"),
        (f"{RUNS}.size", "8x10", r"\(id 13\): segmentation\.size is '8x10'; .*size: \[height, width\]"),
        ("images.0.file_name", "c.png", "file_name 'c.png' is not an image file below .*; add the image"),
        (
            "images.0.file_name",
            "a.webp",
            "file_name 'a.webp' is not an image file .*; convert the image to one of .png",
        ),
        (
            "images.0.file_name",
            None,
            r"images\[0\] .id 1.: file_name is missing; file_name must be a text; correct or remove this entry",
        ),
        ("images.0.file_name", "b.png", "b.png is listed twice, in all.json; keep one"),
        ("images.0.id", 2, "images: id 2 occurs twice"),
        ("images.0.height", 2**40, r"images\[0\] .id 1.: height is 1099511627776; height must be a positive whole"),
        ("images.0.height", -8, r"images\[0\] .id 1.: height is -8; .* positive"),
        ("images.0.height", 8.5, r"images\[0\] .id 1.: height is 8.5; .* positive"),
        (
            "images.1.height",
            10,
            r"all\.json gives the size 10x10 px .* for the image .*b\.png, but this image is 10x8 px",
        ),
        ("images.0.width", "10 px", r"images\[0\] .id 1.: width is '10 px'"),
        (f"{RUNS}.counts", [10**4000, 81], r"annotation 13: segmentation.counts has a run of more than 10\^30 pixels"),
        (
            f"{RUNS}.counts",
            [-(10**4000), 81],
            r"annotation 13: segmentation.counts has a run of less than -10\^30 pixels",
        ),
        (
            f"{RUNS}.counts",
            [0] * 1000,
            "annotation 13: segmentation.counts has 1000 runs, but the image has only 80 pixels",
        ),
        (f"{RUNS}.counts", [True, 79], r"\(id 13\): segmentation\.counts.* is True"),
        (
            f"{RUNS}.counts",
            "o" * 3000 + "0",
            "annotation 13: segmentation.counts has a number longer than 13 characters at position 13",
        ),
        (f"{RUNS}.counts", "o" * 12 + "0", "annotation 13: segmentation.counts has a run of"),
        (
            f"{RUNS}.counts",
            "0" * 1000,
            "annotation 13: segmentation.counts has more runs than the image has pixels \\(80\\)",
        ),
        (
            f"{RUNS}.size",
            [10**4000, 10],
            "annotation 13: segmentation.size is 10x.* px, but the image is 10x8 px",
        ),
        ("categories.0.name", "a\nb", r"categories: name 'a\\nb' contains a control character .*; rename it"),
        ("categories", [], "the list `categories` is missing or empty"),
        ("categories", None, "the list `categories` is missing or empty"),
        ("categories.0.name", None, r"categories\[0\] .id 7.: name is missing"),
        ("categories.0.name", "cell", "two of the categories .*'cell', 'cell'.* have the same name"),
        ("categories.0.name", "background", "category 'background' has annotations"),
        ("annotations", [CROWD], "iscrowd is 1 for all 1 annotations"),
        ("annotations", [], "none of the 2 images has an object"),
    ],
)
def test_invalid_fields_are_refused(tmp_path: Path, path: str, value: object, message: str) -> None:
    content = example()
    change(content, path, value)
    write(tmp_path, content)
    with pytest.raises(LayoutError, match=message):
        recognise(tmp_path, ImportOptions())


NASTY = (None, True, -1, 0, 7, 2**70, 1e300, -0.5, "", "3", "../a.png", [], [[]], [None], [[1, 2]], {}, {"size": []})


def places(value: object, path: str = "") -> list[str]:
    """Return the paths of all values nested in `value`."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = [path] if path else []
    for key, one in items:
        found += places(one, f"{path}.{key}" if path else str(key))
    return found


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.sampled_from(places(example())), value=st.sampled_from(NASTY))
def test_any_value_of_a_field_is_accepted_or_refused(tmp_path: Path, place: str, value: object) -> None:
    content = json.loads(json.dumps(example()))
    change(content, place, value)
    write(tmp_path, content)
    refused = ""
    try:
        layout = recognise(tmp_path, ImportOptions())
        for mask in (*layout.instances.values(), *layout.classes.values()) if layout else ():
            mask.read()
    except (LayoutError, FileError) as error:
        refused = str(error)
    assert not refused or any(sign in refused for sign in ("all.json", "images", "has an object"))


def test_slivers_are_left_out(tmp_path: Path) -> None:
    content = example()
    content["annotations"][0]["segmentation"] = [[1.1, 1.1, 1.2, 1.1, 1.2, 1.2]]
    content["annotations"][2]["segmentation"]["counts"] = [80]
    write(tmp_path, content)
    layout = found(tmp_path)
    assert "2 object(s) cover no pixel centre and are left out" in layout.reasons
    np.testing.assert_array_equal(layout.instances["a"].read(), np.array([0, 0, 1, 0, 2])[picture(INSTANCES)])
    content["annotations"] = content["annotations"][:1]
    write(tmp_path, content)
    with pytest.raises(
        LayoutError, match=r"none of the 2 images has an object \(1 object.s. cover no pixel centre; coord"
    ):
        recognise(tmp_path, ImportOptions())


def test_images_without_annotations_as_background(tmp_path: Path) -> None:
    content = example()
    content["images"] = content["images"][:1]
    write(tmp_path, content)
    layout = found(tmp_path, missing_as_background=True)
    assert set(layout.images) == {"a", "b"}
    assert not layout.instances["b"].read().any() and not layout.classes["b"].read().any()
    assert "1 image(s) without labels are background only (--missing-as-background)" in layout.reasons
    assert not any("were left out" in reason for reason in layout.reasons)


@pytest.mark.parametrize("key", ["images", "annotations", "categories"])
def test_a_missing_list_is_named(tmp_path: Path, key: str) -> None:
    content = example()
    del content[key]
    write(tmp_path, content)
    imagefiles.write_png(tmp_path / "masks" / "a.png", np.zeros((HEIGHT, WIDTH), np.uint8))
    with pytest.raises(LayoutError, match=rf"all\.json(:| has no list of|: the list) `?{key}\b"):
        recognise(tmp_path, ImportOptions())
    write(tmp_path, example(), name="whole.json")
    (tmp_path / "all.json").rename(tmp_path / "test_info.json")
    if key != "categories":
        assert set(found(tmp_path).images) == {"a", "b"}


def test_nan_in_an_outline_is_refused(tmp_path: Path) -> None:
    content = example()
    content["annotations"][0]["segmentation"] = [[0, 0, float("nan"), 1, 2, 2]]
    write(tmp_path, example())
    (tmp_path / "all.json").write_text(json.dumps(content))
    with pytest.raises(LayoutError, match=r"\(id 11\): segmentation\[0\]\[2\] is nan"):
        recognise(tmp_path, ImportOptions())


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    write(tmp_path, example())
    text = (tmp_path / "all.json").read_text()
    for length in (len(text) // 2, text.index("b.png")):  # the latter is before any annotation
        (tmp_path / "all.json").write_text(text[:length])
        with pytest.raises(FileError, match=r"all\.json: not valid JSON"):
            recognise(tmp_path, ImportOptions())


def test_contradictory_files_are_refused(tmp_path: Path) -> None:
    write(tmp_path, example())
    other = example()
    other["categories"][0]["name"] = "dot"
    write(tmp_path, other, name="other.json")
    with pytest.raises(
        LayoutError,
        match=r"have different categories; for example, only one of the files has the category with id 7 and name "
        r"'(dot|nucleus)'; make the categories equal",
    ):
        recognise(tmp_path, ImportOptions())
    write(tmp_path, example(), name="other.json")
    with pytest.raises(LayoutError, match=r"a\.png is listed twice, in all\.json and other\.json"):
        recognise(tmp_path, ImportOptions())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ignore": 3}, "--ignore is not supported for COCO annotations"),
        ({"threshold": 3}, "--threshold"),
        ({"labels": "boundaries"}, "--labels boundaries"),
        ({"names": {3: "dot"}}, "--class 3: there is no such class; the classes are 0 background, 1 cell, 2 nucleus"),
    ],
)
def test_unsupported_options_are_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    write(tmp_path, example())
    with pytest.raises(LayoutError, match=message):
        recognise(tmp_path, ImportOptions(**options))


def test_the_json_is_read_once(tmp_path: Path) -> None:
    write(tmp_path, example())
    layout = found(tmp_path)
    (tmp_path / "all.json").unlink()
    np.testing.assert_array_equal(layout.instances["a"].read(), picture(INSTANCES))


def test_outlines_of_real_nuclei_give_the_nuclei(tmp_path, shared_data, outlines, alike) -> None:  # type: ignore[no-untyped-def]
    source = shared_data("dsb2018")
    content: dict[str, Any] = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "nucleus"}]}
    whole = {}
    for number, mask in enumerate(sorted((source / "masks").iterdir())[:6]):
        instances = labels.renumber(imagefiles.read_labels(mask))[0]
        (image,) = (source / "images").glob(f"{mask.stem}.*")
        files.copy(image, tmp_path / image.name)
        height, width = instances.shape
        content["images"].append({"id": number, "file_name": image.name, "height": height, "width": width})
        for outline in outlines(instances):
            segmentation = [points.ravel().tolist() for points in outline]
            content["annotations"].append({"image_id": number, "category_id": 1, "segmentation": segmentation})
        whole[mask.stem] = instances
    files.write_json(tmp_path / "nuclei.json", content)
    layout = found(tmp_path)
    for stem, expected in whole.items():
        assert alike(layout.instances[stem].read(), expected) > 0.9


@pytest.mark.parametrize("write_", [str, float, lambda number: f"{number}.0"])
def test_whole_numbers_may_be_texts_or_floats(tmp_path: Path, write_: Callable[[int], object]) -> None:
    content = example()
    write(tmp_path / "before", copy.deepcopy(content))
    for annotation in content["annotations"]:
        annotation["image_id"] = write_(annotation["image_id"])
        annotation["category_id"] = write_(annotation["category_id"])
    for image in content["images"]:
        image["height"] = write_(image["height"])
    write(tmp_path / "after", content)
    first, second = found(tmp_path / "before"), found(tmp_path / "after")
    for stem in first.images:
        np.testing.assert_array_equal(first.instances[stem].read(), second.instances[stem].read())


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        ("images.0.height", "tall", "height is 'tall'"),
        ("images.0.file_name", 3, "file_name is 3"),
        ("categories.0.name", 5, "name is 5"),
        ("categories.1.id", [3], r"id is \[3\]"),
    ],
)
def test_one_fault_has_one_message(tmp_path: Path, path: str, value: object, field: str) -> None:
    content = example()
    change(content, path, value)
    write(tmp_path, content)
    with pytest.raises(LayoutError, match=field) as refused:
        recognise(tmp_path, ImportOptions())
    assert "is not in" not in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize("tool", ["CVAT writes", "export of CVAT"])
def test_crowds_are_counted_and_may_be_objects(tmp_path: Path, tool: str) -> None:
    content = example()
    content["annotations"].append(CROWD | ({"attributes": {"occluded": False}} if "export" in tool else {}))
    write(tmp_path, content)
    guessed, ignored, counted = (found(tmp_path, crowd=crowd) for crowd in (None, "ignore", "objects"))
    warning = next(
        reason for reason in guessed.reasons if reason.startswith("warning: 1 of 5 annotations have iscrowd 1")
    )
    assert tool in warning and "--crowd objects" in warning
    assert any("iscrowd 1 and are objects (--crowd objects)" in reason for reason in counted.reasons)
    assert [layout.instances["a"].read().max() for layout in (guessed, ignored, counted)] == [4, 4, 5]
    assert IGNORE in ignored.classes["a"].read() and IGNORE not in counted.classes["a"].read()


def test_nothing_but_crowds_may_be_objects(tmp_path: Path) -> None:
    content = example()
    content["annotations"] = [CROWD]
    write(tmp_path, content)
    with pytest.raises(LayoutError, match=r"CVAT .* --crowd objects"):
        recognise(tmp_path, ImportOptions())
    assert found(tmp_path, crowd="objects").instances["a"].read().max() == 1


@pytest.mark.parametrize(("said", "there"), [("NFC", "NFD"), ("NFD", "NFC"), ("NFD", "NFD")])
def test_names_match_in_any_unicode_composition(tmp_path: Path, said: Form, there: Form) -> None:
    content = example()
    content["images"][0]["file_name"] = unicodedata.normalize(said, "Prüfling é.png")
    content["categories"][0]["name"] = unicodedata.normalize(said, "Zellkörper")
    write(tmp_path, content)
    (tmp_path / "images" / "a.png").rename(tmp_path / "images" / unicodedata.normalize(there, "Prüfling é.png"))
    layout = found(tmp_path)
    assert set(layout.images) == {"Prüfling é", "b"}
    assert "Zellkörper" in layout.names.values()
