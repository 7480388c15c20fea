"""Fully convolutional networks (Long 2015): the dense layers of a classifier become convolutions that give scores.

FCN-32s enlarges the scores of the lowest level 32 times. FCN-16s and FCN-8s first add the scores of the levels above.
"""

import torch
from torch import Tensor, nn

from . import encoders
from .geometry import DEEPEST, FINEST, VGG, levels, of_fcn
from .network import Network, initialise

HIDDEN = 4096  # channels of VGG's two dense layers


class FCN(Network):
    """Fully convolutional network with padded convolutions.

    With VGG, the lowest level passes through the two dense layers of VGG, as a 7x7 and a 1x1 convolution. The 1x1
    convolution of the scores of the lowest level has the shape of the classifier's last dense layer.

    Parameters
    ----------
    in_channels, classes, object_map:
        See `Network`.
    name:
        A key of `geometry.FINEST`.
    encoder:
        A key of `geometry.VGG` or `geometry.RESNET`.
    norm:
        ``batch`` or ``none``, after each convolution of a VGG; a ResNet always has batch norm.
    dropout:
        Dropout probability after each dense layer of VGG, or at the lowest level of a ResNet.
    """

    def __init__(
        self,
        in_channels: int,
        classes: int,
        *,
        name: str,
        encoder: str,
        norm: str = "none",
        dropout: float = 0.5,
        object_map: bool = False,
    ) -> None:
        super().__init__(
            in_channels,
            classes,
            of_fcn(name, encoder),
            object_map=object_map,
            channels_per_pixel=max(encoders.channels_per_pixel(encoder, DEEPEST), classes + object_map),
        )
        self.encoder = encoders.build(encoder, in_channels, DEEPEST, norm)
        channels = [level.channels for level in levels(encoder)]
        lowest = channels[-1]
        self.classifier = nn.Sequential(nn.Dropout(dropout))
        if encoder in VGG:
            hidden = nn.Conv2d(lowest, HIDDEN, kernel_size=7, padding=3), nn.Conv2d(HIDDEN, HIDDEN, kernel_size=1)
            layers = [[convolution, nn.ReLU(inplace=True), nn.Dropout(dropout)] for convolution in hidden]
            self.classifier = nn.Sequential(*layers[0], *layers[1])
            lowest = HIDDEN
        finest, out = FINEST[name], self.out_channels
        scored = [lowest, *reversed(channels[finest:-1])]
        self.score = nn.ModuleList(nn.Conv2d(number, out, kernel_size=1) for number in scored)
        factors = [2] * (len(scored) - 1) + [2**finest]
        self.up = nn.ModuleList(_enlargement(out, factor) for factor in factors)
        self.apply(initialise)
        with torch.no_grad():
            for layer in self.up:
                assert isinstance(layer, nn.ConvTranspose2d)
                layer.weight.copy_(bilinear(out, layer.stride[0]))

    def logits(self, image: Tensor) -> Tensor:
        """Compute the logits for an image whose shape has been checked."""
        levels = self.encoder(image)
        levels[-1] = self.classifier(levels[-1])
        x = self.score[0](levels[-1])
        for number, up in enumerate(self.up):
            x = up(x)
            if number + 1 < len(self.score):
                x = x + self.score[number + 1](levels[-2 - number])
        logits: Tensor = x
        return logits


def _enlargement(channels: int, factor: int) -> nn.ConvTranspose2d:
    """Build a transposed convolution that enlarges by `factor`."""
    return nn.ConvTranspose2d(
        channels, channels, kernel_size=2 * factor, stride=factor, padding=factor // 2, bias=False
    )


def bilinear(channels: int, factor: int) -> Tensor:
    """Return the weights (channels, channels, 2 * factor, 2 * factor) that enlarge each channel by interpolation."""
    distance = (torch.arange(2 * factor) - (factor - 0.5)).abs() / factor
    line = 1 - distance
    return torch.eye(channels)[:, :, None, None] * (line[:, None] * line[None, :])
