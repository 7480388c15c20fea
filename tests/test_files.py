"""Reading and writing of files, compared with Pillow, tifffile, hashlib and the disk after a failure."""

import errno
import hashlib
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from segline import files
from segline.data import imagefiles
from segline.data.writers import Layer, write_tiled
from segline.files import FileError

IDS = np.array([[0, 1, 2], [3, 700, 65535]], np.uint16)


def test_palette_png_keeps_its_indices(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[0, 1], [2, 2]], np.uint8), "L").convert("P")
    image.putdata([0, 1, 2, 2])
    image.putpalette([0, 0, 0, 255, 0, 0, 0, 0, 255])
    image.save(tmp_path / "labels.png")
    np.testing.assert_array_equal(imagefiles.read_labels(tmp_path / "labels.png"), [[0, 1], [2, 2]])


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_ids_of_16_bit_are_read(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"ids{suffix}"
    tifffile.imwrite(file, IDS) if suffix == ".tif" else Image.fromarray(IDS).save(file)
    np.testing.assert_array_equal(imagefiles.read_labels(file), IDS)


def test_black_and_white_png_is_0_and_1(tmp_path: Path) -> None:
    Image.fromarray(np.array([[False, True]])).save(tmp_path / "bw.png")
    labels = imagefiles.read_labels(tmp_path / "bw.png")
    assert labels.dtype == np.uint8
    assert labels.tolist() == [[0, 1]]


def test_float_tiff_of_whole_numbers_is_read(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.array([[0, 3]], np.float32))
    assert imagefiles.read_labels(tmp_path / "a.tif").tolist() == [[0, 3]]


def _write(file: Path, array: np.ndarray) -> None:
    tifffile.imwrite(file, array, photometric="minisblack") if file.suffix == ".tif" else Image.fromarray(array).save(
        file
    )


@pytest.mark.parametrize(
    ("name", "array", "says"),
    [
        ("rgb.png", np.zeros((2, 2, 3), np.uint8), r"the label image is in colour \(shape \(2, 2, 3\)\).*class id"),
        ("lossy.jpg", np.zeros((2, 2), np.uint8), "JPEG changes values"),
        (
            "half.tif",
            np.array([[0, 0.5]], np.float32),
            r"1 pixels have values that are not integers \(for example 0\.5\)",
        ),
        ("nan.tif", np.array([[0, np.nan]], np.float32), "are not integers \\(for example nan\\)"),
        ("minus.tif", np.array([[0, -2]], np.int16), "the ids range from -2 to 0"),
        ("huge.tif", np.array([[0, 2**31]], np.uint32), "2147483648"),
        ("big.tif", np.array([[0, 1e30]], np.float32), "the ids range from 0"),
        ("stack.tif", np.zeros((3, 4, 5), np.uint8), "a stack of 3 pages"),
    ],
)
def test_labels_that_are_not_ids_are_refused(tmp_path: Path, name: str, array: np.ndarray, says: str) -> None:
    _write(tmp_path / name, array)
    with pytest.raises(FileError, match=says) as refusal:
        imagefiles.read_labels(tmp_path / name)
    assert name in str(refusal.value)


def test_missing_and_damaged_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no image")
    for read in (imagefiles.read_image, imagefiles.read_labels):
        with pytest.raises(FileError, match=r"gone\.png: cannot be read: No such file"):
            read(tmp_path / "gone.png")
        with pytest.raises(FileError, match=r"text\.png: not a readable"):
            read(tmp_path / "text.png")


def _encoded(suffix: str) -> bytes:
    buffer = io.BytesIO()
    if suffix == ".tif":
        tifffile.imwrite(buffer, IDS)
    else:
        Image.fromarray(IDS).save(buffer, "png")
    return buffer.getvalue()


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(suffix=st.sampled_from([".png", ".tif"]), cut=st.floats(0, 0.95), flip=st.integers(0, 10**6))
def test_a_damaged_label_file_gives_labels_or_an_error_that_names_it(
    tmp_path: Path, suffix: str, cut: float, flip: int
) -> None:
    data = bytearray(_encoded(suffix))
    data[flip % len(data)] ^= 1 << (flip % 8)
    file = tmp_path / f"damaged{suffix}"
    file.write_bytes(bytes(data[: len(data) - int(cut * len(data))]))
    try:
        shape = imagefiles.read_labels(file).shape
    except FileError as error:
        refusal = str(error)
    else:
        refusal = f"{file}: none" if len(shape) == 2 else ""
    assert refusal.startswith(f"{file}: ")


def test_pages_of_a_stack_are_read_one_by_one(tmp_path: Path) -> None:
    stack = np.arange(24, dtype=np.uint16).reshape(3, 2, 4)
    tifffile.imwrite(tmp_path / "stack.tif", stack, photometric="minisblack")
    Image.fromarray(IDS).save(tmp_path / "one.png")
    assert [imagefiles.pages(tmp_path / name) for name in ("stack.tif", "one.png")] == [3, 1]
    np.testing.assert_array_equal(imagefiles.read_page(tmp_path / "stack.tif", 1)[..., 0], stack[1])
    np.testing.assert_array_equal(imagefiles.read_labels(tmp_path / "stack.tif", 2), stack[2])
    with pytest.raises(FileError, match=r"stack\.tif: .*a stack of 3 pages"):
        imagefiles.read_image(tmp_path / "stack.tif")
    with pytest.raises(FileError, match=r"stack\.tif: .*no page 3"):
        imagefiles.read_page(tmp_path / "stack.tif", 3)


def test_the_size_of_an_image_is_read_without_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(np.zeros((3, 5, 4), np.uint8)).save(tmp_path / "a.png")
    Image.fromarray(IDS).save(tmp_path / "b.tif")
    monkeypatch.setattr("imagecodecs.png_decode", None)
    monkeypatch.setattr("tifffile.TiffPage.asarray", None)
    assert imagefiles.image_size(tmp_path / "a.png") == (3, 5, 3, "uint8")
    assert imagefiles.image_size(tmp_path / "b.tif") == (2, 3, 1, "uint16")
    with pytest.raises(FileError, match=r"gone\.png: cannot be read: No such file"):
        imagefiles.image_size(tmp_path / "gone.png")


def test_a_mask_is_read_as_indices_and_palette(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 1]], np.uint8), "L").convert("RGB").quantize(2).save(tmp_path / "a.png")
    indices, palette = imagefiles.read_mask(tmp_path / "a.png")
    assert palette is not None
    np.testing.assert_array_equal(palette[indices], [[[0, 0, 0], [1, 1, 1]]])


