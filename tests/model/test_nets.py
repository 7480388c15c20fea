"""Networks with an encoder: published numbers of parameters, names of tensors, and the law that tiled equals whole."""

import numpy as np
import pytest
import torch
from torch import nn

from segline.model import fcn, nets, tiling
from segline.model.encoders import BasicBlock, VGGEncoder
from segline.model.geometry import ENCODERS, FINEST, of
from segline.model.inference import Description, Inference, Predictor
from segline.model.network import Network
from segline.model.normalisation import Statistics

# Simonyan 2015, table 2 (133 and 138 million); He 2016 as implemented in torchvision; ImageNet has 1000 classes.
PUBLISHED = {
    "vgg11": 132_863_336,
    "vgg16": 138_357_544,
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
}
# Number of tensors of torchvision's networks without the last dense layer, and the name and shape of the last kernel.
TORCHVISION = {
    ("vgg11", "none"): (16, "features.18.weight", (512, 512, 3, 3)),
    ("vgg16", "none"): (26, "features.28.weight", (512, 512, 3, 3)),
    ("vgg16", "batch"): (91, "features.40.weight", (512, 512, 3, 3)),
    ("resnet18", "batch"): (120, "layer4.1.conv2.weight", (512, 512, 3, 3)),
    ("resnet34", "batch"): (216, "layer4.2.conv2.weight", (512, 512, 3, 3)),
    ("resnet50", "batch"): (318, "layer4.2.conv3.weight", (2048, 512, 1, 1)),
}
UNETS = [
    {"encoder": encoder, "depth": depth, "upsampling": upsampling, "width": 2}
    for encoder in ENCODERS
    for depth, upsampling in ((2, "transposed"), (3, "bilinear"), (5, "transposed"))
]
FCNS = [{"name": name, "encoder": encoder, "norm": "batch"} for name in FINEST for encoder in ENCODERS]


def named(network: dict[str, object]) -> str:
    return "-".join(str(value) for value in network.values())


def build(monkeypatch: pytest.MonkeyPatch, **network: object) -> Network:
    """Build a network in evaluation mode with few channels in the dense layers, and batch norm that does something."""
    monkeypatch.setattr(fcn, "HIDDEN", 8)
    torch.manual_seed(0)
    subject = nets.build(1, 2, **network).eval()
    for module in subject.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2)
    return subject


@pytest.mark.parametrize("encoder", ENCODERS)
def test_an_fcn_with_1000_classes_has_the_parameters_of_the_published_classifier(encoder: str) -> None:
    with torch.device("meta"):
        network = nets.build(3, 1000, name="fcn32s", encoder=encoder)
    counts = {name: parameter.numel() for name, parameter in network.named_parameters()}
    assert sum(number for name, number in counts.items() if not name.startswith("up.")) == PUBLISHED[encoder]


@pytest.mark.parametrize(("encoder", "norm"), TORCHVISION)
def test_an_encoder_has_the_tensors_of_torchvision(encoder: str, norm: str) -> None:
    with torch.device("meta"):
        network = nets.build(3, 2, name="fcn8s", encoder=encoder, norm=norm)
    tensors = {name: tuple(tensor.shape) for name, tensor in network.encoder.state_dict().items()}
    number, last, shape = TORCHVISION[encoder, norm]
    assert len(tensors) == number
    assert tensors[last] == shape
    assert [name for name in tensors if tensors[name] == shape][-1] == last


