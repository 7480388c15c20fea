"""The U-Net of Ronneberger, Fischer and Brox (2015), with unpadded or padded convolutions.

Letters in shapes: b is the batch size, c the number of channels, h the height and w the width.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from .geometry import Geometry

TINY = 1e-6  # keeps the kernel finite if all its weights are equal
GROUPS = 8  # largest number of groups for norm = group; fewer groups if 8 does not divide the number of channels


class UNet(nn.Module):
    """U-Net with a contracting path, an expanding path and skip connections (copy and crop); the output is logits.

    ``UNet(1, 2, width=64, depth=4, padding="valid", norm="none")`` is the network of the paper, with
    31,030,658 parameters.

    Parameters
    ----------
    in_channels, classes:
        Number of channels of the image, and number of classes, with background as one class.
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
    object_map:
        Whether the network has one more output channel: the logit of the object map, see `Outputs`.
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
        super().__init__()
        self.in_channels, self.classes = in_channels, classes
        self.reduction, self.object_map = reduction, object_map
        self.geometry = Geometry(depth, padding, upsampling, reduction)
        self.whole_image_norm = norm in ("instance", "group")
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
        self.head = nn.Conv2d(width, (classes + object_map) * reduction**2, kernel_size=1)
        self.apply(initialise)
        with torch.no_grad():
            # All pixels of a square start alike, so there is no lattice to unlearn (Aitken 2017, "Checkerboard artifact
            # free sub-pixel convolution").
            start = self.head.weight[:: reduction**2]
            self.head.weight.copy_(start.repeat_interleave(reduction**2, dim=0))

    def forward(self, image: Tensor) -> Tensor:
        """Compute the logits (b, classes, h', w') for `image` (b, in_channels, h, w); the object map adds a channel.

        Raises
        ------
        SizeError
            The height or width of the image is not legal, see `Geometry.check`.
        ValueError
            `image` does not have four axes, or does not have `in_channels` channels.
        """
        if image.ndim != 4 or image.shape[1] != self.in_channels:
            raise ValueError(f"the network takes shape (b, {self.in_channels}, h, w), not {tuple(image.shape)}")
        for side in image.shape[2:]:
            self.geometry.check(side)
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


def double_conv(in_channels: int, mid_channels: int, out_channels: int, padding: str, norm: str) -> nn.Sequential:
    """Build two 3x3 convolutions, each followed by normalisation and ReLU."""
    layers: list[nn.Module] = []
    for i, o in ((in_channels, mid_channels), (mid_channels, out_channels)):
        of_values = norm not in ("none", "weight")
        kind = StandardisedConv2d if norm == "weight" else nn.Conv2d
        # A bias has no effect before a normalisation layer, because the layer subtracts the mean.
        layers.append(kind(i, o, kernel_size=3, padding=1 if padding == "same" else 0, bias=not of_values))
        if of_values:
            layers.append(normalisation(norm, o))
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


class StandardisedConv2d(nn.Conv2d):
    """Convolution whose kernel for each output channel has mean 0 and the standard deviation of `initialise`.

    So the scale of the values stays the same through the network, as with a norm of the values (weight standardisation,
    Qiao 2019; scaled as by Brock 2021). But nothing depends on other pixels or other images, so an image in tiles gives
    the same result as the whole image. A learned gain for each channel multiplies the kernel.
    """

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.gain = nn.Parameter(torch.ones(self.out_channels, 1, 1, 1))

    def kernel(self) -> Tensor:
        """Return the kernel (out_channels, in_channels, h, w) that the image is convolved with."""
        variance, mean = torch.var_mean(self.weight, dim=(1, 2, 3), correction=0, keepdim=True)
        fan_in = self.weight[0].numel()
        kernel: Tensor = (self.weight - mean) * torch.rsqrt(variance * fan_in + TINY) * (math.sqrt(2) * self.gain)
        return kernel

    def forward(self, x: Tensor) -> Tensor:
        """Convolve `x` (b, in_channels, h, w)."""
        convolved: Tensor = self._conv_forward(x, self.kernel(), self.bias)
        return convolved


def normalisation(norm: str, channels: int) -> nn.Module:
    """Build the normalisation layer for the setting `norm`, with learned scale and shift."""
    if norm == "batch":
        return nn.BatchNorm2d(channels)
    if norm == "instance":
        return nn.InstanceNorm2d(channels, affine=True)
    return nn.GroupNorm(math.gcd(GROUPS, channels), channels)


def centre_crop(skip: Tensor, height: int, width: int) -> Tensor:
    """Crop `skip` (b, c, h, w) to the central `height` x `width`; the paper crops 4, 16, 40 and 88 px on each side."""
    top, left = (skip.shape[2] - height) // 2, (skip.shape[3] - width) // 2
    return skip[:, :, top : top + height, left : left + width]


def initialise(module: nn.Module) -> None:
    """Initialise weights with samples from N(0, sqrt(2 / fan_in)), as in Ronneberger 2015, section 3.

    fan_in is the number of input values that contribute to one output value.
    """
    if isinstance(module, nn.Conv2d):
        fan_in = module.in_channels * module.kernel_size[0] * module.kernel_size[1]
    elif isinstance(module, nn.ConvTranspose2d):
        fan_in = module.in_channels  # stride equals kernel size, so each output pixel depends on one input pixel
    else:
        return
    nn.init.normal_(module.weight, std=math.sqrt(2 / fan_in))
    if module.bias is not None:
        nn.init.zeros_(module.bias)
