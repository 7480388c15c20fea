"""File names and links that fail on another machine, planted in a sound dataset."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from segline.data.checks import per_dataset
from segline.data.dataset import Dataset


def rename(folder: Path, name: str) -> None:
    for kind in ("images", "instances", "classes"):
        (folder / kind / "b.png").rename(folder / kind / f"{name}.png")


def problems_of(folder: Path) -> set[tuple[str, str, str]]:
    return {(problem.level, problem.file, problem.message) for problem in per_dataset.portability(Dataset.open(folder))}


def test_a_sound_dataset_has_no_problems(make_dataset: Callable[..., Path]) -> None:
    folder = make_dataset()
    rename(folder, "b, (2) ä µm=0.5")
    assert problems_of(folder) == set()


@pytest.mark.parametrize(("one", "other"), [("A", "a"), ("Cell-Ä", "cell-a\u0308"), ("STRASSE", "stra\u00dfe")])
def test_names_that_differ_by_case_only_are_errors(make_dataset: Callable[..., Path], one: str, other: str) -> None:
    folder = make_dataset()
    for kind in ("images", "instances", "classes"):
        (folder / kind / "c.png").rename(folder / kind / f"{one}.png")
    if other != "a":
        rename(folder, other)
    ((level, file, message),) = problems_of(folder)
    assert level == "error"
    assert {file, message.split()[2]} == {f"images/{one}.png", f"images/{other}.png"}
    assert "differs from" in message and "rename one" in message


@pytest.mark.parametrize(
    ("name", "level", "says"),
    [
        ("b\n2", "error", "a control character"),
        ("b\x1b[31m", "error", "a control character"),
        (os.fsdecode(b"b\xff"), "error", "bytes that are not UTF-8"),
        ("b:2", "warning", "Windows forbids names"),
        ("b ", "warning", "Windows forbids names"),
    ],
)
def test_names_that_other_machines_cannot_store_are_reported(
    make_dataset: Callable[..., Path], name: str, level: str, says: str
) -> None:
    folder = make_dataset()
    rename(folder, name)
    problems = problems_of(folder)
    assert {file for _, file, _ in problems} == {f"{kind}/{name}.png" for kind in ("images", "instances", "classes")}
    assert all(problem[0] == level and says in problem[2] for problem in problems)


def test_links_out_of_the_folder_are_errors(make_dataset: Callable[..., Path], tmp_path: Path) -> None:
    folder = make_dataset()
    (folder / "images" / "b.png").rename(tmp_path / "b.png")
    (folder / "images" / "b.png").symlink_to(tmp_path / "b.png")
    ((level, file, message),) = problems_of(folder)
    assert (level, file) == ("error", "images/b.png")
    assert f"is a link to {tmp_path / 'b.png'}, outside the dataset" in message


def test_a_linked_folder_and_a_linked_table_are_errors(make_dataset: Callable[..., Path], tmp_path: Path) -> None:
    folder = make_dataset()
    (folder / "classes").rename(tmp_path / "classes")
    (folder / "classes").symlink_to(tmp_path / "classes")
    (tmp_path / "groups.csv").write_text("image,group\n" + "".join(f"{stem},1\n" for stem in "abcde"))
    (folder / "groups.csv").symlink_to(tmp_path / "groups.csv")
    assert {file for _, file, _ in problems_of(folder)} == {"groups.csv", *(f"classes/{stem}.png" for stem in "abcde")}


@pytest.mark.parametrize("target", ["b.png", "gone", "../classes/b.png"])
def test_broken_and_circular_links_are_left_to_the_reader(make_dataset: Callable[..., Path], target: str) -> None:
    folder = make_dataset()
    (folder / "images" / "b.png").unlink()
    (folder / "images" / "b.png").symlink_to(target)
    assert problems_of(folder) == set()


@pytest.mark.parametrize("cache", ["cache/files/md5", ".dvc/cache", "mnt/shared"], ids=["DVC 3", "DVC 2", "cache.dir"])
def test_links_made_by_dvc_are_allowed(make_dataset: Callable[..., Path], tmp_path: Path, cache: str) -> None:
    folder = make_dataset()
    content = tmp_path / cache / "0a" / ("b" * 30)
    content.parent.mkdir(parents=True)
    (folder / "images" / "b.png").rename(content)
    (folder / "images" / "b.png").symlink_to(content)
    assert problems_of(folder) == set()


def test_the_dataset_folder_may_be_a_link(make_dataset: Callable[..., Path], tmp_path: Path) -> None:
    make_dataset().rename(tmp_path / "elsewhere")
    (tmp_path / "small").symlink_to(tmp_path / "elsewhere")
    assert problems_of(tmp_path / "small") == set()