def test_a_block_adds_its_input() -> None:
    block = BasicBlock(8, 8, 1).eval()
    x = torch.randn(1, 8, 5, 6)
    with torch.no_grad():
        block.bn2.weight.zero_()
        assert torch.equal(block(x), x.relu())
    assert BasicBlock(8, 16, 2)(x).shape == (1, 16, 3, 3)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_levels_have_the_channels_and_sizes_of_the_papers(encoder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Simonyan 2015, table 1; He 2016, table 1: an image of 224 px has levels of 112, 56, 28, 14 and 7 px."""
    network = build(monkeypatch, encoder=encoder, depth=5, upsampling="transposed", norm="batch")
    with torch.no_grad():
        levels = network.encoder(torch.zeros(1, 1, 224, 224))
    assert [level.shape[-1] for level in levels] == [224, 112, 56, 28, 14, 7]
    wide = {"vgg": [64, 128, 256, 512, 512, 512], "resnet": [0, 64, 64, 128, 256, 512]}[encoder.rstrip("0123456789")]
    if encoder == "resnet50":
        wide[2:] = [256, 512, 1024, 2048]
    assert [level.shape[1] for level in levels] == wide


def test_a_vgg_has_the_layers_of_its_paper() -> None:
    """Simonyan 2015, table 1, configuration A: 64, pool, 128, pool, 256, 256, pool, 512, 512, pool, 512, 512, pool."""
    layers = VGGEncoder("vgg11", 3, 5, "none").features
    kinds = [layer.out_channels if isinstance(layer, nn.Conv2d) else "pool" for layer in layers if not relu(layer)]
    assert kinds == [64, "pool", 128, "pool", 256, 256, "pool", 512, 512, "pool", 512, 512, "pool"]


def relu(layer: nn.Module) -> bool:
    return isinstance(layer, nn.ReLU)


@pytest.mark.parametrize("settings", [*UNETS, *FCNS], ids=named)
def test_a_strip_in_tiles_equals_the_whole_strip(settings: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    network = build(monkeypatch, **settings)
    sizes = network.geometry
    assert sizes == of(**{"norm": "batch", **settings})
    length = tiling.smallest(sizes) + 5 * sizes.stride
    strip = torch.rand(1, 1, sizes.stride, length)
    spans = tiling.plan(length, tiling.smallest(sizes), sizes)
    assert len(spans) > 2
    with torch.no_grad():
        whole = network(strip)
        tiled = torch.cat([network(strip[..., s.start : s.stop])[..., s.kept] for s in spans], dim=-1)
    assert (whole - tiled).abs().max() <= 1e-5 * whole.abs().max()


@pytest.mark.parametrize(
    "settings", [{"encoder": "resnet18", "depth": 2}, {"encoder": "vgg11", "depth": 2}], ids=lambda s: s["encoder"]
)
def test_an_image_in_tiles_has_the_probabilities_of_the_whole_image(
    settings: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    network = build(monkeypatch, **settings, upsampling="transposed", width=4)
    what = Description({}, {0: "background", 1: "cell"}, "classes", Statistics("uint8", 1, (0.5,), (0.25,)))
    raw = np.random.default_rng(0).integers(0, 256, (150, 131, 1), dtype=np.uint8)
    side = tiling.smallest(network.geometry)
    whole, tiled = (Predictor(network, what, Inference(tile=tile)).probabilities(raw) for tile in (0, side))
    assert np.abs(whole - tiled).max() <= 1e-5


@pytest.mark.parametrize("factor", [2, 8, 32])
def test_an_fcn_starts_with_bilinear_enlargement(factor: int) -> None:
    """The judge is torch's interpolation, away from the edges, which interpolation repeats."""
    layer = fcn._enlargement(3, factor)
    layer.weight.data.copy_(fcn.bilinear(3, factor))
    scores = torch.rand(1, 3, 6, 7)
    with torch.no_grad():
        enlarged = layer(scores)
    expected = nn.functional.interpolate(scores, scale_factor=factor, mode="bilinear", align_corners=False)
    inner = (..., slice(factor, -factor), slice(factor, -factor))
    torch.testing.assert_close(enlarged[inner], expected[inner])
    assert enlarged.shape == expected.shape


@pytest.mark.parametrize("name", FINEST)
def test_an_fcn_adds_the_scores_of_its_levels(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A level whose scores are an impulse shows in the output only if the network adds this level."""
    network = build(monkeypatch, name=name, encoder="resnet18", norm="batch")
    changed = []
    image = torch.rand(1, 1, 64, 64)
    with torch.no_grad():
        before = network(image)
        for number, score in enumerate(network.score):
            score.bias += 1
            changed.append((number, not torch.allclose(network(image), before)))
            score.bias -= 1
    assert changed == [(number, True) for number in range({"fcn32s": 1, "fcn16s": 2, "fcn8s": 3}[name])]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"encoder": "resnet34", "depth": 5, "upsampling": "transposed"},
            "encoder resnet34 at depth 5.*32k.*use 96 or",
        ),
        ({"name": "fcn8s", "encoder": "vgg11"}, "fcn8s with encoder vgg11.*32k.*use 96 or 128 px"),
    ],
    ids=["unet", "fcn"],
)
def test_an_illegal_size_is_refused_with_the_nearest_legal_ones(settings: dict[str, object], words: str) -> None:
    with torch.device("meta"):
        network = nets.build(1, 2, **settings)
    with pytest.raises(ValueError, match=words):
        network(torch.zeros(1, 1, 100, 96))


@pytest.mark.parametrize("settings", [UNETS[0], UNETS[7], UNETS[14], FCNS[0], FCNS[9]], ids=named)
def test_a_network_learns_in_every_parameter(settings: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    network = build(monkeypatch, **settings, object_map=True).train()
    logits = network(torch.randn(2, 1, 64, 96))
    assert logits.shape == (2, 3, 64, 96)
    logits.square().mean().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in network.parameters())


@pytest.mark.parametrize(
    "settings",
    [
        {"width": 2, "depth": 2, "padding": "valid"},
        {"width": 2, "depth": 2, "padding": "same", "norm": "weight", "reduction": 2},
        {"encoder": "resnet18", "depth": 3},
        {"encoder": "vgg11", "depth": 2, "upsampling": "bilinear"},
        {"name": "fcn8s", "encoder": "vgg11"},
    ],
    ids=named,
)
def test_a_network_is_exported_with_dynamic_sizes(settings: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.export is the first half of torch.onnx.export; the program must compute images of another size alike."""
    network = build(monkeypatch, **settings)
    sizes = network.geometry
    rest = sizes.smallest % sizes.stride
    sides = [sizes.stride * torch.export.Dim(name, min=8, max=64) + rest for name in ("rows", "columns")]
    side = sizes.at_least(10 * sizes.stride + rest)
    example = torch.rand(2, 1, side, side + sizes.stride)
    shapes = {"image": {0: torch.export.Dim("batch", min=1, max=8), 2: sides[0], 3: sides[1]}}
    program = torch.export.export(network, (example,), dynamic_shapes=shapes).module()
    other = torch.rand(1, 1, side + 2 * sizes.stride, side)
    with torch.no_grad():
        torch.testing.assert_close(program(other), network(other))
