"""Run the commands of `segline models` on three known versions; check output and exit codes."""

import hashlib
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from rich.console import Console
from typer.testing import CliRunner

from segline import cli_models
from segline.commands import models, promote, show, uses
from segline.commands.models import open_registry
from segline.gate import champion
from segline.track.registry import Registry, RegistryError
from segline.track.store import open_store
from segline.track.verdict import Verdict, at_least

GOOD, BAD = (Verdict((at_least("mean_iou", value, 0.5),)) for value in (0.9, 0.1))
UNKNOWN = Verdict((), ("other classes",))


@pytest.fixture
def registry(cells: Path) -> Registry:  # noqa: ARG001
    return Registry(open_store(), "cells")


def json_output(command: Callable[..., Any], *arguments: Any) -> Any:
    """Return the JSON output of a command."""
    output: list[str] = []
    command(*arguments, True, Console(file=StringIO()), output.append)
    return json.loads(output[0])


def shown(command: Callable[..., Any], *arguments: Any, width: int = 160) -> str:
    """Return the printed output of a command on a terminal with `width` columns."""
    text = StringIO()
    command(*arguments, False, Console(file=text, width=width), lambda line: text.write(f"{line}\n"))
    return text.getvalue()


@pytest.mark.usefixtures("cells")
def test_list_prints_versions_newest_first() -> None:
    rows = json_output(models.list_, "")
    assert [(row["version"], row["aliases"], row["gate"], row["mean_iou"]) for row in rows] == [
        (3, ["challenger"], "passed", 0.8),
        (2, [], "passed", 0.7),
        (1, ["champion"], "passed", 0.6),
    ]
    cells = re.split(r" {2,}", shown(models.list_, "").splitlines()[-2].strip())
    assert (cells[0], cells[1], cells[3]) == ("1", "@champion", "0.6000")


@pytest.mark.usefixtures("cells")
def test_list_cuts_nothing_at_80_columns() -> None:
    rows = json_output(models.list_, "")
    output = shown(models.list_, "", width=80)
    assert all(row["md5"][:8] in output and row["run"][:8] in output for row in rows)
    assert "…" not in output
    assert max(map(len, output.splitlines())) <= 80


@pytest.mark.usefixtures("cells")
def test_show_prints_the_origin_of_a_version() -> None:
    content = json_output(show.main, "@champion", "cells")
    head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    assert content["version"] == 1
    assert content["commit"] == head
    assert content["data.md5"] == "d" * 32
    assert content["params"] == {"train.epochs": "1"}
    assert content["gate"]["passed"]
    assert content["files"]["artifacts/model/weights.safetensors"] == hashlib.md5(b"weights.safetensors 1").hexdigest()
    assert content["images"] == [
        {"image": "a", "file": "images/a.png", "md5": "1a", "split": "train"},
        {"image": "b", "file": "images/b.tif", "md5": "b", "split": "test"},
    ]
    assert [line["reason"] for line in content["history"]] == [
        "registered",
        "first to meet the minimum metrics",
    ]
    text = shown(show.main, "1", "")
    for word in (head, "d" * 32, "train.epochs", "images/a.png", "weights.safetensors", "first to meet the minimum"):
        assert word in text


def test_show_reports_a_missing_commit(registry: Registry) -> None:
    registry.client.set_model_version_tag("cells", "2", "params.md5", "x")
    assert json_output(show.main, "2", "")["commit"] is None
    assert "no commit holds these files as the version used them: params.yaml" in shown(show.main, "2", "")


@pytest.mark.parametrize(
    ("image", "numbers"),
    [
        ("a.png", [3, 2, 1]),
        ("a", [3, 2, 1]),
        ("elsewhere/a.png", [3, 2, 1]),
        ("images/a.png", [3, 2, 1]),
        ("a.tif", []),
        ("other", []),
    ],
)
@pytest.mark.usefixtures("cells")
def test_uses_by_name(image: str, numbers: list[int]) -> None:
    rows = json_output(uses.main, image, "")
    assert [row["version"] for row in rows] == numbers
    assert {(row["split"], row["same"]) for row in rows} <= {("train", "name")}
    assert ("no version of cells has" in shown(uses.main, image, "")) == (not numbers)


def test_uses_by_content(registry: Registry, cells: Path) -> None:
    file = cells / "renamed.png"
    file.write_bytes(b"pixels")
    (cells / "a.png").write_bytes(b"others")
    md5 = hashlib.md5(b"pixels").hexdigest()
    table = next(cells.glob(f"mlruns/artifacts/**/{source(registry, '2')}/**/images.csv"))
    table.write_text(table.read_text().replace("2a", md5))
    assert [(row["version"], row["same"]) for row in json_output(uses.main, str(file), "")] == [(2, "content")]
    assert {row["same"] for row in json_output(uses.main, "a.png", "")} == {"name, other content"}


@pytest.mark.parametrize(
    ("image", "output"),
    [
        ("", "the argument IMAGE is empty; give the path or the name of an image file"),
        ("folder", "folder is a folder; give one image file"),
    ],
)
def test_uses_refuses_folders_and_empty_names(cells: Path, image: str, output: str) -> None:
    (cells / "folder").mkdir()
    with pytest.raises(uses.UsesError, match=output):
        json_output(uses.main, image, "")


def source(registry: Registry, number: str) -> str:
    return str(registry.version(number).source).removeprefix("models:/")


