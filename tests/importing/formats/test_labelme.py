"""LabelMe JSON, judged by the pixels that the shapes were drawn around, and by error messages."""

import base64
import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from segline import files
from segline.data import imagefiles, labels
from segline.data.dataset import IGNORE
from segline.files import FileError
from segline.importing.formats.labelme import recognise
from segline.importing.layout import ImportOptions, Layout, LayoutError
from segline.model.images import encode_png

HEIGHT, WIDTH = 8, 10


def shape(label: str, kind: str, *points: tuple[float, float], **more: object) -> dict[str, Any]:
    fields = {"label": label, "points": [list(point) for point in points], "group_id": None, "shape_type": kind}
    return {**fields, "flags": {}, **more}


def box(label: str, left: float, top: float, right: float, bottom: float, **more: object) -> dict[str, Any]:
    return shape(label, "rectangle", (left, top), (right, bottom), **more)


def said(*shapes: dict[str, Any], image: str = "a.png") -> dict[str, Any]:
    return {
        "version": "5.4.1",
        "flags": {},
        "shapes": list(shapes),
        "imagePath": image,
        "imageData": None,
        "imageHeight": HEIGHT,
        "imageWidth": WIDTH,
    }


SHAPES = (
    box("cell", 0, 0, 4, 4),
    shape("nucleus", "polygon", (1, 1), (3, 1), (3, 3), (1, 3)),
    box("cell", 9, 5, 6, 2, group_id=3),  # any two opposite corners
    shape("dirt", "circle", (2.5, 6.5), (2.5, 7.6)),
    shape("cell", "rectangle", (6, 7), (8, 7), (8, 8), (6, 8), group_id=3),
    shape("nucleus", "polygon", (5, 6), (6, 6), (6, 7), group_id=3),
)
INSTANCES = """
    1111......
    1221......
    1221..333.
    1111..333.
    ......333.
    ..4.......
    .444.5....
    ..4...33..
"""
CLASSES = [0, 1, 3, 1, 2, 3]  # of the instances, where cell is 1, dirt 2, nucleus 3


def picture(text: str) -> np.ndarray:
    return np.array([[0 if sign == "." else int(sign) for sign in line] for line in text.split()])


def write(folder: Path, *contents: object, names: str = "abc") -> None:
    for name, content in zip(names, contents, strict=False):
        files.write_json(folder / f"{name}.json", content)
        imagefiles.write_png(folder / f"{name}.png", np.arange(HEIGHT * WIDTH, dtype=np.uint8).reshape(HEIGHT, WIDTH))


def found(source: Path, **options: Any) -> Layout:
    layout = recognise(source, ImportOptions(**options))
    assert layout is not None
    return layout


def test_shapes_become_classes_and_instances(tmp_path: Path) -> None:
    write(tmp_path, said(*SHAPES), said(image="b.png"))
    imagefiles.write_png(tmp_path / "not labelled.png", np.zeros((3, 3), np.uint8))
    layout = found(tmp_path)
    assert dict(layout.names) == {0: "background", 1: "cell", 2: "dirt", 3: "nucleus"}
    np.testing.assert_array_equal(layout.instances["a"].read(), picture(INSTANCES))
    np.testing.assert_array_equal(layout.classes["a"].read(), np.array(CLASSES)[picture(INSTANCES)])
    assert not layout.instances["b"].read().any()
    assert {stem: image.file.name for stem, image in layout.images.items()} == {"a": "a.png", "b": "b.png"}
    assert layout.reasons[0] == "LabelMe annotations, 2 JSON files"
    assert "labels to classes: cell -> 1, dirt -> 2, nucleus -> 3 (in alphabetical order;" in layout.reasons[1]
    assert any(reason.startswith("1 image file(s) have no JSON and were left out") for reason in layout.reasons)


def test_class_numbers_the_labels(tmp_path: Path) -> None:
    write(tmp_path, said(*SHAPES))
    layout = found(tmp_path, names={0: "glass", 1: "nucleus", 2: "cell", 3: "dirt", 4: "fibre"})
    assert dict(layout.names) == {0: "glass", 1: "nucleus", 2: "cell", 3: "dirt", 4: "fibre"}
    np.testing.assert_array_equal(layout.classes["a"].read(), np.array([0, 2, 1, 2, 3, 1])[picture(INSTANCES)])
    with pytest.raises(
        LayoutError,
        match=r"--class gives no class to the labels cell, dirt; give --class for every label, .*--class 2=cell",
    ):
        recognise(tmp_path, ImportOptions(names={1: "nucleus"}))


def test_one_label_needs_no_classes(tmp_path: Path) -> None:
    write(tmp_path, said(SHAPES[0]))
    layout = found(tmp_path)
    assert (layout.classes, dict(layout.names)) == ({}, {0: "background", 1: "cell"})


