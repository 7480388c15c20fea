from pathlib import Path

import readme_tree


def test_the_readme_shows_the_tree_as_it_is(repository: Path) -> None:
    readme = (repository / "README.md").read_text()
    assert readme_tree.with_tree(readme, repository) == readme, "run `make generate`"


def test_every_file_has_a_line_with_its_purpose(repository: Path) -> None:
    shown = readme_tree.tree(repository)
    for file in (repository / "src" / "segline").rglob("*.py"):
        if file.name != "__init__.py":
            assert readme_tree.purpose(file)
            assert readme_tree.purpose(file) in shown