def test_the_model_is_selected_by_name_or_params(registry: Registry, cells: Path) -> None:
    assert open_registry().name == "cells"
    with pytest.raises(RegistryError, match="--name mice: there is no such model; choose one of cells"):
        open_registry("mice")
    registry.client.create_registered_model("mice")
    with pytest.raises(RegistryError, match=r"--name: cells, mice$"):
        open_registry()
    (cells / "src").mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(cells / "src")
        with pytest.raises(RegistryError, match=re.escape(f"--name: cells, mice (or run segline in {cells}, ")):
            open_registry()
    (cells / "params.yaml").write_text("registration: {name: mice}\n")
    assert open_registry().name == "mice"
    for name in ("cells", "mice"):
        registry.client.delete_registered_model(name)
    with pytest.raises(
        RegistryError, match=r"no model is registered here, but registry\.jsonl lists models; restore them"
    ):
        open_registry()
    registry.history_file.unlink()
    with pytest.raises(RegistryError, match="no model is registered yet"):
        open_registry()


@pytest.mark.parametrize(("verdict", "code"), [(GOOD, 0), (BAD, 1), (UNKNOWN, 2)])
@pytest.mark.usefixtures("cells")
def test_exit_codes_of_promote(verdict: Verdict, code: int) -> None:
    output: list[str] = []

    def call(**options: Any) -> int:
        with patch.object(champion, "judge", lambda *_, **__: verdict):
            return promote.promote("2", "", Console(file=StringIO()), output.append, **options)

    assert call(dry_run=True) == code
    assert output[-1].startswith("dry run: cells version 2 ")
    assert call(as_json=True) == code
    assert json.loads(output[-1])["promoted"] == (code == 0)
    if code:
        assert call(force=True, reason="for the demo") == 0
        assert "cells version 2 is champion, replacing version 1 (forced)" in output
        promote.rollback("back", "", "", output.append)
        assert "cells version 1 is champion again, replacing version 2" in output


def verify() -> tuple[int, str]:
    result = CliRunner().invoke(cli_models.app, ["verify"])
    return result.exit_code, result.output


def notes(cells: Path) -> None:
    """Commit everything that verify would note."""
    (cells / "dvc.lock").write_text(f"{'1' * 32} {'d' * 32}\n")
    for command in (["add", "-A"], ["commit", "-q", "-m", "x"]):
        subprocess.run(["git", *command], check=True)


def test_verify_notes_uncommitted_files(cells: Path) -> None:
    code, output = verify()
    assert code == 0
    assert "note: cells version 1: no commit has the dvc.lock of this version yet" in output
    assert "note: cells: registry.jsonl has lines that are not committed" in output
    notes(cells)
    assert verify() == (0, "cells has 3 versions: all is well\n")


def alter(registry: Registry, cells: Path) -> None:
    next(cells.glob(f"mlruns/artifacts/**/{source(registry, '2')}/**/model.json")).write_text("other")


def lose(registry: Registry, cells: Path) -> None:
    next(cells.glob(f"mlruns/artifacts/**/{source(registry, '2')}/**/model.json")).unlink()


def lose_all(registry: Registry, cells: Path) -> None:
    shutil.rmtree(next(cells.glob(f"mlruns/artifacts/**/{source(registry, '2')}")))


def plant(registry: Registry, cells: Path) -> None:
    folder = next(cells.glob(f"mlruns/artifacts/**/{source(registry, '2')}/**/model.json")).parent
    (folder / "torch.py").write_text("")


def by_hand(registry: Registry, _: Path) -> None:
    registry.client.set_registered_model_alias("cells", "champion", "2")


def deleted(registry: Registry, _: Path) -> None:
    registry.client.delete_registered_model_alias("cells", "champion")


def previous_by_hand(registry: Registry, _: Path) -> None:
    registry.client.set_registered_model_alias("cells", "previous", "3")


def wrong_case(registry: Registry, _: Path) -> None:
    registry.client.set_registered_model_alias("cells", "Champion", "2")


def no_verdict(registry: Registry, _: Path) -> None:
    registry.client.delete_model_version_tag("cells", "1", "gate")


def version_deleted(registry: Registry, _: Path) -> None:
    registry.client.delete_model_version("cells", "1")


@pytest.mark.parametrize(
    ("spoil", "output"),
    [
        (alter, "problem: cells version 2: artifacts/model/model.json was altered"),
        (lose, "problem: cells version 2: artifacts/model/model.json is missing"),
        (lose_all, "problem: cells version 2: cells version 2: its files are missing"),
        (plant, "problem: cells version 2: artifacts/model/torch.py was added"),
        (by_hand, "problem: cells version 2: @champion was set by hand, but registry.jsonl names version 1"),
        (deleted, "problem: cells: @champion was deleted by hand, but registry.jsonl names version 1"),
        (previous_by_hand, "problem: cells version 3: @previous was set by hand, but registry.jsonl names no version"),
        (wrong_case, "problem: cells version 2: the alias @Champion differs from @champion"),
        (no_verdict, "problem: cells version 1: @champion has neither a passed verdict nor a promotion with --force"),
        (version_deleted, "problem: cells: registry.jsonl names md5"),
    ],
)
def test_verify_reports_problems(
    registry: Registry, cells: Path, spoil: Callable[[Registry, Path], None], output: str
) -> None:
    notes(cells)
    spoil(registry, cells)
    code, text = verify()
    assert code == 1
    assert output in text
    assert text.endswith(" versions: 1 problem\n")


def test_verify_in_a_new_clone_reports_missing_versions(registry: Registry) -> None:
    registry.client.delete_registered_model("cells")
    code, output = verify()
    assert code == 1
    assert "problem: cells: registry.jsonl names md5" in output
    assert "for @champion, but this store has no version with this md5" in output
    assert "`segline models sync`" in output
    assert output.endswith("cells has 0 versions: 1 problem\n")
