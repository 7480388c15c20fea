"""Labels an OME-Zarr image in memory, and writes what is seen in it as of one too large for that."""

import numpy as np
import numpy.typing as npt

from segline.commands.predicted import Records, Request, Wishes
from segline.commands.predicting import write
from segline.data.georeference import geotiff
from segline.data.windows import Windows
from segline.model import headers
from segline.model.images import decode
from segline.track.answers import Answer, Loaded
from segline.track.registry import RegistryError


class Whole:
    """What a model said of an image, by rows."""

    def __init__(self, said: Answer) -> None:
        self._labels = decode(said.labels)[..., 0]
        self._instances = None if said.instances is None else decode(said.instances)[..., 0].astype(np.int32)
        self._probabilities = None if said.probabilities is None else np.moveaxis(decode(said.probabilities), -1, 0)

    def labels(self, rows: slice) -> npt.NDArray[np.uint8]:
        """Class ids (h, W)."""
        return self._labels[rows]

    def instances(self, rows: slice) -> npt.NDArray[np.int32]:
        """Instance ids (h, W); RegistryError where the version knows none."""
        if self._instances is None:
            raise RegistryError("the version was registered by a segline that knew no instances; register it again")
        return self._instances[rows]

    def probabilities(self, rows: slice) -> npt.NDArray[np.float32]:
        """Class probabilities (K, h, W)."""
        assert self._probabilities is not None
        return self._probabilities[:, rows]

    @property
    def count(self) -> int:
        """Number of instances."""
        return int(self.instances(slice(None)).max())


def label_whole(image: Windows, request: Request, loaded: Loaded, records: Records, wishes: Wishes) -> dict[str, str]:
    """Label an image as its pixels in a TIFF are; the names of the files, by what they are.

    Raises
    ------
    ImageError, RegistryError
        It is too large, or does not suit the model.
    """
    line = image.read(slice(0, 1), slice(0, image.width))
    size = line.nbytes * image.height
    headers.doubt(image.height, image.width, size, size, size)
    raw = image.read(slice(0, image.height), slice(0, image.width))
    data = geotiff(raw[..., 0] if raw.shape[2] == 1 else np.moveaxis(raw, -1, 0), [])
    said = Whole(loaded(data, views=wishes.views, probabilities=wishes.probabilities))
    if wishes.instances:
        said.instances(slice(0))  # or says why not, before anything is replaced
    return write(image, said, request.stem, records.make_room(request), wishes)
