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
PARAMS = f"{PACKAGE}.params"
READERS = ("read", "read_tuned", "load", "PARAMS_FILE")
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
            source = _source(node, package, file)
            for alias in node.names:
                if alias.name == "import_module" and alias.asname:
                    raise ValueError(f"{file}:{node.lineno}: write import_module by its own name")
                yield f"{source}.{alias.name}"
        elif isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] == "import_module":
            name = node.args[0].value if node.args and isinstance(node.args[0], ast.Constant) else ""
            if not isinstance(name, str) or not name or name.startswith("."):
                raise ValueError(
                    f"{file}:{node.lineno}: an import by a computed or relative name has no closure; name the module"
                )
            yield name
        elif isinstance(node, ast.Name) and node.id == "__import__":
            raise ValueError(f"{file}:{node.lineno}: __import__ has no closure; write an import statement")


def _source(node: ast.ImportFrom, package: str, file: Path) -> str:
    """Dotted name of the package or module that names are imported from."""
    parts = package.split(".")
    if node.level > len(parts):
        raise ValueError(f"{file}:{node.lineno}: the import climbs above the outermost package")
    base = ".".join(parts[: len(parts) - node.level + 1]) if node.level else ""
    return ".".join(part for part in (base, node.module) if part)


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


def params_read(file: Path, module: str) -> Iterator[str]:
    """Sections of params.yaml that `file` reads; `data/tune/best.yaml` stands for ``params.read_tuned()``.

    Any other form of reading is refused, as it could not be found.
    """
    _refuse_other_names(file, module)
    tree = ast.parse(file.read_text(), str(file))
    called = {id(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute) or not isinstance(node.value, ast.Name) or node.value.id != "params":
            continue
        call = called.get(id(node))
        if node.attr == "read_tuned" and call:
            yield "data/tune/best.yaml"
        elif node.attr == "read" and call:
            section = ast.unparse(call.args[0]) if call.args else ""
            if not section.startswith("params."):
                raise _unfindable(file, node, ast.unparse(call))
            yield section.removeprefix("params.").lower()
        elif node.attr in READERS:
            raise _unfindable(file, node, ast.unparse(node))


def _refuse_other_names(file: Path, module: str) -> None:
    """Refuse every way to segline.params or what reads in it under a name other than `params`."""
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    tree = ast.parse(file.read_text(), str(file))
    owners = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    imported = False
    for node in ast.walk(tree):
        if isinstance(node, ast.Import) and any(alias.name == PARAMS for alias in node.names):
            raise _unfindable(file, node, ast.unparse(node))
        if isinstance(node, ast.ImportFrom):
            names = {f"{_source(node, package, file)}.{alias.name}": alias.asname for alias in node.names}
            taken = {f"{PARAMS}.{name}" for name in (*READERS, "*")} & set(names)
            if taken or names.get(PARAMS) not in (None, "params"):
                raise _unfindable(file, node, ast.unparse(node))
            imported |= PARAMS in names
        by_text = isinstance(node, ast.Constant) and node.value == PARAMS
        if by_text or (isinstance(node, ast.Attribute) and ast.unparse(node) == PARAMS):
            raise _unfindable(file, node, PARAMS)
    bare = [node for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id == "params"]
    for name in bare:
        if imported and id(name) not in owners:
            raise _unfindable(file, name, "params without what is taken from it")


def _unfindable(file: Path, node: ast.AST, found: str) -> ValueError:
    where = f"{file}:{getattr(node, 'lineno', 0)}"
    return ValueError(
        f"{where}: {found}: what a stage reads is found only as params.read(params.SECTION) or params.read_tuned(), "
        "after `from segline import params`"
    )


def expected(stage: str, root: Path) -> tuple[list[str], list[str]]:
    """Code dependencies (with the lock file) and params of a stage, as dvc.yaml should declare them."""
    files = module_files(root)
    module = f"{PACKAGE}.stages.{stage}"
    if module not in files:
        raise ValueError(f"dvc.yaml has a stage {stage}, but there is no src/segline/stages/{stage}.py")
    code = closure(module, files)
    deps = [*sorted(file.relative_to(root).as_posix() for file in code), LOCK]
    readers = {name: file for name, file in files.items() if file in code and name != PARAMS}
    sections = {section for name, file in readers.items() for section in params_read(file, name)}
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
