"""Test the served model with every form in which MLflow passes image bytes, and with refused input."""

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.pyfunc.scoring_server import _parse_json_data
from mlflow.types import ColSpec, Schema

from segline.model.images import ImageError, decode, encode_png
from segline.model.inference import Inference, Outputs
from segline.model.objects import components
from segline.model.served import Served, entries, to_bytes

IMAGE = np.random.default_rng(0).integers(0, 256, (5, 7), np.uint8)
PNG = encode_png(IMAGE)
TEXT = base64.b64encode(PNG).decode()


class Threshold:
    """A predictor whose results are easy to check by hand."""

    inference = Inference()

    def outputs(self, raw: npt.NDArray[Any]) -> Outputs:
        if raw.shape[2] != 1:
            raise ImageError("an image of another kind")
        labels = raw[..., 0] > 127
        return Outputs(np.stack([~labels, labels]).astype(np.float32))


@pytest.fixture
def served() -> Served:
    model = Served()
    model.predictor = Threshold()
    return model


def labels(answer: pd.DataFrame) -> list[npt.NDArray[Any]]:
    assert list(answer.columns) == ["labels"]
    return [decode(encoded)[..., 0] for encoded in answer["labels"]]


@pytest.mark.parametrize(
    "model_input",
    [
        pd.DataFrame({"image": [PNG, PNG]}),
        pd.DataFrame({"image": [TEXT, TEXT]}),
        pd.DataFrame({0: [PNG, TEXT]}),
        [PNG, PNG],
        [TEXT, bytearray(PNG)],
        np.array([PNG, PNG], dtype=object),
        np.array([TEXT, TEXT]),
        np.array([TEXT.encode(), TEXT.encode()]),
    ],
)
def test_two_images_have_two_answers(served: Served, model_input: Any) -> None:
    for answer in labels(served.predict(None, model_input)):
        np.testing.assert_array_equal(answer, IMAGE > 127)


def test_instances_are_returned_on_request(served: Served) -> None:
    answer = served.predict(None, [PNG, PNG], {"instances": True})
    assert list(answer.columns) == ["labels", "instances"]
    for encoded in answer["instances"]:
        objects, expected = decode(encoded)[..., 0], components((IMAGE > 127).astype(np.uint8))
        pairs = np.unique(np.stack([objects.ravel(), expected.ravel()]), axis=1)  # equal but for the numbering
        assert pairs.shape[1] == expected.max() + 1 == objects.max() + 1
    for params in ({"instances": False}, {}, None):
        assert list(served.predict(None, [PNG], params).columns) == ["labels"]
    assert list(served.predict(None, [], {"instances": True}).columns) == ["labels", "instances"]


@pytest.mark.parametrize("model_input", [PNG, TEXT, bytearray(PNG), base64.encodebytes(PNG).decode()])
def test_a_single_image_needs_no_list(served: Served, model_input: Any) -> None:
    (answer,) = labels(served.predict(None, model_input))
    np.testing.assert_array_equal(answer, IMAGE > 127)


def test_no_image_has_an_empty_answer(served: Served) -> None:
    assert labels(served.predict(None, pd.DataFrame({"image": []}))) == []


@pytest.mark.parametrize(
    "body",
    [
        {"inputs": [TEXT, TEXT]},
        {"instances": [TEXT, TEXT]},
        {"dataframe_records": [{"image": TEXT}, {"image": TEXT}]},
        {"dataframe_split": {"columns": ["image"], "data": [[TEXT], [TEXT]]}},
    ],
)
def test_json_is_read_as_by_mlflow_s_server(served: Served, body: dict[str, Any]) -> None:
    schema = Schema([ColSpec("binary")])
    metadata = type("Metadata", (), {"signature": ModelSignature(schema), "get_params_schema": lambda _: None})()
    data = _parse_json_data(json.dumps(body), metadata, schema).data
    for answer in labels(served.predict(None, data)):
        np.testing.assert_array_equal(answer, IMAGE > 127)


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        (b"", "image 1: not a readable"),
        (b"GIF89a", "image 1: not a readable"),
        ("no base64!", "image 1: the text is not base64; send the bytes"),
        ("ümlaut", "image 1: the text is not base64; send the bytes"),
        (PNG[:40], "image 1: not a readable"),
        (3.5, "image 1: the entry has type float; send the bytes"),
        (None, "image 1: the entry has type NoneType; send the bytes"),
        (encode_png(np.zeros((4, 4, 3), np.uint8)), "image 1: an image of another kind"),
    ],
)
def test_unusable_entries_are_refused(served: Served, entry: Any, reason: str) -> None:
    with pytest.raises(MlflowException, match=reason) as caught:
        served.predict(None, [PNG, entry])
    assert caught.value.get_http_status_code() == 400


def test_an_image_file_is_never_taken_for_text() -> None:
    assert to_bytes(PNG) == PNG
    assert entries(PNG) == [PNG]


def test_the_device_is_mlflow_s_choice(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    loads = []
    monkeypatch.setattr("segline.model.inference.load", lambda folder, device: loads.append((folder, device)))
    context = type("Context", (), {"artifacts": {"model": str(tmp_path)}})()
    monkeypatch.delenv("MLFLOW_DEFAULT_PREDICTION_DEVICE", raising=False)
    Served().load_context(context)
    monkeypatch.setenv("MLFLOW_DEFAULT_PREDICTION_DEVICE", "cuda:1")
    Served().load_context(context)
    assert loads == [(tmp_path, "cpu"), (tmp_path, "cuda:1")]
