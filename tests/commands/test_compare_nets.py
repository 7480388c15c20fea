"""Networks are named, laid out as projects, and put into a table; tests/soak/test_nets.py trains some."""

from pathlib import Path

import numpy as np
import pytest

from segline import files, params
from segline.commands import compare_nets
from segline.commands.compare_nets import Net, NetsError, Trained
from segline.params import Gate, Params
from segline.score.judge import Score


@pytest.mark.parametrize("word", ["unet", "unet:resnet34", "fcn8s:vgg16"])
def test_a_network_is_named_by_one_word(word: str) -> None:
    assert Net.of(word).word == word


@pytest.mark.parametrize("word", ["", "fcn8s", "vgg16", "unet:alexnet", "unet:"])
def test_an_unknown_network_is_refused_with_examples(word: str) -> None:
    if word == "unet:":
        assert Net.of(word) == Net("unet", "none")
        return
    with pytest.raises(NetsError, match=f"network {word}.*write a network as unet, unet:resnet34 or fcn8s:vgg16"):
        Net.of(word)


def test_only_the_network_and_the_length_of_its_training_differ(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = Params().model_dump(mode="json")
    settings["augment"]["rotation"], settings["model"]["padding"] = 7, "valid"
    files.write_yaml(Path("params.yaml"), settings)
    Path("data/prepared").mkdir(parents=True)
    for number, word in enumerate(("unet", "unet:resnet18")):
        scratch = tmp_path / str(number)
        scratch.mkdir()
        compare_nets._lay_out(Net.of(word), scratch, 3, 5)
        content = files.read_yaml(scratch / "params.yaml")
        read = params.check(Params, content, "params.yaml")
        assert (read.plan.minutes, read.train.seed, read.tune.trials) == (3, 5, 0)
        assert (read.augment.rotation, read.model.encoder) == (7, ["none", "resnet18"][number])
        assert ("model.padding" in params.automatic(content)) == bool(number)
        assert "train.epochs" in params.automatic(content)
        assert (scratch / "data/prepared").resolve() == (tmp_path / "data/prepared").resolve()


def score(right: int, wrong: int) -> Score:
    return Score(np.array([[10, 0], [wrong, right]]))


def test_the_table_has_the_metric_its_interval_and_the_gain() -> None:
    """The IoU of an image with 8 right and 2 missed pixels is 0.8; over two images, pixels are added up."""
    first = Trained(Net("unet", "none"), [score(8, 2), score(6, 4)], {"parameters": 1e6})
    second = Trained(Net("unet", "vgg11"), [score(10, 0), score(10, 0)], {"parameters": 2e6})
    table = compare_nets.tabulate([first, second], "mean_iou", Gate(resamples=200)).set_index("network")
    assert table["mean_iou"].tolist() == pytest.approx([0.7, 1.0])
    assert table.loc["unet", ["low", "high"]].tolist() == pytest.approx([0.6, 0.8])
    assert table["gain"].tolist() == pytest.approx([0, 0.3])
    assert table.loc["unet:vgg11", ["gain_low", "gain_high"]].tolist() == pytest.approx([0.2, 0.4])
    assert table["parameters"].tolist() == [1e6, 2e6]