def test_pixels_of_ignored_shapes_do_not_count(tmp_path: Path) -> None:
    write(tmp_path, said(SHAPES[0], box("__ignore__", 2, 2, 6, 6)))
    layout = found(tmp_path)
    expected = np.zeros((HEIGHT, WIDTH), int)
    expected[2:6, 2:6], expected[:4, :4] = IGNORE, 1
    np.testing.assert_array_equal(layout.classes["a"].read(), expected)
    np.testing.assert_array_equal(layout.instances["a"].read(), expected == 1)
    assert layout.class_of == {0: 0, 1: 1, IGNORE: IGNORE}


def test_masks_in_base64(tmp_path: Path) -> None:
    mask = np.array([[0, 1, 1], [1, 1, 0]], np.uint8) * 255
    encoded = base64.b64encode(encode_png(mask)).decode()
    write(tmp_path, said(shape("cell", "mask", (4, 5), (6, 6), mask=encoded)))
    expected = np.zeros((HEIGHT, WIDTH), int)
    expected[5:7, 4:7] = mask > 0
    np.testing.assert_array_equal(found(tmp_path).instances["a"].read(), expected)
    for spoilt in (None, "no base64!", base64.b64encode(b"no image").decode()):
        write(tmp_path, said(shape("cell", "mask", (4, 5), (6, 6), mask=spoilt)))
        with pytest.raises(LayoutError, match=r"shapes\[0\] .cell.: the field 'mask' is not a base64-encoded image"):
            recognise(tmp_path, ImportOptions())
    write(tmp_path, said(shape("cell", "mask", (8, 5), (10, 6), mask=encoded)))
    with pytest.raises(LayoutError, match="the mask of 3x2 px at x 8, y 5 is not inside the image of 10x8 px"):
        recognise(tmp_path, ImportOptions())


@pytest.mark.parametrize("path", ["../images/a.png", "..\\images\\a.png", "C:\\gone\\a.png"])
def test_images_are_found_by_name(tmp_path: Path, path: str) -> None:
    write(tmp_path / "json", said(SHAPES[0], image=path))
    files.make_empty_folder(tmp_path / "images")
    (tmp_path / "json" / "a.png").rename(tmp_path / "images" / "a.png")
    for source in (tmp_path, tmp_path / "json" / "a.json"):
        assert found(source).images["a"].file == tmp_path / "images" / "a.png"


def test_a_missing_size_is_taken_from_the_image(tmp_path: Path) -> None:
    content = said(*SHAPES)
    del content["imageHeight"], content["imageWidth"]
    write(tmp_path, content)
    np.testing.assert_array_equal(found(tmp_path).instances["a"].read(), picture(INSTANCES))


def test_missing_images_are_left_out_with_skip_unpaired(tmp_path: Path) -> None:
    write(tmp_path, said(*SHAPES), said(image="gone.png"))
    layout = found(tmp_path, skip_unpaired=True)
    assert set(layout.images) == {"a"}


def test_other_json_is_not_recognised(tmp_path: Path) -> None:
    assert recognise(tmp_path, ImportOptions()) is None
    files.write_json(tmp_path / "notes.json", {"shapes": 3})
    files.write_json(tmp_path / "list.json", [1, 2])
    (tmp_path / "broken.json").write_text('{"what": [')
    assert recognise(tmp_path, ImportOptions()) is None


@pytest.mark.parametrize(("text", "says"), [("", "is empty"), ('{"note": 1}', "has no field shapes"), ("[", "has no")])
def test_an_unreadable_json_beside_its_image_is_refused(tmp_path: Path, text: str, says: str) -> None:
    write(tmp_path, said(*SHAPES), said(*SHAPES, image="b.png"))
    (tmp_path / "b.json").write_text(text)
    (tmp_path / "other.json").write_text(text)
    with pytest.raises(LayoutError, match=rf"b\.json {says}.*, but it lies beside the image b\.png"):
        recognise(tmp_path, ImportOptions())


def test_a_single_json_is_imported_without_its_neighbours(tmp_path: Path) -> None:
    write(tmp_path, said(*SHAPES), {"note": 1})
    assert set(found(tmp_path / "a.json").images) == {"a"}


def test_images_without_json_as_background(tmp_path: Path) -> None:
    write(tmp_path, said(*SHAPES))
    imagefiles.write_png(tmp_path / "b.png", np.zeros((3, 4), np.uint8))
    layout = found(tmp_path, missing_as_background=True)
    np.testing.assert_array_equal(layout.instances["b"].read(), np.zeros((3, 4)))
    assert "1 image(s) without labels are background only (--missing-as-background)" in layout.reasons
    assert any("1 image file(s) have no JSON and were left out" in reason for reason in found(tmp_path).reasons)


