"""A U-Net whose contracting path is the encoder of VGG or ResNet."""

import torch
from torch import Tensor, nn

from . import encoders
from .geometry import DEEPEST, levels, of_encoder_unet
from .network import Network, double_conv, initialise


class EncoderUNet(Network):
    """U-Net with an encoder as contracting path; the interface and the widths are those of segmentation_models.pytorch.

    Parameters
    ----------
    in_channels, classes, object_map:
        See `Network`.
    encoder:
        A key of `geometry.VGG` or `geometry.RESNET`.
    depth:
        Number of times that the encoder halves the sides of the image, at most `geometry.DEEPEST`.
    width:
        Number of channels at the first level of the expanding path; each lower level has twice as many channels.
    norm:
        ``batch`` or ``none``, after each 3x3 convolution; a ResNet always has batch norm.
    upsampling:
        ``transposed`` 2x2 convolution, which halves the number of channels, or ``bilinear``.
    dropout:
        Dropout probability at the lowest level.
    """

    def __init__(
        self,
        in_channels: int,
        classes: int,
        *,
        encoder: str,
        depth: int = DEEPEST,
        width: int = 16,
        norm: str = "batch",
        upsampling: str = "transposed",
        dropout: float = 0.0,
        object_map: bool = False,
    ) -> None:
        super().__init__(
            in_channels,
            classes,
            of_encoder_unet(encoder, depth, upsampling),
            object_map=object_map,
            channels_per_pixel=max(width, encoders.channels_per_pixel(encoder, depth)),
        )
        self.encoder = encoders.build(encoder, in_channels, depth, norm)
        self.dropout = nn.Dropout(dropout)
        self.up = nn.ModuleList()
        self.merge = nn.ModuleList()
        *skips, lowest = levels(encoder, depth)
        below = lowest.channels
        for level in reversed(range(depth)):
            here = width * 2**level
            if upsampling == "transposed":
                self.up.append(nn.ConvTranspose2d(below, here, kernel_size=2, stride=2))
                below = here
            else:
                self.up.append(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False))
            self.merge.append(double_conv(skips[level].channels + below, here, here, "same", norm))
            below = here
        self.head = nn.Conv2d(width, self.out_channels, kernel_size=1)
        self.apply(initialise)

    def logits(self, image: Tensor) -> Tensor:
        """Compute the logits for an image whose shape has been checked."""
        *skips, x = self.encoder(image)
        x = self.dropout(x)
        for up, merge in zip(self.up, self.merge, strict=True):
            skip, x = skips.pop(), up(x)
            # A ResNet has no values at the first level.
            x = merge(torch.cat([skip, x], dim=1) if skip.shape[1] else x)
        logits: Tensor = self.head(x)
        return logits
