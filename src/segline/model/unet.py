"""The U-Net of Ronneberger, Fischer and Brox (2015), with unpadded or padded convolutions.

Letters in shapes: b is the batch size, c the number of channels, h the height and w the width.
"""

import torch
from torch import Tensor, nn

from .geometry import of_unet
from .network import Network, double_conv, initialise


class UNet(Network):
    """U-Net with a contracting path, an expanding path and skip connections (copy and crop); the output is logits.

    ``UNet(1, 2, width=64, depth=4, padding="valid", norm="none")`` is the network of the paper, with
    31,030,658 parameters.

    Parameters
    ----------
    in_channels, classes, object_map:
        See `Network`.
    width:
        Number of channels at the first level; each level has twice as many channels as the level before.
    depth:
        Number of 2x2 poolings.
    padding:
        ``valid``: no padding, so the output is smaller than the input, and skip connections are cropped. ``same``: zero
        padding.
    norm:
        ``batch``, ``instance`` or ``group``, after each 3x3 convolution; ``weight``: convolutions are
        `StandardisedConv2d`; ``none``.
    upsampling:
        ``transposed`` 2x2 convolution, or ``bilinear`` after convolutions with half as many output channels.
    dropout:
        Dropout probability at the last two levels of the contracting path, as in the released network.
    reduction:
        Space-to-depth factor. The network processes each square of reduction x reduction pixels as one pixel. The
        pixels of a square become channels, and the channels of the last convolution become pixels again (sub-pixel
        convolution, Shi 2016). The cost falls by a factor of reduction**2, and the receptive field grows by a factor
        of reduction. 1 means no reduction.
    """

    def __init__(
        self,
        in_channels: int,
        classes: int,
        *,
        width: int = 64,
        depth: int = 4,
        padding: str = "valid",
        norm: str = "none",
        upsampling: str = "transposed",
        dropout: float = 0.5,
        reduction: int = 1,
        object_map: bool = False,
    ) -> None:
        super().__init__(
            in_channels,
            classes,
            of_unet(depth, padding, upsampling, reduction),
            object_map=object_map,
            channels_per_pixel=width / reduction**2,
            whole_image_norm=norm in ("instance", "group"),
        )
        self.reduction = reduction
        self.dropout = nn.Dropout(dropout)
        widths = [width * 2**level for level in range(depth + 1)]
        # A transposed convolution halves the number of channels, but bilinear up-sampling keeps this number.
        # So a block has half as many output channels before bilinear up-sampling as before a transposed convolution.
        passed_up = [w if upsampling == "transposed" else max(1, w // 2) for w in widths]
        bottom = [*widths[:-1], passed_up[-1]]
        ins = [in_channels * reduction**2, *widths[:-1]]
        self.down = nn.ModuleList(double_conv(i, o, o, padding, norm) for i, o in zip(ins, bottom, strict=True))
        self.up = nn.ModuleList()
        self.merge = nn.ModuleList()
        for level in reversed(range(depth)):
            below, here = passed_up[level + 1], widths[level]
            if upsampling == "transposed":
                self.up.append(nn.ConvTranspose2d(below, here, kernel_size=2, stride=2))
                below = here
            else:
                self.up.append(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False))
            out = here if level == 0 else passed_up[level]
            self.merge.append(double_conv(here + below, here, out, padding, norm))
        self.head = nn.Conv2d(width, self.out_channels * reduction**2, kernel_size=1)
        self.apply(initialise)
        with torch.no_grad():
            # All pixels of a square start alike, so there is no lattice to unlearn (Aitken 2017, "Checkerboard artifact
            # free sub-pixel convolution").
            start = self.head.weight[:: reduction**2]
            self.head.weight.copy_(start.repeat_interleave(reduction**2, dim=0))

    def logits(self, image: Tensor) -> Tensor:
        """Compute the logits for an image whose shape has been checked."""
        skips: list[Tensor] = []
        x = nn.functional.pixel_unshuffle(image, self.reduction)
        last = len(self.down) - 1
        for level, block in enumerate(self.down):
            x = block(x if level == 0 else nn.functional.max_pool2d(x, 2))
            if level >= last - 1:
                x = self.dropout(x)
            skips.append(x)
        skips.pop()
        for up, merge in zip(self.up, self.merge, strict=True):
            x = up(x)
            x = merge(torch.cat([centre_crop(skips.pop(), x.shape[2], x.shape[3]), x], dim=1))
        return nn.functional.pixel_shuffle(self.head(x), self.reduction)


def centre_crop(skip: Tensor, height: int, width: int) -> Tensor:
    """Crop `skip` (b, c, h, w) to the central `height` x `width`; the paper crops 4, 16, 40 and 88 px on each side."""
    top, left = (skip.shape[2] - height) // 2, (skip.shape[3] - width) // 2
    return skip[:, :, top : top + height, left : left + width]