def polygon(*points: tuple[float, float]) -> dict[str, Any]:
    return said(shape("cell", "polygon", *points))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (polygon((1, 1), (2, 2)), r"shapes\[0\] .cell.: the polygon has 2 point"),
        (polygon(), r"shapes\[0\] .cell.: points .* are no list of|the polygon has"),
        (polygon((1, 1), (2, 2), (12, 3)), r"shapes\[0\] .cell.: point x 12, y 3 is outside the image of 10x8 px"),
        (polygon((1.1, 1.1), (1.2, 1.1), (1.2, 1.2)), "no.* has an object .1 object.s. cover no pixel centre"),
        (polygon((1, 1), (2, 1e308), (2, 2)), "is outside the image"),
        (
            said(shape("cell", "line", (1, 1), (5, 5))),
            "shape_type 'line' is not supported, because such a shape encloses no area; outline",
        ),
        (said(shape("cell", "point", (1, 1))), "shape_type 'point' is not supported, .*--skip-shapes"),
        (
            said(shape("cell", "rectangle", (1, 1), (2, 2), (3, 3))),
            r"the rectangle has 3 point.s., but it needs 2 or 4;",
        ),
        (said(shape("cell", "circle", (1, 1))), "the circle has 1 point"),
        (said(shape("cell", "circle", (1, 1), (1, 1.2))), "1 object.s. cover no pixel centre"),
        (
            {**said(*SHAPES), "shapes": None},
            r"a\.json: the field 'shapes' is None, not a list; write a list \(use \[\] if",
        ),
        (said(shape("", "circle", (2, 2), (4, 4))), r"shapes\[0\]: label is ''; label must be the name of the class"),
        (said(box("cell", 1, 1, 4, 4, group_id=[1])), r"group_id is \[1\]; group_id must be a number"),
        (
            said(box("background", 1, 1, 4, 4)),
            "some shapes have the label background, but background means the pixels without any shape",
        ),
        (said({"label": "cell", "shape_type": "polygon"}), r"points is missing; points must be a list of \[x, y\]"),
        (
            said({"label": "cell", "points": "1 1 2 2", "shape_type": "polygon"}),
            r"points is '1 1 2 2'; points must be a list",
        ),
        (
            {**said(*SHAPES), "shapes": ["cell"]},
            r"shapes\[0\] is 'cell', not a JSON object with the fields label, points",
        ),
        (said(*SHAPES, image="c.png"), "imagePath 'c.png' is not an image file below .*; add the image"),
        ({**said(*SHAPES), "imagePath": None}, "imagePath is None, but must be the name of the image"),
        (
            {**said(*SHAPES, image="c.png"), "imageData": "iVBOR"},
            (
                "the field imageData of the JSON file holds the image; "
                "extract the image with the program labelme_export_json"
            ),
        ),
        (
            {**said(*SHAPES), "imageHeight": 10},
            (
                r"a\.json gives the size 10x10 px .* for the image .*a\.png, but this image is 10x8 px\. The image "
                "file is a different image, or was resized or rotated after labelling; use the image that was labelled"
            ),
        ),
        (said(), "none of the 1 images has an object"),
    ],
)
def test_invalid_shapes_are_refused(tmp_path: Path, content: object, message: str) -> None:
    write(tmp_path, content)
    with pytest.raises(LayoutError, match=message):
        recognise(tmp_path, ImportOptions())


NASTY = (None, True, -1, 0, 7, 2**70, 1e300, -0.5, "", "3", "../b.png", [], [[]], [None], [[1, 2]], {}, "mask")


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    number=st.integers(0, len(SHAPES) - 1),
    field=st.sampled_from(
        ["label", "points", "shape_type", "group_id", "mask", "", "imagePath", "imageHeight", "shapes"]
    ),
    value=st.sampled_from(NASTY),
)
def test_any_value_of_a_field_is_accepted_or_refused(tmp_path: Path, number: int, field: str, value: object) -> None:
    content = copy.deepcopy(said(*SHAPES))
    if field in content:
        content[field] = value
    elif field:
        content["shapes"][number][field] = value
    else:
        content["shapes"][number] = value
    write(tmp_path, content)
    refused = ""
    try:
        layout = recognise(tmp_path, ImportOptions())
        for mask in (*layout.instances.values(), *layout.classes.values()) if layout else ():
            mask.read()
    except (LayoutError, FileError) as error:
        refused = str(error)
    assert not refused or "a.json" in refused or "has an object" in refused


