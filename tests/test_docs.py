"""The documentation has no dead links and names every command, option and room."""

import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main
from ruamel.yaml import YAML
from typer.core import TyperGroup

from segline.cli import app

LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)#\s]*)(#[^)\s]+)?\)")
TERM = re.compile(r"^\| ([^|]+?) \| ", re.MULTILINE)
README_LINES = 150


@pytest.fixture(scope="module")
def pages(repository: Path) -> dict[Path, str]:
    """All pages by their path."""
    files = (*sorted(repository.glob("*.md")), *sorted((repository / "docs").glob("*.md")))
    return {file: file.read_text() for file in files}


def anchors(page: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page, re.MULTILINE)
    return {"#" + re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def dead_links(pages: dict[Path, str]) -> list[str]:
    dead = []
    for page, text in pages.items():
        for target, anchor in LINK.findall(text):
            if "://" in target:
                continue
            file = (page.parent / target).resolve() if target else page
            if not file.exists() or (anchor and anchor not in anchors(file.read_text())):
                dead.append(f"{page.name}: {target}{anchor}")
    return dead


def commands(group: TyperGroup, prefix: str = "segline") -> Iterator[tuple[str, list[str]]]:
    """The full name and the long options of every command."""
    for name, command in group.commands.items():
        if isinstance(command, TyperGroup):
            yield from commands(command, f"{prefix} {name}")
        else:
            options = [option for parameter in command.params for option in parameter.opts]
            yield f"{prefix} {name}", [option for option in options if option.startswith("--")]


def undocumented(text: str, stages: set[str]) -> list[str]:
    """Commands and options that `text` does not mention; `dvc repro` calls the commands of stages."""
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    missing = []
    for name, options in commands(group):
        if name not in text and name.removeprefix("segline ") not in stages:
            missing.append(name)
        missing += [f"{name} {option}" for option in options if option not in text]
    return missing


@pytest.fixture(scope="module")
def stages(repository: Path) -> set[str]:
    return set(YAML(typ="safe").load((repository / "dvc.yaml").read_text())["stages"])


def test_links_lead_to_a_page_and_a_heading(pages: dict[Path, str]) -> None:
    assert dead_links(pages) == []


def test_a_dead_link_is_found(tmp_path: Path) -> None:
    page = tmp_path / "a.md"
    page.write_text("# One `x`, two\n[a](#one-x-two) [b](#three) [c](b.md) [d](https://example.org)")
    assert dead_links({page: page.read_text()}) == ["a.md: #three", "a.md: b.md"]


def test_every_command_and_option_is_documented(pages: dict[Path, str], stages: set[str]) -> None:
    assert undocumented("\n".join(pages.values()), stages) == []


def test_a_missing_command_or_option_is_found(pages: dict[Path, str], stages: set[str]) -> None:
    text = "\n".join(pages.values())
    assert undocumented(text.replace("--dry-run", "").replace("segline ui", ""), stages) == [
        "segline upgrade --dry-run",
        "segline ui",
        "segline models promote --dry-run",
    ]


def test_the_site_has_every_page(repository: Path) -> None:
    listed = re.findall(r"[\w-]+\.md", (repository / "mkdocs.yml").read_text())
    assert sorted(listed) == sorted(page.name for page in (repository / "docs").glob("*.md"))


def test_the_site_builds_without_a_warning(repository: Path, tmp_path: Path) -> None:
    shutil.copytree(repository / "docs", tmp_path / "docs")
    shutil.copy(repository / "mkdocs.yml", tmp_path)
    command = [sys.executable, "-m", "zensical", "build", "--strict"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    page = (tmp_path / "site" / "params" / "index.html").read_text()
    assert "learning_rate" in page
    foreign = {
        host for host in re.findall(r"""(?:src|href)=["']?(https?://[^/"'>]+)""", page) if "zensical" not in host
    }
    assert foreign == set()  # the pages load nothing from another server; the footer names the generator


def test_the_readme_is_short(repository: Path) -> None:
    assert len((repository / "README.md").read_text().splitlines()) <= README_LINES


def test_architecture_shows_the_floors_of_import_linter(repository: Path) -> None:
    page = (repository / "docs/architecture.md").read_text()
    (shown,) = re.findall(r"<!-- floors -->\n```\n(.*?)\n```", page, re.DOTALL)
    contracts = tomllib.loads((repository / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (floors,) = (contract["layers"] for contract in contracts if contract["id"] == "floors")
    assert shown.splitlines() == floors


def test_architecture_names_every_room(repository: Path) -> None:
    page = (repository / "docs/architecture.md").read_text()
    package = repository / "src/segline"
    rooms = [f"{path.parent.name}/" for path in package.glob("*/__init__.py")]
    rooms += [path.name for path in package.glob("*.py") if not path.name.startswith("__")]
    assert [room for room in rooms if f"`{room}`" not in page] == []


def test_files_in_architecture_exist(repository: Path) -> None:
    page = (repository / "docs/architecture.md").read_text()
    names = set(re.findall(r"`([\w/]+\.py)`", page)) - {"test_pipeline.py"}
    assert [name for name in sorted(names) if not (repository / "src/segline" / name).exists()] == []


def test_names_in_architecture_exist_in_their_files(repository: Path) -> None:
    page = (repository / "docs/architecture.md").read_text()
    places = re.findall(r"`([\w/]+\.py)`, `([\w.]+)`", page)
    places = [(file, name) for file, name in places if not name.endswith(".py")]
    assert len(places) > 2
    sources = {file: (repository / "src/segline" / file).read_text() for file, _ in places}
    assert [(file, name) for file, name in places if not all(part in sources[file] for part in name.split("."))] == []


def test_the_glossary_is_sorted_and_explains_each_term_once(repository: Path) -> None:
    page = (repository / "docs/glossary.md").read_text()
    terms = [term for term in TERM.findall(page) if term != "term"]
    assert terms == sorted(set(terms))


def test_rooms_in_the_glossary_exist(repository: Path) -> None:
    page = (repository / "docs/glossary.md").read_text()
    places = re.findall(r"^\| [^|]+ \| `([^`]+)` \|", page, re.MULTILINE)
    assert [
        place
        for place in places
        if not any((root / place).exists() for root in (repository / "src/segline", repository))
    ] == []
