"""Pictures of a search, compared between processes: a set has another order in each."""

import os
import subprocess
import sys

import pytest

DRAW = """
import hashlib, json, optuna
from segline.train.charts import pictures

names, width = {names!r}, optuna.distributions.FloatDistribution(0, 1)
study = optuna.create_study()
for value in (1.0, 1.0, 1.0):
    values = dict.fromkeys(names, 0.5)
    study.add_trial(
        optuna.trial.create_trial(params=values, distributions=dict.fromkeys(names, width), value=value)
    )
print(json.dumps({{name: hashlib.sha256(picture).hexdigest() for name, picture in pictures(study)}}))
"""


@pytest.mark.parametrize("names", ["abcdef", ""], ids=["all of equal importance", "none in common"])
def test_pictures_are_the_same_in_every_process(names: str) -> None:
    drawn = {
        subprocess.run(
            [sys.executable, "-c", DRAW.format(names=names)],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(drawn) == 1
    assert "importances" in drawn.pop()
