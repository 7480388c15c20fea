"""Write the tree of README.md from the first line of each file's docstring.

python tools/readme_tree.py          rewrite README.md
"""

import ast
import re
from pathlib import Path

OUTSIDE = {
    "dvc.yaml": "the stages: what each needs, reads and writes",
    "params.yaml": "every setting, explained beside its value",
    "Makefile": "make run, test, lint, generate",
    "requirements.txt": "what is installed, pinned",
    "docs/": "params, decisions",
    "tests/": "mirrors src: tests/ROOM/test_FILE.py; test_pipeline.py runs the whole line",
    "benchmarks/": "measurements beside the rival; results in benchmarks/results",
    "tools/": "write what follows from the code: docs/params.md, comments of params.yaml, this tree",
    "data/": "raw/ prepared/ weights/ tune/ model/ reports/: owned by DVC",
    "mlruns/": "the MLflow store: mlflow.db and artifacts",
    "registry.jsonl": "what was registered, who was promoted, when and why; kept in git",
}
SECTION = re.compile(r"(<!-- tree -->\n```\n).*?(```\n<!-- /tree -->)", re.DOTALL)


def purpose(file: Path) -> str:
    """Return the first line of the docstring of a module, without its full stop."""
    text = ast.get_docstring(ast.parse(file.read_text())) or ""
    return text.partition("\n")[0].rstrip(".")


def tree(root: Path) -> str:
    """Return the tree: a line for each folder and file of the package, with its purpose."""
    package = root / "src" / "segline"
    lines = [f"{name:<22} {text}" for name, text in OUTSIDE.items()]
    lines.append("src/segline/")
    for folder in [package, *sorted(path for path in package.rglob("*") if (path / "__init__.py").exists())]:
        depth = len(folder.relative_to(package).parts)
        if depth:
            lines.append(f"{'  ' * depth}{folder.name + '/':<20} {purpose(folder / '__init__.py')}")
        files = [file for file in sorted(folder.glob("*.py")) if file.name != "__init__.py"]
        lines += [f"{'  ' * (depth + 1)}{file.name:<{20 - 2 * depth}} {purpose(file)}" for file in files]
    return "\n".join(lines) + "\n"


def with_tree(readme: str, root: Path) -> str:
    """Return `readme` with its tree replaced by the present one."""
    return SECTION.sub(lambda match: match[1] + tree(root) + match[2], readme)


if __name__ == "__main__":
    here = Path(__file__).parents[1]
    (here / "README.md").write_text(with_tree((here / "README.md").read_text(), here))
