"""Charts, compared byte by byte: repeated, and between processes, in which sets have different orders."""

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from segline.train import charts

DRAW = """
import hashlib, json, optuna
from segline.train.charts import search_charts

names, width = {names!r}, optuna.distributions.FloatDistribution(0, 1)
study = optuna.create_study()
for value in (1.0, 1.0, 1.0):
    values = dict.fromkeys(names, 0.5)
    study.add_trial(
        optuna.trial.create_trial(params=values, distributions=dict.fromkeys(names, width), value=value)
    )
print(json.dumps({{name: hashlib.sha256(picture).hexdigest() for name, picture in search_charts(study)}}))
"""


@pytest.mark.parametrize("names", ["abcdef", ""], ids=["equal importances", "no common names"])
def test_search_charts_are_the_same_in_every_process(names: str) -> None:
    outputs = {
        subprocess.run(
            [sys.executable, "-c", DRAW.format(names=names)],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(outputs) == 1
    assert "importances" in outputs.pop()


def test_the_course_of_a_training_is_drawn_with_the_same_bytes_each_time(tmp_path: Path) -> None:
    columns = [column for names in charts.COURSE.values() for column in names]
    history = pd.DataFrame({"epoch": [1, 2, 3]} | {name: [3.0, 2.0, 1.0] for name in columns})
    for name in ("a.png", "b.png"):
        charts.draw_course(history, 2, tmp_path / name)
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.size == (1000, 600)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