def test_image_keeps_its_channels(tmp_path: Path) -> None:
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    Image.fromarray(pixels).save(tmp_path / "rgb.png")
    np.testing.assert_array_equal(imagefiles.read_image(tmp_path / "rgb.png"), pixels)


@pytest.mark.parametrize("pixels", [IDS, np.arange(24, dtype=np.uint8).reshape(2, 4, 3)])
def test_written_png_is_what_pillow_reads(tmp_path: Path, pixels: np.ndarray) -> None:
    imagefiles.write_png(tmp_path / "a.png", pixels)
    np.testing.assert_array_equal(np.array(Image.open(tmp_path / "a.png")), pixels)
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]


def test_arrays_come_back_memory_mapped(tmp_path: Path) -> None:
    files.save_array(tmp_path / "a.npy", IDS.T)
    array = files.load_array(tmp_path / "a.npy")
    assert isinstance(array, np.memmap)
    assert not array.flags.writeable
    np.testing.assert_array_equal(array, IDS.T)


def test_a_file_without_an_array_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.npy").write_bytes(b"")
    for name in ("a.npy", "gone.npy"):
        with pytest.raises(FileError, match=f"{name}: not a readable array"):
            files.load_array(tmp_path / name)


def test_json_and_yaml_round_trip(tmp_path: Path) -> None:
    value = {"z": 1, "a": [0.1, None, "é"], "classes": {"x": True}}
    files.write_json(tmp_path / "a.json", value)
    assert files.read_json(tmp_path / "a.json") == value
    files.write_yaml(tmp_path / "a.yaml", value | {"classes": {0: "background"}})
    read = files.read_yaml(tmp_path / "a.yaml")
    assert read == value | {"classes": {0: "background"}}
    assert list(read) == ["z", "a", "classes"]


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    files.write_json(tmp_path / "a.json", {"old": 1})
    with pytest.raises(ValueError, match="JSON"):
        files.write_json(tmp_path / "a.json", {"new": float("nan")})
    assert files.read_json(tmp_path / "a.json") == {"old": 1}


