"""Settings that contradict each other are refused with the way out."""

from typing import Any

import pytest

from segline.params import Model, Params, ParamsError, check


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ({"name": "fcn8s"}, "fcn8s needs an encoder; set model.encoder to vgg16, resnet34 or another encoder"),
        ({"encoder_weights": "a.pth"}, "no encoder for encoder_weights; set model.encoder, or leave the file out"),
        ({"encoder": "resnet34", "padding": "valid"}, "does not go with padding valid; set model.padding to same"),
        ({"encoder": "vgg16", "norm": "weight"}, "does not go with norm weight; set model.norm to batch or none"),
        ({"encoder": "resnet50", "norm": "none"}, "does not go with norm none; set model.norm to batch"),
        ({"encoder": "resnet50", "reduction": 2}, "does not go with reduction 2; set model.reduction to 1"),
        ({"encoder": "resnet50", "depth": 6}, "does not go with depth 6; set model.depth to 5 or 4 or 3 or 2 or 1"),
        ({"encoder": "resnet34", "encoder_weights": "../a.pth"}, "encoder_weights = '../a.pth'"),
        ({"encoder": "resnet34", "encoder_weights": "a.bin"}, "encoder_weights = 'a.bin'"),
    ],
)
def test_an_encoder_is_refused_with_settings_that_it_cannot_have(model: dict[str, Any], words: str) -> None:
    with pytest.raises(ParamsError, match=words):
        check(Params, {"model": model}, "params.yaml")


def test_a_planned_setting_does_not_contradict_an_encoder() -> None:
    model = {"encoder": "vgg16", "norm": "auto", "padding": "auto", "reduction": "auto", "depth": "auto"}
    assert check(Params, {"model": model}, "params.yaml").model.encoder == "vgg16"


@pytest.mark.parametrize(
    ("model", "used"),
    [
        ({}, {"width", "depth", "padding", "norm", "upsampling", "dropout", "reduction", "object_map"}),
        ({"encoder": "vgg11"}, {"encoder", "width", "depth", "norm", "upsampling", "dropout", "object_map"}),
        ({"name": "fcn8s", "encoder": "vgg11"}, {"name", "encoder", "norm", "dropout", "object_map"}),
    ],
)
def test_model_json_names_the_settings_that_the_network_uses(model: dict[str, Any], used: set[str]) -> None:
    assert set(Model(**model).network) == used
