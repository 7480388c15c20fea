"""Build a network from its settings."""

from typing import Any

from .encoder_unet import EncoderUNet
from .fcn import FCN
from .network import Network
from .unet import UNet


def build(in_channels: int, classes: int, *, name: str = "unet", **settings: Any) -> Network:
    """Build a network with random weights, for images with `in_channels` channels.

    A U-Net without an encoder has the contracting path of the paper. The settings are the field ``network`` of
    model.json.
    """
    if name != "unet":
        return FCN(in_channels, classes, name=name, **settings)
    if "encoder" in settings:
        return EncoderUNet(in_channels, classes, **settings)
    return UNet(in_channels, classes, **settings)
