"""Sizes that a network needs: legal input sizes, output size, stride and context."""

from dataclasses import dataclass
from math import ceil
from typing import Any

VGG = {"vgg11": (1, 1, 2, 2, 2), "vgg16": (2, 2, 3, 3, 3)}  # number of 3x3 convolutions before each pooling
VGG_CHANNELS = (64, 128, 256, 512, 512)  # number of channels before each pooling
RESNET = {"resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3), "resnet50": (3, 4, 6, 3)}  # blocks of each layer
RESNET_CHANNELS = (64, 128, 256, 512)  # number of channels of each layer, before the expansion of a bottleneck block
EXPANSION = 4  # of a bottleneck block
ENCODERS = (*VGG, *RESNET)
DEEPEST = 5  # number of times that a whole encoder halves the sides of the image
FINEST = {"fcn32s": 5, "fcn16s": 4, "fcn8s": 3}  # finest level whose scores an FCN adds


class SizeError(ValueError):
    """Raised for an input size that does not fit the network; the message names the nearest legal sizes."""


@dataclass(frozen=True)
class Geometry:
    """Sizes of a network, in px along one axis.

    ``stride`` : if the input moves by a multiple of the stride, the output moves by the same distance.

    ``margin`` : number of pixels by which the output is smaller than the input, on each side; 0 for padded
    convolutions.

    ``fringe`` : width of a strip along each edge of the output; the border of the input affects only these strips. So
    if the input is cut out of a larger image, only these strips differ from the output for the larger image. The effect
    of padding spreads inwards from the border of a tile, and bilinear up-sampling repeats the edge. Unpadded
    convolutions with transposed up-sampling have no fringe.

    ``smallest`` : smallest legal input size. The other legal sizes are larger by a multiple of the stride.

    ``network`` : what requires these sizes, for messages, such as "valid padding at depth 4".

    ``form`` : formula of the legal sizes, for messages, such as "16k + 60".
    """

    stride: int
    margin: int
    fringe: int
    smallest: int
    network: str
    form: str

    def legal(self, size: int) -> bool:
        """Return whether `size` px is a legal input size: large enough, and divisible by 2 at every pooling."""
        return size >= self.smallest and (size - self.smallest) % self.stride == 0

    def at_least(self, size: int) -> int:
        """Return the smallest legal input size, px, that is at least `size`."""
        return self.smallest + max(0, -(-(size - self.smallest) // self.stride)) * self.stride

    def output(self, size: int) -> int:
        """Return the output size, px, for an input of `size` px.

        Raises
        ------
        SizeError
            `size` is not legal; the message names the nearest legal sizes.
        """
        self.check(size)
        return size - 2 * self.margin

    def check(self, size: int, name: str = "input size") -> None:
        """Raise SizeError if `size` is not legal; the message names the nearest legal sizes."""
        if self.legal(size):
            return
        above = self.at_least(size)
        below = above - self.stride
        nearest = f"{below} or {above}" if below >= self.smallest else f"{above}"
        raise SizeError(
            f"{name} {size} px does not fit {self.network}; a legal size is at least {self.smallest} px and has the "
            f"form {self.form}, where k is a whole number; use {nearest} px"
        )


def of_unet(depth: int, padding: str, upsampling: str, reduction: int = 1) -> Geometry:
    """Return the sizes of a U-Net with `depth` 2x2 poolings and two 3x3 convolutions at each level.

    The network of the paper is ``of_unet(4, "valid", "transposed")``: input 572, output 388, and 92 px of context on
    each side (Ronneberger 2015, fig. 1). `reduction` is the space-to-depth factor: the network processes a block of
    `reduction` x `reduction` pixels as one pixel, so `reduction` multiplies all sizes.
    """
    stride = reduction << depth
    name = f"{padding} padding at depth {depth}" + ("" if reduction == 1 else f" and reduction {reduction}")
    padded = 2 if padding == "same" else 0
    down = [padded]
    for _ in range(depth):
        down.append(-(-down[-1] // 2) + padded)
    fringe = reduction * expanded(down, padded, upsampling)
    if padding == "same":
        return Geometry(stride, 0, fringe, stride, name, f"{stride}k")
    margin, rest = 6 * stride - 4 * reduction, 4 * (stride - reduction)
    bottom = next(side for side in range(1, 5) if (side - 4 << depth) + 4 >= 1)
    return Geometry(stride, margin, fringe, stride * bottom + 2 * margin - rest, name, f"{stride}k + {rest}")


def of(*, name: str = "unet", **settings: Any) -> Geometry:
    """Return the sizes of the network with these settings, see `nets.build`."""
    if name != "unet":
        return of_fcn(name, settings["encoder"])
    if "encoder" in settings:
        return of_encoder_unet(*(settings[key] for key in ("encoder", "depth", "upsampling")))
    return of_unet(*(settings[key] for key in ("depth", "padding", "upsampling", "reduction")))


def of_encoder_unet(encoder: str, depth: int, upsampling: str) -> Geometry:
    """Return the sizes of a U-Net whose contracting path is `encoder` down to level `depth`."""
    down = [level.fringe for level in levels(encoder, depth)]
    return _padded(depth, expanded(down, 2, upsampling), f"encoder {encoder} at depth {depth}")


def of_fcn(name: str, encoder: str) -> Geometry:
    """Return the sizes of a fully convolutional network with padded convolutions."""
    down = [level.fringe for level in levels(encoder)]
    fringe = down[-1] + (3 if encoder in VGG else 0)  # 3: VGG's first dense layer is a 7x7 convolution
    finest = FINEST[name]
    for level in reversed(range(finest, DEEPEST)):
        fringe = max(_enlarged(fringe, 2), down[level])
    return _padded(DEEPEST, _enlarged(fringe, 2**finest), f"{name} with encoder {encoder}")


def _padded(depth: int, fringe: int, network: str) -> Geometry:
    """Return the sizes of a network with padded convolutions that halves the sides `depth` times."""
    stride = 1 << depth
    return Geometry(stride, 0, fringe, stride, network, f"{stride}k")


def _enlarged(fringe: int, factor: int) -> int:
    """Return the fringe, px, after a transposed convolution with a kernel of 2 * `factor` and stride `factor`."""
    return fringe * factor + factor // 2


@dataclass(frozen=True)
class EncoderLevel:
    """A level of an encoder. Level n has 1/2**n of the image's resolution.

    ``channels`` : number of channels; 0 if the encoder has no values of this resolution.

    ``fringe`` : see `Geometry`; in pixels of the level.
    """

    channels: int
    fringe: int


def levels(encoder: str, depth: int = DEEPEST) -> list[EncoderLevel]:
    """Return the levels 0 to `depth` of an encoder.

    In a VGG, the values of a level are those before its pooling; level 5 has the values after the last pooling. In a
    ResNet, level 1 has the values of the first convolution, and levels 2 to 5 those of the four layers.
    """
    if encoder in VGG:
        fringes = [0]
        for convolutions in VGG[encoder]:
            fringes[-1] += convolutions
            fringes.append(ceil(fringes[-1] / 2))
        channels = [*VGG_CHANNELS, VGG_CHANNELS[-1]]
    else:
        bottleneck = encoder == "resnet50"
        fringes = [0, 2]  # the 7x7 convolution reads 3 px beyond the border, and halves the sides
        for number, blocks in enumerate(RESNET[encoder]):
            # A pooling halves the sides before the first layer. In later layers, the first 3x3 convolution does so.
            convolutions = blocks * (1 if bottleneck else 2) - (1 if number else 0)
            fringes.append(ceil((fringes[-1] + 1) / 2) + convolutions)
        channels = [0, 64, *((EXPANSION if bottleneck else 1) * number for number in RESNET_CHANNELS)]
    return [EncoderLevel(*level) for level in zip(channels, fringes, strict=True)][: depth + 1]


def expanded(down: list[int], convolved: int, upsampling: str) -> int:
    """Return the fringe of the output of an expanding path, px.

    `down` : the fringe at each level of the contracting path, in pixels of this level, from the first level to the
    lowest. `convolved` : number of pixels by which the convolutions of a level widen the fringe.
    """
    spread = 1 if upsampling == "bilinear" else 0
    *skips, fringe = down
    for skip in reversed(skips):
        fringe = max(2 * fringe + spread, skip) + convolved
    return fringe
