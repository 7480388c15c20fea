"""MLflow's JSON: this server reads and writes the same as MLflow's own server, and refuses invalid requests."""

import base64
import json
from typing import Any

import pandas as pd
import pytest
from mlflow.models import ModelSignature
from mlflow.pyfunc.scoring_server import _parse_json_data
from mlflow.types import ColSpec, Schema

from segline.model.served import entries, to_bytes
from segline.serve import invocation
from segline.serve.invocation import AnswerOptions
from segline.serve.refusals import RefusedError
from segline.track.registry import Answer

A, B = b"\x89PNG a", b"\x89PNG b"
TEXT = [base64.b64encode(image).decode() for image in (A, B)]


@pytest.mark.parametrize(
    "content",
    [
        {"inputs": TEXT},
        {"instances": TEXT},
        {"inputs": []},
        {"dataframe_records": [{"image": text} for text in TEXT]},
        {"dataframe_split": {"columns": ["image"], "data": [[text] for text in TEXT]}},
        {"dataframe_split": {"columns": ["image"], "index": [4, 7], "data": [[text] for text in TEXT]}},
        {"dataframe_split": {"columns": ["image"], "data": [[TEXT[0]]]}, "params": {"instances": True}},
        {"instances": TEXT, "params": {"probabilities": True, "views": 4}},
    ],
)
def test_a_request_is_parsed_as_mlflow_parses_it(content: dict[str, Any]) -> None:
    schema = Schema([ColSpec("binary")])
    metadata = type("Metadata", (), {"signature": ModelSignature(schema), "get_params_schema": lambda _: None})()
    theirs = _parse_json_data(json.dumps(content), metadata, schema)
    data = next(iter(theirs.data.values())) if isinstance(theirs.data, dict) else theirs.data
    ours = invocation.parse(json.dumps(content).encode())
    assert ours.images == [to_bytes(entry) for entry in entries(data)]
    assert ours.options == AnswerOptions(**(theirs.params or {}))


@pytest.mark.parametrize(
    "content",
    [
        {"inputs": TEXT[0]},
        {"inputs": {"image": TEXT[0]}},
        {"inputs": {"image": [TEXT[0]]}},
        {"inputs": [[TEXT[0]]]},
        {"instances": [{"image": TEXT[0]}]},
        {"instances": [TEXT[0]], "params": None},
        {"instances": [TEXT[0]], "params": {}},
    ],
)
def test_further_spellings_of_a_request_are_parsed(content: dict[str, Any]) -> None:
    assert invocation.parse(json.dumps(content).encode()) == ([A], AnswerOptions())


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        (b"", 400, "not valid JSON"),
        (b"\xff\xfe\x00", 400, "not valid JSON"),
        (b"NaN", 400, "not a value of type float"),
        (b"[]", 400, "not a value of type list"),
        (b"1" * 5000, 400, "not valid JSON"),
        (b"[" * 90_000, 400, "nested too deeply"),
        (b'{"a":' * 90_000, 400, "nested too deeply"),
        (b"[" + b"0," * 100_001, 413, "more than 100000 parts"),
        (b"[" + b"{}," * 60_000, 413, "more than 100000 parts"),
        (b"{}", 400, "exactly one of"),
        (b'{"inputs": [], "instances": []}', 400, "exactly one of"),
        (b'{"inputs": [], "input": []}', 400, "exactly one of"),
        (b'{"inputs": 3}', 400, "inputs does not have"),
        (b'{"inputs": null}', 400, "inputs does not have"),
        (b'{"inputs": {}}', 400, "inputs does not have"),
        (b'{"inputs": {"a": [], "b": []}}', 400, "inputs does not have"),
        (b'{"inputs": {"a": [{}]}}', 400, "each row"),
        (b'{"instances": {"a": []}}', 400, "instances does not have"),
        (b'{"dataframe_split": []}', 400, "dataframe_split does not have"),
        (b'{"dataframe_split": {"data": {}}}', 400, "dataframe_split does not have"),
        (b'{"dataframe_split": {"data": ["YQ=="]}}', 400, "each row"),
        (b'{"dataframe_split": {"data": [["YQ==", "YQ=="]]}}', 400, "each row"),
        (b'{"dataframe_records": {"image": "YQ=="}}', 400, "dataframe_records does not have"),
        (b'{"dataframe_records": [["YQ=="]]}', 400, "each row"),
        (b'{"dataframe_records": [{}]}', 400, "each row"),
        (b'{"inputs": ["YQ==", 3]}', 400, "each row"),
        (b'{"inputs": ["YQ==", [NaN]]}', 400, "image 1: the entry has type float; send the bytes"),
        (b'{"inputs": [[["YQ=="]]]}', 400, "image 0: the entry has type list; send the bytes"),
        (b'{"inputs": ["a b!"]}', 400, "image 0: .*base64"),
        (b'{"inputs": [' + b'"",' * 1001 + b'""]}', 413, "1002 images"),
        (b'{"inputs": [], "params": []}', 400, "its allowed fields are instances, probabilities, views"),
        (b'{"inputs": [], "params": [1]}', 400, "its allowed fields are"),
        (b'{"inputs": [], "params": {"instance": true}}', 400, "its allowed fields are"),
        (b'{"inputs": [], "params": {"instances": 1}}', 400, "params.instances must be true or false"),
        (b'{"inputs": [], "params": {"probabilities": "yes"}}', 400, "params.probabilities must be true or false"),
        (b'{"inputs": [], "params": {"views": 2}}', 400, "views must be one of 1, 4, 8, or 0"),
        (b'{"inputs": [], "params": {"views": true}}', 400, "views must be one of"),
        (b'{"inputs": [], "params": {"views": 4.0}}', 400, "views must be one of"),
        (b'{"inputs": [], "params": {"views": 1e999}}', 400, "views must be one of"),
    ],
)
def test_an_invalid_request_is_refused(body: bytes, status: int, reason: str) -> None:
    with pytest.raises(RefusedError, match=reason) as caught:
        invocation.parse(body)
    assert caught.value.status == status


def test_the_answer_equals_mlflows_answer() -> None:
    from mlflow.pyfunc.scoring_server import _get_jsonable_obj
    from mlflow.utils.proto_json_utils import NumpyEncoder

    table = pd.DataFrame({"labels": [A, B], "instances": [B, A], "probabilities": [A, B]}, dtype=object)
    theirs = json.loads(json.dumps(_get_jsonable_obj(table, pandas_orient="records"), cls=NumpyEncoder))
    options = AnswerOptions(instances=True, probabilities=True)
    ours = json.loads(invocation.answer([Answer(A, B, A), Answer(B, A, B)], options))
    assert [{name: base64.b64decode(text) for name, text in record.items()} for record in ours["predictions"]] == [
        {name: base64.b64decode(text) for name, text in record.items()} for record in theirs
    ]
