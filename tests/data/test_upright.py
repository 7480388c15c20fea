"""Read images and masks with orientation tags by every reader, and compare them with arrays turned by hand."""

import base64
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from PIL import Image, ImageOps

from segline import files
from segline.data import labelfile, sources
from segline.data.checks import per_dataset
from segline.data.dataset import Dataset
from segline.data.georeference import tags
from segline.data.imagefiles import image_size, read_image, read_labels
from segline.data.sources import open_image
from segline.files import FileError
from segline.importing.bring import Imported, bring
from segline.importing.layout import ImportOptions, LayoutError
from segline.model.images import ImageError

SHAPE = (24, 40)
Array = npt.NDArray[Any]


def image(seed: int) -> Array:
    return np.random.default_rng(seed).integers(0, 256, (*SHAPE, 3), dtype=np.uint8)


def mask(seed: int) -> Array:
    pixels = np.zeros(SHAPE, np.uint8)
    top, left = np.random.default_rng(seed).integers(1, 12, 2)
    pixels[top : top + 5, left : left + 9] = 255
    return pixels


def stored(upright: Array, orientation: int) -> Array:
    """Return the stored pixels of a file with this orientation tag, by Pillow's table of inverse turns."""
    inverse = {6: 8, 8: 6}.get(orientation, orientation)
    exif = Image.Exif()
    exif[274] = inverse
    turned = Image.fromarray(upright)
    turned.info["exif"] = exif.tobytes()
    stream = io.BytesIO()
    turned.save(stream, "PNG", exif=exif)
    return np.array(ImageOps.exif_transpose(Image.open(stream)))


def write(path: Path, upright: Array, orientation: int = 1, **options: Any) -> None:
    pixels = stored(upright, orientation)
    if path.suffix == ".tif":
        tags = [(274, "H", 1, orientation, True)] if orientation > 1 else []
        photometric = "rgb" if pixels.ndim == 3 else "minisblack"
        tifffile.imwrite(path, pixels, extratags=tags, metadata=None, photometric=photometric, **options)
        return
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(pixels).save(path, exif=exif, **({"quality": 95} if path.suffix == ".jpg" else {}))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    for name in ("images", "masks"):
        (tmp_path / "source" / name).mkdir(parents=True)
    return tmp_path / "source"


def imported(source: Path, options: ImportOptions | None = None) -> Imported:
    return bring(source, "x", options, raw=source.parent / "raw", replace=True)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_masks_are_upright(suffix: str, orientation: int, tmp_path: Path) -> None:
    write(tmp_path / f"a{suffix}", mask(0), orientation)
    assert np.array_equal(read_labels(tmp_path / f"a{suffix}"), mask(0))
    assert image_size(tmp_path / f"a{suffix}")[:2] == SHAPE


@pytest.mark.parametrize("orientation", range(2, 9))
@pytest.mark.parametrize("options", [{}, {"tile": (16, 16)}, {"rowsperstrip": 5, "compression": "zlib"}])
def test_windows_are_parts_of_the_upright_image(
    orientation: int, options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "a.tif", image(0), orientation, **options)
    assert np.array_equal(read_image(tmp_path / "a.tif"), image(0))
    monkeypatch.setattr(sources.TiffImage, "_decode", lambda _: pytest.fail("the whole image was read"))
    rng = np.random.default_rng(orientation)
    with open_image(tmp_path / "a.tif") as opened:
        assert (opened.height, opened.width) == SHAPE
        for _ in range(8):
            rows, columns = (slice(*np.sort(rng.choice(side + 1, 2, replace=False)).tolist()) for side in SHAPE)
            assert np.array_equal(opened.read(rows, columns), image(0)[rows, columns])


