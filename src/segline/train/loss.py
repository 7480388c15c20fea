"""Compute weighted cross entropy and soft Dice from sums over all pixels."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional

from segline.data.dataset import IGNORE


@dataclass(frozen=True)
class LossSums:
    """Sums over pixels; method `loss` computes the loss from these sums. Sums of several batches can be added.

    ``cross_entropy``: sum of w(x) * -log p, and of the binary cross entropy of the object map if there is one.
    ``pixels``: number of pixels that are not IGNORE. ``overlap``, ``predicted``, ``true``: (K,), sums of p * t, of p
    and of t for each class.
    """

    cross_entropy: Tensor
    pixels: Tensor
    overlap: Tensor
    predicted: Tensor
    true: Tensor

    @classmethod
    def of(cls, logits: Tensor, target: Tensor, weights: Tensor, object_map: Tensor | None = None) -> Self:
        """Compute the sums over the pixels of a batch. Each pixel of `target` is a class id or IGNORE.

        The shape of `logits` is (b, K, h, w); the shape of `target`, `weights` and `object_map` is (b, h, w). With an
        object map, whose values are in 0...1, `logits` has one more channel.

        All sums are in float32, whatever the precision of the logits. The weighted cross entropy is equation 1
        of Ronneberger et al. 2015.
        """
        logits = logits.float()
        log_p = functional.log_softmax(logits if object_map is None else logits[:, :-1], dim=1)
        counts = target != IGNORE
        index = torch.where(counts, target, 0).long().unsqueeze(1)
        picked = log_p.gather(1, index).squeeze(1)
        p = log_p.exp() * counts.unsqueeze(1)
        true = torch.zeros_like(p).scatter_(1, index, counts.unsqueeze(1).to(p.dtype))
        pixels = (0, 2, 3)
        cross_entropy = -(weights * picked * counts).sum()
        if object_map is not None:
            cross_entropy += functional.binary_cross_entropy_with_logits(
                logits[:, -1], object_map, weight=counts.float(), reduction="sum"
            )
        return cls(
            cross_entropy=cross_entropy,
            pixels=counts.sum(),
            overlap=(p * true).sum(pixels),
            predicted=p.sum(pixels),
            true=true.sum(pixels),
        )

    def __add__(self, other: Self) -> Self:
        """Add two sets of sums."""
        return type(self)(*(a + b for a, b in zip(vars(self).values(), vars(other).values(), strict=True)))

    def loss(self, dice_weight: float) -> Tensor:
        """Return the mean weighted cross entropy + `dice_weight` * (1 - soft Dice).

        Soft Dice is the mean over the classes of (2 sum(p t) + 1) / (sum(p) + sum(t) + 1). Because of the 1, a class
        that is neither present nor predicted scores 1.
        """
        cross_entropy = self.cross_entropy / self.pixels.clamp(min=1)
        if dice_weight == 0:
            return cross_entropy
        dice = (2 * self.overlap + 1) / (self.predicted + self.true + 1)
        return cross_entropy + dice_weight * (1 - dice.mean())
