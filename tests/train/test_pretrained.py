"""Weights with the tensor names of torchvision are copied to an encoder; a file of another network is refused."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from segline.model import fcn, nets
from segline.train import pretrained
from segline.train.pretrained import PretrainedError

VGG11 = ["M" if width is None else width for width in (64, None, 128, None, 256, 256, None, 512, 512, None, 512, 512)]


def vgg11(channels: int = 3) -> nn.Sequential:
    """Write VGG-11 down as its paper does (Simonyan 2015, table 1, A); torch names the tensors as torchvision does."""
    layers: list[nn.Module] = []
    for width in VGG11:
        if width == "M":
            layers.append(nn.MaxPool2d(2))
        else:
            layers += [nn.Conv2d(channels, int(width), 3, padding=1), nn.ReLU()]
            channels = int(width)
    return nn.Sequential(*layers)


def weights() -> dict[str, Tensor]:
    torch.manual_seed(1)
    return {f"features.{name}": tensor for name, tensor in vgg11().state_dict().items()}


def saved(folder: Path, tensors: dict[str, Tensor], form: str = "pth") -> Path:
    file = folder / f"weights.{form}"
    if form == "safetensors":
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, file)
    else:
        torch.save({"state_dict": tensors} if form == "pt" else tensors, file)
    return file


def network(channels: int = 3, **settings: object) -> nets.Network:
    return nets.build(channels, 2, **({"encoder": "vgg11", "depth": 4, "norm": "none", "width": 2} | settings)).eval()


@pytest.mark.parametrize("form", ["pth", "pt", "safetensors"])
def test_an_encoder_with_the_weights_of_a_file_computes_what_their_network_computes(tmp_path: Path, form: str) -> None:
    judge, subject, image = vgg11(), network(), torch.rand(1, 3, 48, 64)
    judge.load_state_dict({name.removeprefix("features."): tensor for name, tensor in weights().items()})
    head = subject.head.weight.clone()
    extra = {"classifier.6.weight": torch.zeros(3), "fc.bias": torch.zeros(2)}  # of layers that a U-Net does not have
    pretrained.load(subject, saved(tmp_path, weights() | extra, form))
    with torch.no_grad():
        torch.testing.assert_close(subject.encoder(image)[-1], judge(image))
    assert torch.equal(subject.head.weight, head)


def test_a_grey_image_gives_the_values_of_the_same_image_in_rgb(tmp_path: Path) -> None:
    file = saved(tmp_path, weights())
    grey, rgb = network(1), network(3)
    pretrained.load(grey, file)
    pretrained.load(rgb, file)
    image = torch.rand(1, 1, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(grey.encoder(image)[0], rgb.encoder(image.repeat(1, 3, 1, 1))[0])


def test_more_channels_repeat_the_kernels_of_the_colours_at_the_same_scale() -> None:
    kernel = torch.arange(6.0).reshape(2, 3, 1, 1)
    assert torch.equal(pretrained.adapted(kernel, 3), kernel)
    expected = torch.tensor([[0.0, 1, 2, 0, 1], [3, 4, 5, 3, 4]]) * 3 / 5
    torch.testing.assert_close(pretrained.adapted(kernel, 5)[..., 0, 0], expected)
    torch.testing.assert_close(pretrained.adapted(kernel, 2)[..., 0, 0], torch.tensor([[0.0, 1], [3, 4]]) * 3 / 2)


def test_the_dense_layers_of_a_vgg_become_convolutions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The judge is a dense layer: at the middle of a map of 7 x 7 values, the convolution sees what it sees."""
    monkeypatch.setattr(fcn, "HIDDEN", 8)
    dense = nn.Linear(512 * 7 * 7, 8), nn.Linear(8, 8)
    layers = {f"classifier.{number}.weight": layer.weight.data for number, layer in zip((0, 3), dense, strict=True)}
    biases = {f"classifier.{number}.bias": layer.bias.data for number, layer in zip((0, 3), dense, strict=True)}
    subject = nets.build(3, 2, name="fcn32s", encoder="vgg11").eval()
    pretrained.load(subject, saved(tmp_path, weights() | layers | biases))
    values = torch.rand(1, 512, 7, 7)
    with torch.no_grad():
        expected = dense[1](dense[0](values.flatten(1)).relu()).relu()
        torch.testing.assert_close(subject.classifier(values)[:, :, 3, 3], expected, atol=1e-5, rtol=1e-4)


def without_last(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if name != "features.18.weight"}


def narrower(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return tensors | {"features.3.weight": torch.zeros(100, 64, 3, 3)}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (without_last, r"weights.pth has no tensor features.18.weight.*set model.encoder"),
        (narrower, r"features.3.weight has shape \(100, 64, 3, 3\), but the encoder needs \(128, 64, 3, 3\)"),
        (lambda _: {"epoch": 3}, "does not hold tensors by name; save the state_dict"),
        (lambda _: [torch.zeros(3)], "does not hold tensors by name"),
    ],
)
def test_a_file_of_another_network_is_refused(
    change: Callable[[dict[str, Tensor]], dict[str, Tensor]], words: str, tmp_path: Path
) -> None:
    with pytest.raises(PretrainedError, match=words):
        pretrained.load(network(), saved(tmp_path, change(weights())))


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
@pytest.mark.parametrize("content", [b"", b"not weights", b"PK\x03\x04 broken", b"\x80\x02cos\nsystem\n."])
def test_a_damaged_file_is_refused_with_its_name(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(PretrainedError, match=rf"{name} cannot be read as a file of weights.*copy the file again"):
        pretrained.load(network(), tmp_path / name)


def test_a_missing_file_is_named_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(PretrainedError, match=r"weights.pth is missing; copy the file there"):
        pretrained.load(network(), tmp_path / "weights.pth")
    with pytest.raises(PretrainedError, match=r"data/encoders/weights.pth is missing; copy the file there"):
        pretrained.digests("weights.pth")
    assert pretrained.digests("") == {}