def test_windows_of_white_is_zero_equal_the_whole_image(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", image(0)[..., 0], photometric="miniswhite", tile=(16, 16))
    whole = read_image(tmp_path / "a.tif")
    assert np.array_equal(whole[..., 0], 255 - image(0)[..., 0])
    with open_image(tmp_path / "a.tif") as opened:
        assert np.array_equal(opened.read(slice(3, 20), slice(5, 30)), whole[3:20, 5:30])


@pytest.mark.parametrize(("suffix", "of_mask"), [(".png", ".png"), (".tif", ".tif"), (".jpg", ".png")])
def test_import_turns_images_and_masks_upright(suffix: str, of_mask: str, source: Path) -> None:
    for number in range(8):
        write(source / "images" / f"a{number}{suffix}", image(number), number + 1)
        write(source / "masks" / f"a{number}{of_mask}", mask(number), 8 - number)
    made = imported(source)
    dataset = Dataset.open(made.folder)
    for number in range(8):
        pixels, (classes, _) = dataset.image(f"a{number}"), dataset.truth(f"a{number}")
        assert pixels.shape[:2] == classes.shape == SHAPE
        assert np.array_equal(classes > 0, mask(number) > 0)
        if suffix != ".jpg":
            assert np.array_equal(pixels, image(number))
    reasons = "\n".join(made.reasons)
    for what in ("image", "mask"):
        assert f"1 {what}(s): the pixels are turned upright, because the orientation is 6" in reasons


def test_blocks_and_pages_are_upright(source: Path) -> None:
    for number in range(4):
        write(source / "images" / f"a{number}.tif", image(number), 6)
        write(source / "masks" / f"a{number}.png", mask(number))
    dataset = Dataset.open(imported(source, ImportOptions(cut=20)).folder)
    left, right = (dataset.image(f"a0_r{row}_c{column}") for row, column in ((0, 0), (0, 1)))
    assert np.array_equal(np.concatenate([left, right], axis=1), image(0)[: left.shape[0]])


def labelme(path: Path, size: tuple[int, int], points: list[list[int]]) -> None:
    shape = {"label": "cell", "points": points, "group_id": None, "shape_type": "polygon", "flags": {}}
    annotation = {"version": "5.5.0", "imagePath": f"{path.stem}.jpg", "imageHeight": size[0], "imageWidth": size[1]}
    path.write_text(json.dumps(annotation | {"imageData": None, "shapes": [shape]}))


@pytest.mark.parametrize("orientation", [3, 6])
def test_outlines_of_labelme_refer_to_the_upright_image(orientation: int, tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    for number in range(4):
        bright = image(number) // 4
        bright[4:14, 8:20] = 250
        write(tmp_path / "source" / f"p{number}.jpg", bright, orientation)
        labelme(tmp_path / "source" / f"p{number}.json", SHAPE, [[8, 4], [20, 4], [20, 14], [8, 14]])
    dataset = Dataset.open(imported(tmp_path / "source").folder)
    pixels, (classes, _) = dataset.image("p0"), dataset.truth("p0")
    assert pixels[classes > 0].mean() > 200
    assert pixels[classes == 0].mean() < 60


def test_a_message_about_sizes_explains_an_orientation_tag(source: Path) -> None:
    """The labels were drawn on the stored pixels, without the turn."""
    for number in range(4):
        write(source / "images" / f"a{number}.jpg", image(number), 6)
        write(source / "masks" / f"a{number}.png", stored(mask(number), 6))
    with pytest.raises(
        per_dataset.UnfitError, match=r"turned upright, because its orientation is 6; .*exiftool -Orientation="
    ):
        imported(source)
    folder = source.parent / "labelme"
    folder.mkdir()
    write(folder / "p.jpg", image(0), 6)
    labelme(folder / "p.json", SHAPE[::-1], [[1, 1], [5, 1], [5, 9]])
    with pytest.raises(LayoutError, match=r"turned upright, because its orientation is 6; .*exiftool -Orientation="):
        imported(folder)


def test_a_mask_of_bits_with_white_as_0_equals_pillow(source: Path) -> None:
    for number in range(4):
        write(source / "images" / f"a{number}.tif", image(number))
        path = source / "masks" / f"a{number}.tif"
        tifffile.imwrite(path, mask(number) == 0, photometric="miniswhite", software="scanner", metadata=None)
        assert np.array_equal(np.array(Image.open(path)), mask(number) > 0)
    made = imported(source)
    classes, _ = Dataset.open(made.folder).truth("a0")
    assert np.array_equal(classes > 0, mask(0) > 0)
    assert any(
        "4 mask(s): 0 is declared as white (WhiteIsZero); values are inverted, so 0 is black" in reason
        for reason in made.reasons
    )


@pytest.mark.parametrize(
    ("array", "options"),
    [
        (mask(0) > 0, {}),  # tifffile writes every array of bool like this
        (np.minimum(mask(0), 3), {"photometric": "miniswhite"}),
        (np.minimum(mask(0), 3).astype(np.uint16), {"photometric": "miniswhite"}),
        (mask(0).astype(np.int32), {"photometric": "miniswhite"}),
    ],
)
def test_masks_with_unclear_white_are_refused(array: Array, options: dict[str, Any], tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", array, **options)
    with pytest.raises(FileError, match="WhiteIsZero"):
        read_labels(tmp_path / "a.tif")


def test_black_and_white_in_bytes_with_white_as_0_is_inverted(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", 255 - mask(0), photometric="miniswhite")
    assert np.array_equal(read_labels(tmp_path / "a.tif"), mask(0))


def nodata(text: str) -> list[tuple[int, str, int, str, bool]]:
    return [(42113, "s", 0, text, True)]


@pytest.mark.parametrize(
    ("dtype", "text", "value", "expected"),
    [
        ("float32", "-9999", -9999, "error"),
        ("float32", " -9999 ", -9999, "error"),
        ("float32", "-3.4e38", np.float32(-3.4e38), "error"),
        ("float32", "0.5", 0.5, "warning"),
        ("int16", "-9999", -9999, "error"),
        ("uint8", "0", 0, "warning"),
        ("uint16", "65535", 65535, "warning"),
        ("uint8", "-9999", 0, None),
        ("float32", "-9999", 0.5, None),
        ("float32", "nan", np.nan, "error"),
    ],
)
def test_check_reports_missing_values_that_occur(
    dtype: str, text: str, value: float, expected: str | None, make_dataset: Callable[..., Path]
) -> None:
    folder = make_dataset(4)
    for number, stem in enumerate("abcd"):
        rng = np.random.default_rng(number)
        pixels = rng.random((12, 10)).astype(dtype) if dtype == "float32" else rng.integers(1, 200, (12, 10), dtype)
        pixels[:3] = value
        (folder / "images" / f"{stem}.png").unlink()
        tifffile.imwrite(folder / "images" / f"{stem}.tif", pixels, extratags=nodata(text), photometric="minisblack")
    problems = [
        problem
        for problem in per_dataset.problems(Dataset.open(folder))
        if problem.file == "images/a.tif" and ("nodata" in problem.message or "NaN" in problem.message)
    ]
    assert [problem.level for problem in problems] == ([] if expected is None else [expected])
    if expected and text != "nan":
        assert "30 values (25.0%)" in problems[0].message
        assert "nodata" in problems[0].message


def test_blocks_keep_the_number_of_missing_values(source: Path) -> None:
    for number in range(4):
        pixels = np.maximum(image(number), 1)
        pixels[:5] = 0
        path = source / "images" / f"a{number}.tif"
        tifffile.imwrite(path, pixels, extratags=nodata("0"), photometric="rgb", metadata=None)
        write(source / "masks" / f"a{number}.png", mask(number))
    made = imported(source, ImportOptions(cut=20))
    assert sum("nodata" in problem.message for problem in made.problems) == 8
    assert np.array_equal(Dataset.open(made.folder).image("a0_r0_c0")[:5], np.zeros((5, 20, 3)))


def test_check_reports_metadata_of_images_and_labels(make_dataset: Callable[..., Path]) -> None:
    folder = make_dataset(4)
    pixels = read_image(folder / "images" / "a.png")[..., 0]
    Image.fromarray(pixels).save(folder / "images" / "a.png", dpi=(300, 100))
    labels = read_labels(folder / "classes" / "b.png")
    (folder / "classes" / "b.png").unlink()
    tifffile.imwrite(folder / "classes" / "b.tif", labels[::-1], extratags=[(274, "H", 1, 4, True)])
    problems = {problem.file: problem for problem in per_dataset.problems(Dataset.open(folder))}
    assert "times as wide as high" in problems["images/a.png"].message
    assert "because the orientation is 4" in problems["classes/b.tif"].message
    assert {problem.level for problem in problems.values()} == {"warning"}


def placed(x: float) -> list[tuple[int, str, int, tuple[float, ...], bool]]:
    return [(33550, "d", 3, (1.0, 1.0, 0.0), True), (33922, "d", 6, (0.0, 0.0, 0.0, x, 46e5, 0.0), True)]


@pytest.mark.parametrize("shift", [0, 32])
def test_import_refuses_masks_with_another_georeference(shift: int, source: Path) -> None:
    for number in range(4):
        rgb = {"photometric": "rgb", "metadata": None}
        tifffile.imwrite(source / "images" / f"a{number}.tif", image(number), extratags=placed(5e5), **rgb)
        path = source / "masks" / f"a{number}.tif"
        tifffile.imwrite(path, mask(number), extratags=placed(5e5 + shift), metadata=None)
    if shift:
        with pytest.raises(
            LayoutError, match=r"a0\.tif: the georeference places the labels up to 32 px from their image"
        ):
            imported(source)
    else:
        assert tags((imported(source).folder / "images" / "a0.tif").read_bytes())


def test_check_finds_labels_with_another_georeference(make_dataset: Callable[..., Path]) -> None:
    folder = make_dataset(4)
    for kind, x in (("images", 0.0), ("classes", 3.0)):
        pixels = read_image(folder / kind / "a.png")[..., 0]
        (folder / kind / "a.png").unlink()
        tifffile.imwrite(folder / kind / "a.tif", pixels, extratags=placed(x), metadata=None)
    (problem,) = per_dataset.problems(Dataset.open(folder))
    assert (problem.level, problem.file) == ("error", "classes/a.tif")
    assert "up to 3 px" in problem.message


def test_masks_in_gif_and_lossless_jpeg_2000_are_read(source: Path) -> None:
    for number in range(4):
        Image.fromarray(image(number)).save(source / "images" / f"a{number}.jp2")
        Image.fromarray(mask(number)).save(source / "masks" / f"a{number}.gif")
    made = imported(source)
    dataset = Dataset.open(made.folder)
    assert np.array_equal(dataset.image("a0"), image(0))
    assert np.array_equal(dataset.truth("a0")[0] > 0, mask(0) > 0)
    Image.fromarray(mask(0)).save(source / "a.jp2")
    assert np.array_equal(read_labels(source / "a.jp2"), mask(0))


def test_a_gif_or_bmp_whose_first_colour_is_white_is_read_by_its_colours(source: Path) -> None:
    for suffix in (".gif", ".bmp"):
        for number in range(4):
            write(source / "images" / f"a{number}.png", image(number))
            drawn = Image.fromarray((mask(number) == 0).astype(np.uint8), "P")
            drawn.putpalette([0, 0, 0, 255, 255, 255][::-1])
            drawn.save(source / "masks" / f"a{number}{suffix}")
        classes, _ = Dataset.open(imported(source, ImportOptions(masks=f"masks/*{suffix}")).folder).truth("a0")
        with Image.open(source / f"masks/a0{suffix}") as shown:
            assert np.array_equal(classes > 0, np.array(shown.convert("L")) > 0)


@pytest.mark.parametrize("name", ["a.jpg", "a.jp2", "a.tif"])
def test_masks_with_lossy_compression_are_refused(name: str, source: Path) -> None:
    for number in range(4):
        write(source / "images" / f"{number}.png", image(number))
        path = source / "masks" / f"{number}{name[1:]}"
        if name == "a.tif":
            tifffile.imwrite(path, mask(number), compression="jpeg")
        else:
            Image.fromarray(mask(number)).save(path, **({"irreversible": True} if name == "a.jp2" else {}))
    with pytest.raises(FileError, match="JPEG changes values"):
        read_labels(source / "masks" / f"0{name[1:]}")
    with pytest.raises(LayoutError, match="JPEG changes values"):
        imported(source)
    classes, _ = Dataset.open(imported(source, ImportOptions(threshold=127)).folder).truth("0")
    assert np.array_equal(classes > 0, mask(0) > 0)


def test_a_labelme_mask_is_turned_upright(tmp_path: Path) -> None:
    """A PNG within JSON is turned upright as well."""
    write(tmp_path / "m.png", mask(0), 3)
    data = base64.b64decode(base64.b64encode((tmp_path / "m.png").read_bytes()))
    assert np.array_equal(labelfile.decode(io.BytesIO(data)).numbers, mask(0))


def test_an_animation_is_not_accepted_as_mask(tmp_path: Path) -> None:
    frames = [Image.fromarray(mask(number)) for number in range(3)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    with pytest.raises(FileError, match="3 frames"):
        read_labels(tmp_path / "a.gif")
    assert issubclass(FileError, ValueError)
    with pytest.raises(ImageError), files.opened(tmp_path / "a.gif") as stream:
        labelfile.decode(stream)