def test_two_files_of_one_image_are_refused(tmp_path: Path) -> None:
    write(tmp_path, said(*SHAPES), said(*SHAPES))
    with pytest.raises(
        LayoutError,
        match=r"b\.json: imagePath names .*a\.png, but a\.json names the same image; keep one of the two JSON files",
    ):
        recognise(tmp_path, ImportOptions())


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    write(tmp_path, said(*SHAPES), said(*SHAPES, image="b.png"))
    (tmp_path / "b.json").write_text((tmp_path / "b.json").read_text()[:200])
    with pytest.raises(FileError, match=r"b\.json: not valid JSON"):
        recognise(tmp_path, ImportOptions())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ignore": 3}, "--ignore is not supported for LabelMe shapes"),
        ({"threshold": 3}, "--threshold"),
        ({"labels": "boundaries"}, "--labels boundaries"),
    ],
)
def test_unsupported_options_are_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    write(tmp_path, said(*SHAPES))
    with pytest.raises(LayoutError, match=message):
        recognise(tmp_path, ImportOptions(**options))


def test_outlines_of_real_nuclei_give_the_nuclei(tmp_path, shared_data, outlines, alike) -> None:  # type: ignore[no-untyped-def]
    source, whole = shared_data("dsb2018"), {}
    for mask in sorted((source / "masks").iterdir())[6:10]:
        instances = labels.renumber(imagefiles.read_labels(mask))[0]
        (image,) = (source / "images").glob(f"{mask.stem}.*")
        files.copy(image, tmp_path / image.name)
        shapes = [
            shape("nucleus", "polygon", *map(tuple, piece.tolist()), group_id=number)
            for number, pieces in enumerate(outlines(instances))
            for piece in pieces
        ]
        content = said(*shapes, image=image.name)
        content["imageHeight"], content["imageWidth"] = instances.shape
        files.write_json(tmp_path / f"{mask.stem}.json", content)
        whole[mask.stem] = instances
    layout = found(tmp_path)
    for stem, expected in whole.items():
        assert alike(layout.instances[stem].read(), expected) > 0.9


@pytest.mark.parametrize("kind", ["rotation", "oriented_rectangle", "quadrilateral"])
def test_four_points_of_an_oriented_rectangle_are_filled(tmp_path: Path, kind: str) -> None:
    corners = ((2, 1), (6, 3), (5, 6), (1, 4))
    write(tmp_path, said(shape("car", kind, *corners, direction=0.3)))
    drawn = recognise(tmp_path, ImportOptions())
    write(tmp_path, said(shape("car", "polygon", *corners)))
    expected = recognise(tmp_path, ImportOptions())
    assert drawn is not None and expected is not None
    np.testing.assert_array_equal(drawn.instances["a"].read(), expected.instances["a"].read())
    write(tmp_path, said(shape("car", kind, *corners[:3])))
    with pytest.raises(LayoutError, match=f"the {kind} has 3 point.s., but it needs 4"):
        recognise(tmp_path, ImportOptions())


@pytest.mark.parametrize(
    ("kind", "points"),
    [("point", [(1, 1)]), ("line", [(1, 1), (5, 5)]), ("linestrip", [(1, 1), (5, 5), (7, 2)]), ("cuboid", [(1, 1)] * 8)]
    + [("polygon", [(1, 1)] * count) for count in (1, 2)],
)
def test_shapes_without_area_are_refused_or_skipped(
    tmp_path: Path, kind: str, points: list[tuple[float, float]]
) -> None:
    write(tmp_path, said(*SHAPES, shape("spot", kind, *points)))
    with pytest.raises(LayoutError, match=rf"(shape_type '|the ){kind}.*--skip-shapes leaves out"):
        recognise(tmp_path, ImportOptions())
    layout = recognise(tmp_path, ImportOptions(skip_shapes=True))
    assert layout is not None
    assert f"1 shape(s) that enclose no area are left out (--skip-shapes): 1 {kind}" in layout.reasons
    assert "spot" not in layout.names.values()


@pytest.mark.parametrize("label", ["a\nb", "a\x1b[31m", "a\u202eb", "x" * 201])
def test_invalid_class_names_are_refused(tmp_path: Path, label: str) -> None:
    write(tmp_path, said(box(label, 1, 1, 4, 4)))
    with pytest.raises(LayoutError, match=r"a\.json: shapes\[0\]: label .* choose another name"):
        recognise(tmp_path, ImportOptions())


def test_one_label_in_two_compositions_is_one_class(tmp_path: Path) -> None:
    write(tmp_path, said(box("Zelle é", 1, 1, 4, 4), box("Zelle e\u0301", 5, 1, 8, 4)))
    layout = recognise(tmp_path, ImportOptions())
    assert layout is not None and layout.names == {0: "background", 1: "Zelle é"}