@pytest.mark.parametrize(("name", "read"), [("a.json", files.read_json), ("a.yaml", files.read_yaml)])
def test_invalid_json_and_yaml_are_named(tmp_path: Path, name: str, read: object) -> None:
    (tmp_path / name).write_text("{ a: [")
    with pytest.raises(FileError, match=f"{name}: not valid"):
        read(tmp_path / name)  # type: ignore[operator]


def test_json_with_too_many_levels_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[" * 200_000)
    with pytest.raises(FileError, match=r"a\.json: nested too deeply"):
        files.read_json(tmp_path / "a.json")


def test_tables_are_read_as_text(tmp_path: Path) -> None:
    files.write_table(tmp_path / "a.csv", pd.DataFrame({"image": ["007", "NA"], "group": ["", "1.0"]}))
    assert files.read_table(tmp_path / "a.csv").to_dict("list") == {"image": ["007", "NA"], "group": ["", "1.0"]}
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(FileError, match=r"empty\.csv: not a readable table"):
        files.read_table(tmp_path / "empty.csv")


def test_a_copy_has_the_bytes_and_the_md5_of_its_source(tmp_path: Path) -> None:
    data = bytes(range(256)) * 5000
    (tmp_path / "a").write_bytes(data)
    files.copy(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == data
    assert files.md5(tmp_path / "b") == hashlib.md5(data).hexdigest()


def test_whole_folder_replaces_all_or_nothing(tmp_path: Path) -> None:
    target = tmp_path / "data" / "set"

    def fill(name: str, fail: bool) -> None:
        with files.whole_folder(target) as folder:
            (folder / name).touch()
            if fail:
                raise KeyboardInterrupt

    fill("first", fail=False)
    with pytest.raises(KeyboardInterrupt):
        fill("second", fail=True)
    assert [file.name for file in target.iterdir()] == ["first"]
    fill("third", fail=False)
    assert [file.name for file in target.iterdir()] == ["third"]
    assert [folder.name for folder in target.parent.iterdir()] == ["set"]


def test_an_array_written_in_parts_equals_one_written_as_a_whole(tmp_path: Path) -> None:
    whole = np.arange(35, dtype=np.float32).reshape(7, 5)
    files.save_array(tmp_path / "whole.npy", whole)
    parts = (whole[rows].astype(np.float64) for rows in (slice(0, 3), slice(3, 6), slice(6, 7)))
    files.save_parts(tmp_path / "parts.npy", (7, 5), np.float32, parts)
    assert (tmp_path / "parts.npy").read_bytes() == (tmp_path / "whole.npy").read_bytes()


def test_a_table_written_by_rows_equals_one_written_as_a_whole(tmp_path: Path) -> None:
    rows = [{"image": 'a "b", c', "pixels": 3}, {"image": "ü\nd", "pixels": 4}]
    files.write_table(tmp_path / "whole.csv", pd.DataFrame(rows))
    with files.table_writer(tmp_path / "rows.csv", ["image", "pixels"]) as add:
        for row in rows:
            add(row)
    assert (tmp_path / "rows.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_an_unfinished_table_leaves_no_file(tmp_path: Path) -> None:
    def stop_halfway() -> None:
        with files.table_writer(tmp_path / "rows.csv", ["image"]) as add:
            add({"image": "a"})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop_halfway()
    assert not (tmp_path / "rows.csv").exists()


WRITERS: dict[str, Callable[[Path], object]] = {
    "bytes": lambda path: files.write_bytes(path, b"new"),
    "settled": lambda path: files.write_bytes(path, b"new", settle=True),
    "JSON": lambda path: files.write_json(path, {"new": 1}),
    "YAML": lambda path: files.write_yaml(path, {"new": 1}),
    "PNG": lambda path: imagefiles.write_png(path, np.zeros((3, 4), np.uint8)),
    "table": lambda path: files.write_table(path, pd.DataFrame({"a": ["new"]})),
    "rows": lambda path: _write_rows(path),  # noqa: PLW0108  defined below
    "array": lambda path: files.save_array(path, np.zeros((3, 4))),
    "parts": lambda path: files.save_parts(path, (2, 4), "u1", [np.zeros((1, 4), "u1")] * 2),
    "copy": lambda path: files.copy(Path(__file__), path),
    "tiles": lambda path: write_tiled(path, Layer(lambda rows: np.zeros((9, 9), "u1")[rows], (9, 9), "u1"), []),
}


def _write_rows(path: Path) -> None:
    with files.table_writer(path, ["a"]) as write:
        write({"a": "new"})


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_is_named_and_keeps_the_former_file(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"{'細' * 83}.x"
    path.write_bytes(b"former")

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", fail)  # the last step that can fail
        with pytest.raises(OSError, match="No space left") as failed:
            WRITERS[name](path)
    assert failed.value.filename == str(path)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    assert path.read_bytes() == b"former"
    WRITERS[name](path)
    assert path.read_bytes() != b"former"
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("name", WRITERS)
def test_a_file_or_link_under_the_temporary_name_is_replaced_and_the_target_of_the_link_kept(
    name: str, tmp_path: Path
) -> None:
    (tmp_path / "victim").write_text("mine")
    path = tmp_path / "a.x"
    files.temporary_name(path).symlink_to("victim")
    WRITERS[name](path)
    assert (tmp_path / "victim").read_text() == "mine"
    files.temporary_name(path).write_text("left by a killed process")
    WRITERS[name](path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.x", "victim"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_an_array_that_does_not_fit_on_the_disk_is_named(tmp_path: Path) -> None:
    def write() -> None:
        with files.written(tmp_path / "a"), Path("/dev/full").open("wb", buffering=0) as file:
            np.zeros(10_000).tofile(file)

    with pytest.raises(OSError, match="No space left") as failed:
        write()
    assert (failed.value.errno, failed.value.filename) == (errno.ENOSPC, str(tmp_path / "a"))


def test_an_error_about_another_file_keeps_its_name(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as failed, files.partial(tmp_path / "a"):
        (tmp_path / "other").read_bytes()
    assert failed.value.filename == str(tmp_path / "other")


def test_a_link_in_the_way_is_replaced_and_its_target_kept(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "text").touch()
    target = tmp_path / "out"
    for kind in ("partial", "former"):
        files.temporary_name(target, kind).symlink_to("mine")
    for _ in range(2):
        with files.whole_folder(target) as folder:
            (folder / "a").touch()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "out"]
    assert (tmp_path / "mine" / "text").exists()


def test_text_that_is_not_valid_unicode_is_refused_with_the_name_of_the_file(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"a\.json: .*a.udcff.* is not valid Unicode and cannot be written"):
        files.write_json(tmp_path / "a.json", ["a\udcff"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("data", [b"", b"\x93NUMPY\x01\x00\x06\x00{'a': ", b"\x93NUMPY\x01\x00\xff\xff(", b"x" * 200])
def test_a_damaged_array_is_named(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.npy").write_bytes(data)
    with pytest.raises(FileError, match=r"a\.npy: not a readable array"):
        files.load_array(tmp_path / "a.npy")


def test_an_error_in_a_record_names_field_and_value(tmp_path: Path) -> None:
    files.write_json(tmp_path / "a.json", {"run": ["x" * 1000]})
    with pytest.raises(
        FileError, match=r"a\.json: run = \['x+.*\.\.\.: Input should be a valid string; remove it"
    ) as said:
        files.read_record(tmp_path / "a.json", dict[str, str], "remove it")
    assert len(str(said.value)) < 300
