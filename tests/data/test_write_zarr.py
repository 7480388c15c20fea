"""Read written OME-Zarr images with zarr, and compare their metadata with the specification."""

from pathlib import Path

import numpy as np
import pytest
import zarr

from segline.data import omezarr
from segline.data.sources import open_image
from segline.data.writers import Layer, write_zarr

Y, X = ({"name": name, "type": "space", "unit": "micrometer"} for name in "yx")
C = {"name": "c", "type": "channel"}
SCALE = [{"type": "scale", "scale": [0.5, 0.25]}]


def frame(path: Path, version: str) -> omezarr.Frame:
    metadata = {"axes": [Y, X], "datasets": [{"path": "0", "coordinateTransformations": SCALE}]}
    return omezarr.Frame(path, version, omezarr.Pyramid.model_validate(metadata))


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize(("shape", "dtype"), [((700, 1100), "uint8"), ((513, 40), "int32"), ((2, 513, 40), "float32")])
def test_zarr_reads_written_pixels_and_metadata(
    version: str, shape: tuple[int, ...], dtype: str, tmp_path: Path
) -> None:
    pixels, path = np.random.default_rng(0).integers(0, 250, shape).astype(dtype), tmp_path / "out" / "a.ome.zarr"
    over, planes = frame(tmp_path / "in" / "a.zarr", version), len(shape) == 3
    for _ in range(2):  # the second call replaces the first image
        write_zarr(path, Layer(lambda rows: pixels[..., rows, :], shape, dtype), over, labels=not planes)
    assert list(path.parent.iterdir()) == [path]
    assert sorted(level.name for level in path.iterdir() if level.is_dir()) == [*"012"[: 2 + (max(shape) > 1024)]]
    array = zarr.open_array(path / "0", mode="r")
    assert (array.dtype, array.chunks) == (dtype, (1, 512, 512)[-len(shape) :])
    assert np.array_equal(array[:], pixels)
    with open_image(path) as image:
        read = image.read(slice(0, shape[-2]), slice(0, shape[-1]))
    assert np.array_equal(read, np.moveaxis(pixels.reshape(-1, *shape[-2:]), 0, -1))
    levels = []
    for level in range(2 + (max(shape) > 1024)):
        smaller = zarr.open_array(path / str(level), mode="r")
        assert np.array_equal(smaller[:], pixels[..., :: 2**level, :: 2**level])
        assert (max(smaller.shape) > 512) == (level < 1 + (max(shape) > 1024))
        scale = [1.0] * planes + [0.5 * 2**level, 0.25 * 2**level]
        levels.append({"path": str(level), "coordinateTransformations": [{"type": "scale", "scale": scale}]})
    multiscale = {"name": "a", "axes": [C, Y, X] if planes else [Y, X], "datasets": levels}
    label = {"source": {"image": "../../in/a.zarr"}}
    attributes, mark = dict(zarr.open_group(path, mode="r").attrs), {"segline": {"made_by": "segline predict"}}
    if version == "0.4":
        assert (path / ".zattrs").exists()
        labelled = {} if planes else {"image-label": {"version": "0.4"} | label}
        assert attributes == {"multiscales": [multiscale | {"version": "0.4"}], **labelled, **mark}
    else:
        assert array.metadata.dimension_names == (("c",) if planes else ()) + ("y", "x")
        labelled = {} if planes else {"image-label": label}
        assert attributes == {"ome": {"version": "0.5", "multiscales": [multiscale]} | labelled, **mark}


def test_a_stopped_write_leaves_nothing(tmp_path: Path) -> None:
    def rows(part: slice) -> np.ndarray:
        if part.start > 0:
            raise KeyboardInterrupt
        return np.zeros((512, 600), np.uint8)

    with pytest.raises(KeyboardInterrupt):
        write_zarr(tmp_path / "a.ome.zarr", Layer(rows, (1200, 600), "uint8"), frame(tmp_path, "0.4"), labels=True)
    assert list(tmp_path.iterdir()) == []
