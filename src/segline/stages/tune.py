"""Stage tune: the settings that train takes."""

from segline import params
from segline.data import files
from segline.model.geometry import Geometry


def main() -> None:
    """Write the settings of params.yaml to data/tune/best.yaml, so that train has one source for them."""
    model, augment, train = params.read(params.Model), params.read(params.Augment), params.read(params.Train)
    params.read(params.Tune)
    # Refused here, a second after `dvc repro`, rather than when training starts.
    geometry = Geometry(model.depth, model.padding, model.upsampling, model.reduction)
    geometry.check(train.tile, "params.yaml: train.tile =")
    chosen = params.Tuned(model=model, augment=augment, train=train, searched=())
    files.write_yaml(params.TUNED_FILE, chosen.model_dump(mode="json"))
