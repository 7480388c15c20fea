"""Compute the sizes that a U-Net needs: legal input sizes, output size, stride and context."""

from dataclasses import dataclass


class SizeError(ValueError):
    """Raised for an input size that does not fit the network; the message names the nearest legal sizes."""


@dataclass(frozen=True)
class Geometry:
    """Size arithmetic for a U-Net with `depth` 2x2 poolings and two 3x3 convolutions at each level.

    All sizes are in px along one axis. The network of the paper is ``Geometry(4, "valid", "transposed")``: input 572,
    output 388, and 92 px of context on each side (Ronneberger 2015, fig. 1). `reduction` is the space-to-depth factor.
    The network processes a block of `reduction` x `reduction` pixels as one pixel, so `reduction` multiplies all sizes.
    """

    depth: int
    padding: str
    upsampling: str
    reduction: int = 1

    @property
    def stride(self) -> int:
        """Stride, px; if the input moves by a multiple of the stride, the output moves by the same distance."""
        return self.reduction << self.depth

    @property
    def margin(self) -> int:
        """Number of pixels by which the output is smaller than the input, on each side."""
        return 0 if self.padding == "same" else 6 * self.stride - 4 * self.reduction

    @property
    def fringe(self) -> int:
        """Width, px, of a strip along each edge of the output; the border of the input affects only these strips.

        If the input is cut out of a larger image, only these strips differ from the output for the larger image.

        The effect of zero padding spreads inwards from the border of a tile. Bilinear up-sampling repeats the edge.
        Unpadded convolutions with transposed up-sampling have no fringe.
        """
        padding = 2 if self.padding == "same" else 0
        skips = [0]
        for _ in range(self.depth):
            skips.append(-(-(skips[-1] + padding) // 2))
        fringe = skips.pop() + padding
        spread = 1 if self.upsampling == "bilinear" else 0
        while skips:
            fringe = max(2 * fringe + spread, skips.pop() + padding) + padding
        return self.reduction * fringe

    @property
    def smallest(self) -> int:
        """Smallest legal input size, px."""
        if self.padding == "same":
            return self.stride
        bottom = next(side for side in range(1, 5) if (side - 4 << self.depth) + 4 >= 1)
        return self.stride * bottom + 2 * self.margin - 4 * (self.stride - self.reduction)

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
        rest = 0 if self.padding == "same" else 4 * (self.stride - self.reduction)
        rule = f"{self.stride}k + {rest}" if rest else f"{self.stride}k"
        reduced = "" if self.reduction == 1 else f" and reduction {self.reduction}"
        raise SizeError(
            f"{name} {size} px does not fit {self.padding} padding at depth {self.depth}{reduced}; a legal size is "
            f"at least {self.smallest} px and has the form {rule}, where k is a whole number; use {nearest} px"
        )
