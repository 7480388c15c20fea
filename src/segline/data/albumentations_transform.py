"""Provide the deformation of module `augment` as an albumentations transform, for pipelines outside segline.

Importing albumentations takes seconds, so segline's own training uses `augment` directly.
"""

from typing import Annotated, Any

import albumentations
import numpy as np
import numpy.typing as npt
from pydantic import Field

from segline.data.augment import Grid, draw, grid, warp
from segline.params import Augment


class RandomDeformation(albumentations.DualTransform):  # type: ignore[misc]
    """Random tile of an image: mirrored, rotated, zoomed and smoothly deformed in one interpolation.

    The transform accepts ``image`` and ``mask``. Interpolation is linear for images and for masks of floats, and
    nearest-neighbour for masks of all other types. Pass a weight map as
    ``Compose([...], additional_targets={"weights": "mask"}, strict=True)``. Every pixel of the image is equally likely
    to be the centre of the tile. The image is mirrored beyond its borders. The arguments are the settings of
    `segline.params.Augment`.

    albumentations gives every worker process the same seed, and repeats this seed in each epoch. So call
    ``compose.set_random_seed(...)`` before every sample, with a number made of seed, epoch and index. Unknown arguments
    raise an error only with ``Compose(strict=True)``. Unknown targets always raise an error.
    """

    class InitSchema(albumentations.DualTransform.InitSchema):  # type: ignore[misc]
        tile: Annotated[int, Field(ge=1)]
        elastic_grid: int
        elastic_sigma: float
        rotation: float
        mirror: bool
        min_scale: float
        max_scale: float

    def __init__(  # noqa: PLR0917  albumentations' transforms take positional arguments
        self,
        tile: int = 256,
        elastic_grid: int = 3,
        elastic_sigma: float = 10,
        rotation: float = 180,
        mirror: bool = True,
        min_scale: float = 0.9,
        max_scale: float = 1.1,
        p: float = 1.0,
    ) -> None:
        super().__init__(p=p)
        self.settings = Augment(
            elastic_grid=elastic_grid,
            elastic_sigma=elastic_sigma,
            rotation=rotation,
            mirror=mirror,
            min_scale=min_scale,
            max_scale=max_scale,
        )
        self.tile = tile
        # To save a transform, albumentations reads attributes with the same names as the constructor's arguments.
        for name in set(self.InitSchema.model_fields) & set(Augment.model_fields):
            setattr(self, name, getattr(self.settings, name))

    @property
    def targets(self) -> dict[str, Any]:
        """Dictionary from each kind of target, image or mask, to the method that transforms targets of this kind.

        An additional target is declared as one of these two kinds.
        """
        return {"image": self.apply, "mask": self.apply_to_mask}

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        """Choose a tile at random; return the source coordinates of its pixels."""
        unknown = sorted(set(data) - set(self._key2func) - {"applied_transforms"})
        if unknown:
            raise ValueError(
                f"RandomDeformation changes only the targets image and mask, not {', '.join(unknown)}; "
                'declare further targets in Compose(additional_targets={"NAME": "mask"})'
            )
        height, width = params["shape"][:2]
        centre = int(self.random_generator.integers(height)), int(self.random_generator.integers(width))
        return {"place": grid(draw(self.random_generator, self.settings, self.tile, centre), height, width)}

    def apply(self, img: npt.NDArray[Any], place: Grid, **_params: Any) -> npt.NDArray[Any]:
        """Cut the tile from an image by linear interpolation; the result has shape (tile, tile) or (tile, tile, C)."""
        return warp(place, img, "linear")

    def apply_to_mask(self, mask: npt.NDArray[Any], place: Grid, **_params: Any) -> npt.NDArray[Any]:
        """Cut the tile from a mask. Interpolation is linear for floats, and nearest-neighbour for all other types."""
        return warp(place, mask, "linear" if np.issubdtype(mask.dtype, np.floating) else "nearest")
