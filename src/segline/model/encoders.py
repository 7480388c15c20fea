"""The convolutional parts of VGG (Simonyan 2015) and ResNet (He 2016), which can replace a U-Net's contracting path.

Tensors have the names of torchvision, so that files of pretrained weights fit. All convolutions are padded, so that a
level with stride s of an image of h x w px has h/s x w/s values, where h and w are multiples of the largest stride.
"""

from typing import Any

from torch import Tensor, nn

from .geometry import EXPANSION, RESNET, RESNET_CHANNELS, VGG, VGG_CHANNELS, levels


class Encoder(nn.Module):
    """Base class of the encoders; see `geometry.levels` about the levels."""

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return the values (b, c, h, w) of each level of `image` (b, c, h, w); an empty tensor if there are none."""
        raise NotImplementedError


class VGGEncoder(Encoder):
    """3x3 convolutions and ReLU; 2x2 max pooling between two levels.

    Parameters
    ----------
    name:
        ``vgg11`` or ``vgg16``.
    in_channels:
        Number of channels of the image.
    depth:
        The last level; the encoder ends there.
    norm:
        ``batch``: batch norm after each convolution, as in torchvision's vgg16_bn; ``none``: as in vgg16.
    """

    def __init__(self, name: str, in_channels: int, depth: int, norm: str) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for level, (number, channels) in enumerate(zip(VGG[name], VGG_CHANNELS, strict=True)):
            if level > depth:
                break
            for _ in range(number):
                layers.append(nn.Conv2d(in_channels, channels, kernel_size=3, padding=1))
                if norm == "batch":
                    layers.append(nn.BatchNorm2d(channels))
                layers.append(nn.ReLU(inplace=True))
                in_channels = channels
            if level < depth:
                layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return the values of each level."""
        levels, x = [], image
        for layer in self.features:
            if isinstance(layer, nn.MaxPool2d):
                levels.append(x)
            x = layer(x)
        return [*levels, x]


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with batch norm; the block's input is added to their result."""

    expansion = 1

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, kernel_size=3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, kernel_size=3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _projection(in_channels, channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Compute the result (b, c, h / stride, w / stride) for `x` (b, c, h, w)."""
        residual = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        total: Tensor = self.relu(residual + (x if self.downsample is None else self.downsample(x)))
        return total


class Bottleneck(nn.Module):
    """A 3x3 convolution between two 1x1 convolutions that reduce and restore the number of channels.

    The 3x3 convolution has the stride of the block, as in torchvision; He 2016 gave the stride to the first 1x1.
    """

    expansion = EXPANSION

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        out = channels * self.expansion
        self.conv1 = nn.Conv2d(in_channels, channels, kernel_size=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, kernel_size=3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, out, kernel_size=1, bias=False)
        self.bn3 = nn.BatchNorm2d(out)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _projection(in_channels, out, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Compute the result (b, c, h / stride, w / stride) for `x` (b, c, h, w)."""
        narrow = self.relu(self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x))))))
        residual = self.bn3(self.conv3(narrow))
        total: Tensor = self.relu(residual + (x if self.downsample is None else self.downsample(x)))
        return total


def _projection(in_channels: int, out_channels: int, stride: int) -> nn.Sequential | None:
    """Build the 1x1 convolution that gives a block's input the shape of its result; None if the shapes are equal."""
    if stride == 1 and in_channels == out_channels:
        return None
    convolution = nn.Conv2d(in_channels, out_channels, kernel_size=1, stride=stride, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(out_channels))


class ResNetEncoder(Encoder):
    """A 7x7 convolution with stride 2, 3x3 max pooling with stride 2, and four layers of residual blocks.

    Parameters
    ----------
    name:
        ``resnet18``, ``resnet34`` or ``resnet50``.
    in_channels:
        Number of channels of the image.
    depth:
        The last level; the encoder ends there.
    """

    def __init__(self, name: str, in_channels: int, depth: int) -> None:
        super().__init__()
        block: type[Any] = Bottleneck if name == "resnet50" else BasicBlock
        channels = RESNET_CHANNELS[0]
        self.conv1 = nn.Conv2d(in_channels, channels, kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layers = [f"layer{number}" for number in range(1, depth)]
        for number, (layer, blocks, width) in enumerate(zip(self.layers, RESNET[name], RESNET_CHANNELS, strict=False)):
            first = block(channels, width, 1 if number == 0 else 2)
            channels = width * block.expansion
            self.add_module(layer, nn.Sequential(first, *(block(channels, width, 1) for _ in range(blocks - 1))))

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return the values of each level."""
        levels = [image[:, :0], self.relu(self.bn1(self.conv1(image)))]
        for layer in self.layers:
            x = self.maxpool(levels[-1]) if layer == self.layers[0] else levels[-1]
            levels.append(getattr(self, layer)(x))
        return levels


def build(name: str, in_channels: int, depth: int, norm: str) -> Encoder:
    """Build the encoder `name` with random weights, from the image to level `depth`."""
    return VGGEncoder(name, in_channels, depth, norm) if name in VGG else ResNetEncoder(name, in_channels, depth)


def channels_per_pixel(name: str, depth: int) -> float:
    """Return the largest number of channels at a level of an encoder per input pixel, see `Network`."""
    return max(level.channels / float(4**number) for number, level in enumerate(levels(name, depth)))
