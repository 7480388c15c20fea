"""Test the metadata of OME-Zarr images, valid and damaged."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from segline.data import omezarr
from segline.files import FileError

AXES = [{"name": "c", "type": "channel"}, *({"name": n, "type": "space", "unit": "micrometer"} for n in "yx")]
MOVES = [{"type": "scale", "scale": [1.0, 0.5, 0.25]}, {"type": "translation", "translation": [0.0, 3.0, 4.0]}]
SAID = {"axes": AXES, "datasets": [{"path": "0", "coordinateTransformations": MOVES}]}


def make(path: Path, version: str, metadata: dict[str, Any]) -> Path:
    group = zarr.create_group(path, zarr_format=2 if version == "0.4" else 3, overwrite=True)
    group.create_array("0", shape=(2, 30, 40), chunks=(1, 16, 16), dtype="uint8")[:] = 3
    if version == "0.4":
        group.attrs.update({"multiscales": [metadata | {"version": version}]})
    else:
        group.attrs.update({"ome": {"version": version, "multiscales": [metadata]}})
    return path


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_labels_take_over_axes_and_scale(version: str, tmp_path: Path) -> None:
    frame = omezarr.read(make(tmp_path / "a.ome.zarr", version, SAID))
    assert (frame.version, frame.names, frame.array) == (version, ["c", "y", "x"], tmp_path / "a.ome.zarr" / "0")
    moves = [{"type": "scale", "scale": [0.5, 0.25]}, {"type": "translation", "translation": [3.0, 4.0]}]
    assert omezarr.axes(frame, channels=False) == (AXES[1:], moves, [])
    moves = [{"type": "scale", "scale": [1.0, 0.5, 0.25]}, {"type": "translation", "translation": [0.0, 3.0, 4.0]}]
    assert omezarr.axes(frame, channels=True) == (AXES, moves, [])


@pytest.mark.parametrize("moves", [[], [{"type": "identity"}]])
def test_a_missing_scale_is_1(moves: list[Any], tmp_path: Path) -> None:
    metadata = {"axes": [{"name": n} for n in "yx"], "datasets": [{"path": "0", "coordinateTransformations": moves}]}
    axes, own, _ = omezarr.axes(omezarr.read(make(tmp_path / "a.zarr", "0.4", metadata)), channels=False)
    assert axes == [{"name": n, "type": "space"} for n in "yx"]
    assert own == [{"type": "scale", "scale": [1.0, 1.0]}]


REFUSED = {
    "not supported; convert": SAID | {"version": "0.3"},
    r"multiscales.0.axes: Field required": {"datasets": [{"path": "0"}]},
    r"multiscales.0.axes.0: Input should be": SAID | {"axes": ["c", "y", "x"]},
    r"multiscales.0.datasets: Tuple should have at least 1": SAID | {"datasets": []},
    r"multiscales.0.datasets.0.path: Field required": SAID | {"datasets": [{}]},
    r"leads out of the folder; move level 0 into the folder, and correct the path in the metadata": SAID
    | {"datasets": [{"path": "../b/0"}]},
    r"'/tmp', leads out of the folder": SAID | {"datasets": [{"path": "/tmp"}]},
    r"the axes are c, x, y; segline": SAID | {"axes": [{"name": n} for n in "cxy"]},
    r"the axes are q, y, x; segline": SAID | {"axes": [{"name": n} for n in "qyx"]},
    r"a scale must have 3 numbers, one for each axis; convert the image to NGFF 0\.4 or 0\.5": SAID
    | {"datasets": [{"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [1.0]}]}]},
}


@pytest.mark.parametrize("message", REFUSED)
def test_unsupported_metadata_are_refused(message: str, tmp_path: Path) -> None:
    path = make(tmp_path / "a.zarr", "0.4", SAID)
    (path / ".zattrs").write_text(json.dumps({"multiscales": [{"version": "0.4"} | REFUSED[message]]}))
    with pytest.raises(FileError, match=rf"a\.zarr: .*{message}"):
        omezarr.read(path)


ELSE: dict[str, Any] = {
    "the folder is a plate of many images": {"plate": {}},
    "the folder is a well of many images": {"well": {}},
    "the folder is a series of images": {"bioformats2raw.layout": 3},
    "no metadata field multiscales": {},
    "multiscales.0: list index": {"multiscales": []},
    "not a JSON object": [],
}


@pytest.mark.parametrize("message", ELSE)
def test_folders_without_an_image_are_refused(message: str, tmp_path: Path) -> None:
    (tmp_path / "a.zarr").mkdir()
    (tmp_path / "a.zarr" / ".zattrs").write_text(json.dumps(ELSE[message]))
    with pytest.raises(FileError, match=rf"a\.zarr.*{message}"):
        omezarr.read(tmp_path / "a.zarr")


@pytest.mark.parametrize("content", ["[]", '{"attributes": 1}', '{"attributes": {"ome": 3}}', "{", "{}"])
def test_damaged_metadata_of_zarr_3_are_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "zarr.json").write_text(content)
    with pytest.raises(FileError, match=r"a.*: "):
        omezarr.read(tmp_path / "a")


def test_stems_have_no_suffix(tmp_path: Path) -> None:
    assert [omezarr.stem(Path(name)) for name in ("a.b.ome.zarr", "a.zarr", "a.ome.tif", "a")] == [
        "a.b",
        "a",
        "a.ome",
        "a",
    ]
    assert not omezarr.is_zarr(tmp_path)
    assert omezarr.is_zarr(make(tmp_path / "a", "0.5", SAID))


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_the_md5_changes_with_pixels_and_metadata(version: str, tmp_path: Path) -> None:
    path = make(tmp_path / "a.zarr", version, SAID)
    digests = [omezarr.md5(path), omezarr.md5(make(tmp_path / "b.zarr", version, SAID))]
    assert digests[0] == digests[1]
    zarr.open_array(path / "0")[1, 20, 20] = 9
    digests.append(omezarr.md5(path))
    make(path, version, SAID | {"name": "other"})
    digests.append(omezarr.md5(path))
    array = zarr.open_array(path / "0")
    array[0, :16, :16] = np.zeros((16, 16), np.uint8)
    digests.append(omezarr.md5(path))
    assert len(set(digests)) == 4
