"""Write into dvc.yaml what each stage depends on, as its code says: the modules it imports, the params it reads.

DVC does not check either, and an import that is not declared means a stale result called "up to date".

    python tools/dvc_deps.py          rewrite dvc.yaml
"""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

PACKAGE = "segline"
NOT_A_REASON_TO_RERUN = {"runtime"}
LOCK = "requirements.txt"


def module_files(root: Path) -> dict[str, Path]:
    """All modules under `root`/src by dotted name; a package's file is its __init__.py."""
    src = root / "src"
    files = {}
    for file in sorted((src / PACKAGE).rglob("*.py")):
        parts = file.relative_to(src).with_suffix("").parts
        files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return files


def imported_names(file: Path, module: str) -> Iterator[str]:
    """Dotted names that `file` imports anywhere, also inside functions; the last part may be no module."""
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(file.read_text(), str(file))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")
            base = ".".join(parts[: len(parts) - node.level + 1]) if node.level else ""
            source = ".".join(part for part in (base, node.module) if part)
            yield from (f"{source}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("importlib.import_module", "import_module"):
            if not isinstance(node.args[0], ast.Constant):
                raise ValueError(f"{file}:{node.lineno}: an import by a computed name has no closure; name the module")
            yield str(node.args[0].value)


def closure(module: str, files: dict[str, Path]) -> set[Path]:
    """Every file of the package that runs when `module` does, the __init__.py of each package included."""
    found: set[str] = set()
    todo = [module]
    while todo:
        name = todo.pop()
        while name and name not in files:
            name = name.rpartition(".")[0]
        if not name or name in found:
            continue
        found.add(name)
        todo.append(name.rpartition(".")[0])
        for imported in imported_names(files[name], name):
            todo.append(imported)
            if imported != PACKAGE and imported in files and files[imported].name == "__init__.py":
                # Who takes a package by its own name, as `import segline.model` to ship it, takes all of it.
                todo += [inner for inner in files if inner.startswith(f"{imported}.")]
    return {files[name] for name in found}


def params_read(file: Path) -> Iterator[str]:
    """Sections of params.yaml that `file` reads; `data/tune/best.yaml` stands for ``params.read_tuned()``."""
    tree = ast.parse(file.read_text(), str(file))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == f"{PACKAGE}.params":
            for alias in node.names:
                if alias.name in ("read", "read_tuned", "load", "PARAMS_FILE"):
                    raise ValueError(f"{file}:{node.lineno}: write params.{alias.name}(...), so that it can be found")
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        if called == "params.read_tuned":
            yield "data/tune/best.yaml"
        elif called == "params.load":
            raise ValueError(f"{file}:{node.lineno}: params.load reads every section; a stage takes params.read(...)")
        elif called == "params.read":
            section = ast.unparse(node.args[0]) if node.args else ""
            if not section.startswith("params."):
                raise ValueError(f"{file}:{node.lineno}: write params.read(params.SECTION), not {ast.unparse(node)}")
            yield section.removeprefix("params.").lower()


def expected(stage: str, root: Path) -> tuple[list[str], list[str]]:
    """Code dependencies (with the lock file) and params of a stage, as dvc.yaml should declare them."""
    files = module_files(root)
    module = f"{PACKAGE}.stages.{stage}"
    if module not in files:
        raise ValueError(f"dvc.yaml has a stage {stage}, but there is no src/segline/stages/{stage}.py")
    code = closure(module, files)
    deps = [*sorted(file.relative_to(root).as_posix() for file in code), LOCK]
    sections = {name for file in code if file != files[f"{PACKAGE}.params"] for name in params_read(file)}
    return deps, sorted(sections - NOT_A_REASON_TO_RERUN)


def declared(stage: dict[str, Any]) -> tuple[list[str], list[str], list[str]]:
    """Code, data and params of one stage of dvc.yaml."""
    deps = stage.get("deps", [])
    code = [dep for dep in deps if is_code(dep)]
    # A params file other than params.yaml is declared as a mapping without keys: all of it.
    names = [name for entry in stage.get("params", []) for name in (entry if isinstance(entry, dict) else [entry])]
    return code, [dep for dep in deps if not is_code(dep)], names


def is_code(dep: str) -> bool:
    """Whether a dependency is written by this tool rather than by hand."""
    return dep == LOCK or dep.startswith("src/")


def rewrite(root: Path) -> None:
    """Bring the code dependencies and params of every stage in dvc.yaml up to date; all else stays."""
    yaml = YAML()
    yaml.width = 1000
    yaml.indent(mapping=2, sequence=4, offset=2)
    file = root / "dvc.yaml"
    pipeline = yaml.load(file.read_text())
    for name, stage in pipeline["stages"].items():
        code, sections = expected(name, root)
        _, data, _ = declared(stage)
        stage["deps"] = data + code
        stage["params"] = [{name: None} if name.endswith(".yaml") else name for name in sections]
    with file.open("w") as stream:
        yaml.dump(pipeline, stream)


if __name__ == "__main__":
    rewrite(Path(__file__).parents[1])
