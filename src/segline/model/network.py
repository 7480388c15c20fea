"""What all networks have in common, and the layers that they are built from."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from .geometry import Geometry

TINY = 1e-6  # keeps the kernel finite if all its weights are equal
GROUPS = 8  # largest number of groups for norm = group; fewer groups if 8 does not divide the number of channels


class Network(nn.Module):
    """Base class of the networks. A subclass computes logits with the method ``logits``.

    Parameters
    ----------
    in_channels, classes:
        Number of channels of the image, and number of classes, with background as one class.
    geometry:
        The sizes that the network needs.
    object_map:
        Whether the network has one more output channel: the logit of the object map, see `Outputs`.
    channels_per_pixel:
        Largest number of channels at a level of the network, divided by the number of input pixels for each of its
        pixels. The memory that a forward pass needs is proportional to it.
    whole_image_norm:
        Whether a normalisation layer depends on all pixels, so that an image cannot be predicted in windows.
    """

    def __init__(
        self,
        in_channels: int,
        classes: int,
        geometry: Geometry,
        *,
        object_map: bool,
        channels_per_pixel: float,
        whole_image_norm: bool = False,
    ) -> None:
        super().__init__()
        self.in_channels, self.classes, self.object_map = in_channels, classes, object_map
        self.geometry, self.channels_per_pixel, self.whole_image_norm = geometry, channels_per_pixel, whole_image_norm

    @property
    def out_channels(self) -> int:
        """Number of output channels: one for each class, and one for the object map if the network predicts it."""
        return self.classes + self.object_map

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
        return self.logits(image)

    def logits(self, image: Tensor) -> Tensor:
        """Compute the logits for an image whose shape has been checked."""
        raise NotImplementedError


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
