import itertools

import pytest
import torch
from torch import nn

from segline.model.geometry import of_unet
from segline.model.network import StandardisedConv2d
from segline.model.unet import UNet, centre_crop

NORMS = ["none", "weight", "batch", "instance", "group"]
OPTIONS = list(itertools.product(["valid", "same"], NORMS, ["transposed", "bilinear"]))


def paper_net() -> UNet:
    return UNet(1, 2, width=64, depth=4, padding="valid", norm="none", upsampling="transposed", dropout=0.5)


def test_the_paper_network_has_its_parameters_and_convolutions() -> None:
    network = paper_net()
    assert sum(p.numel() for p in network.parameters()) == 31_030_658
    assert sum(isinstance(m, nn.Conv2d | nn.ConvTranspose2d) for m in network.modules()) == 23


def test_the_paper_sizes_at_every_level() -> None:
    """Ronneberger 2015, fig. 1: 572, 568, 280, 136, 64, 28 down; 56 -> 52, 100, 196, 388 up; crops 4, 16, 40, 88."""
    network = UNet(1, 2, width=2, depth=4, padding="valid").eval()
    sizes: list[int] = []
    for block in (*network.down, *network.merge):
        block.register_forward_hook(lambda _m, _i, output: sizes.append(output.shape[-1]))
    with torch.no_grad():
        assert network(torch.zeros(1, 1, 572, 572)).shape == (1, 2, 388, 388)
    assert sizes == [568, 280, 136, 64, 28, 52, 100, 196, 388]
    down, up = sizes[:4], [2 * s for s in (28, 52, 100, 196)]
    assert [(d - u) // 2 for d, u in zip(reversed(down), up, strict=True)] == [4, 16, 40, 88]


def test_valid_padding_adds_no_pixels() -> None:
    assert all(m.padding == (0, 0) for m in paper_net().modules() if isinstance(m, nn.Conv2d))


@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("padding", ["valid", "same"])
def test_sizes_equal_those_of_the_layers(depth: int, padding: str) -> None:
    geometry = of_unet(depth, padding, "transposed")

    def walk(size: int) -> int | None:
        lost = 4 if padding == "valid" else 0
        skips = []
        for _ in range(depth):
            size -= lost
            if size <= 0 or size % 2:
                return None
            skips.append(size)
            size //= 2
        size -= lost
        while skips and size > 0:
            if size * 2 > skips.pop():
                return None
            size = size * 2 - lost
        return size if size > 0 else None

    for size in range(1, 700):
        expected = walk(size)
        assert geometry.legal(size) == (expected is not None), size
        if expected is not None:
            assert geometry.output(size) == expected


@pytest.mark.parametrize("depth", [1, 2, 4])
@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("upsampling", ["transposed", "bilinear"])
@pytest.mark.parametrize("reduction", [2, 4])
def test_a_reduction_multiplies_every_size(depth: int, padding: str, upsampling: str, reduction: int) -> None:
    plain, reduced = of_unet(depth, padding, upsampling), of_unet(depth, padding, upsampling, reduction)
    for name in ("stride", "margin", "fringe", "smallest"):
        assert getattr(reduced, name) == reduction * getattr(plain, name), name
    for size in range(1, 800):
        legal = size % reduction == 0 and plain.legal(size // reduction)
        assert reduced.legal(size) == legal
        if legal:
            assert reduced.output(size) == reduction * plain.output(size // reduction)
        assert reduced.at_least(size) == reduction * plain.at_least(-(-size // reduction))


def test_a_reduction_neither_loses_nor_moves_a_pixel() -> None:
    """An identity network returns an image in which each of the sixteen pixels of a block has its own value."""
    network = UNet(1, 2, width=16, depth=1, padding="same", dropout=0.0, reduction=4).eval()
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                module.weight.zero_()
        for convolution in (network.down[0][0], network.down[0][2], network.merge[0][0], network.merge[0][2]):
            convolution.weight[range(16), range(16), 1, 1] = 1
        network.head.weight[range(16, 32), range(16), 0, 0] = 1
        image = torch.rand(1, 1, 16, 24)
        assert torch.equal(network(image)[:, 1:], image)


def test_a_standardised_kernel_has_mean_0_and_the_scale_of_the_paper() -> None:
    """Ronneberger 2015: weights have the standard deviation sqrt(2 / N), where N input values make an output value."""
    convolution = StandardisedConv2d(5, 7, kernel_size=3)
    image = torch.rand(1, 5, 8, 8)
    with torch.no_grad():
        kernel, before = convolution.kernel().flatten(1), convolution(image)
        torch.testing.assert_close(kernel.mean(1), torch.zeros(7), atol=1e-6, rtol=0)
        torch.testing.assert_close(kernel.std(1, correction=0), torch.full((7,), (2 / 45) ** 0.5))
        convolution.weight.mul_(20).add_(3)  # neither changes the kernel
        torch.testing.assert_close(convolution(image), before, atol=1e-4, rtol=1e-4)
        convolution.gain[2] = 4
        torch.testing.assert_close(convolution.kernel()[2].flatten(), 4 * kernel[2], atol=1e-4, rtol=1e-4)
        convolution.weight.fill_(0.3)  # nothing to standardise
        assert convolution.kernel().abs().max() < 1e-2


@pytest.mark.parametrize("reduction", [1, 2, 4])
def test_an_untrained_network_draws_no_lattice(reduction: int) -> None:
    network = UNet(1, 3, width=4, depth=1, padding="same", dropout=0.0, reduction=reduction, object_map=True).eval()
    with torch.no_grad():
        output = network(torch.rand(1, 1, 16, 24))
    assert output.unique().numel() > 4
    corners = output[:, :, ::reduction, ::reduction]
    assert torch.equal(output, corners.repeat_interleave(reduction, 2).repeat_interleave(reduction, 3))


@pytest.mark.parametrize(
    ("size", "words"), [(512, "508 or 524"), (571, "556 or 572"), (100, "use 188 px"), (1, "use 188 px")]
)
def test_an_illegal_size_is_refused_with_the_nearest_legal_ones(size: int, words: str) -> None:
    network = UNet(1, 2, width=1, padding="valid")
    with pytest.raises(ValueError, match=words):
        network(torch.zeros(1, 1, size, 572))
    with pytest.raises(ValueError, match="16k"):
        UNet(1, 2, width=1, padding="same")(torch.zeros(1, 1, 100, 112))


@pytest.mark.parametrize(("padding", "norm", "upsampling"), OPTIONS)
def test_every_combination_of_options_trains(padding: str, norm: str, upsampling: str) -> None:
    network = UNet(3, 5, width=3, depth=2, padding=padding, norm=norm, upsampling=upsampling, dropout=0.1)
    size = network.geometry.at_least(60)
    logits = network(torch.randn(2, 3, size, size + network.geometry.stride))
    output = network.geometry.output(size)
    assert logits.shape == (2, 5, output, output + network.geometry.stride)
    logits.square().mean().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in network.parameters())


def test_weights_are_drawn_with_the_variance_of_he() -> None:
    torch.manual_seed(0)
    network = UNet(1, 2, width=32, depth=3, padding="valid")
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.weight.numel() > 5000:
            fan_in = module.in_channels * module.kernel_size[0] * module.kernel_size[1]
            assert module.weight.std().item() == pytest.approx((2 / fan_in) ** 0.5, rel=0.03)
        if isinstance(module, nn.ConvTranspose2d):
            assert module.weight.std().item() == pytest.approx((2 / module.in_channels) ** 0.5, rel=0.03)


def test_activations_keep_their_variance_through_the_network() -> None:
    torch.manual_seed(0)
    network = UNet(1, 2, width=16, depth=4, padding="same", dropout=0.0).eval()
    with torch.no_grad():
        logits = network(torch.randn(1, 1, 128, 128))
    assert 0.1 < logits.std().item() < 20


def test_the_skip_is_cropped_at_its_centre() -> None:
    skip = torch.arange(49.0).reshape(1, 1, 7, 7)
    assert torch.equal(centre_crop(skip, 3, 5), skip[:, :, 2:5, 1:6])


def test_wrong_channels_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(b, 1, h, w\), not \(1, 3, 188, 188\)"):
        UNet(1, 2, width=1)(torch.zeros(1, 3, 188, 188))


@pytest.mark.parametrize("reduction", [1, 2])
@pytest.mark.parametrize(("padding", "norm", "upsampling"), [o for o in OPTIONS if o[1] in ("none", "weight", "batch")])
def test_the_fringe_is_exactly_the_part_that_an_artificial_border_changes(
    padding: str, norm: str, upsampling: str, reduction: int
) -> None:
    """Naive oracle: cut a window from a larger image and compare its output with that of the larger image."""
    torch.manual_seed(0)
    options = {"padding": padding, "norm": norm, "upsampling": upsampling, "reduction": reduction}
    network = UNet(1, 2, width=4, depth=2, dropout=0.0, **options).eval()
    network.double()
    geometry = network.geometry
    size, shift = geometry.at_least(120), 16 * geometry.stride
    image = torch.randn(1, 1, *[geometry.at_least(size + 2 * shift)] * 2, dtype=torch.float64)
    with torch.no_grad():
        whole = network(image)
        part = network(image[:, :, shift : shift + size, shift : shift + size])
    n = part.shape[-1]
    wrong = (part - whole[:, :, shift : shift + n, shift : shift + n]).abs().amax(dim=(0, 1)) > 1e-12
    f = geometry.fringe
    assert not wrong[f : n - f, f : n - f].any()
    if f:
        e = f - reduction
        inner = wrong[e : n - e, e : n - e]
        assert inner[0].any() or inner[-1].any() or inner[:, 0].any() or inner[:, -1].any()
