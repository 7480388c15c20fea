"""Import closures: the code that runs when a module does, and the sections of params.yaml that it reads.

Imports are found in the syntax tree, anywhere in a file. A way of importing or reading that cannot be found there is
refused, as the closure would lack it unnoticed.
"""

import ast
from functools import cache
from pathlib import Path

from segline import params
from segline.planning import recipe

PACKAGE = "segline"
PLANNED_SECTIONS = {name.split(".")[0] for name in params.PLANNED}
PARAMS = f"{PACKAGE}.params"
READERS = ("read", "read_fixed", "read_tuned", "load", "PARAMS_FILE")
FORM = (
    "read settings only by params.read(params.SECTION), params.read_fixed(recipe.NAMES) or params.read_tuned(), after "
    "`from segline import params`"
)


def module_files(root: Path) -> dict[str, Path]:
    """Return the files of all modules under `root`/src by dotted name; the file of a package is its __init__.py."""
    src = root / "src"
    files = {}
    for file in sorted((src / PACKAGE).rglob("*.py")):
        parts = file.relative_to(src).with_suffix("").parts
        files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return files


def closure(module: str, files: dict[str, Path]) -> set[Path]:
    """Return all files of segline that run when `module` does, the __init__.py of each package included."""
    reached: set[str] = set()
    todo = [module]
    while todo:
        name = todo.pop()
        while name and name not in files:
            name = name.rpartition(".")[0]
        if not name or name in reached:
            continue
        reached.add(name)
        todo.append(name.rpartition(".")[0])
        for imported in imported_names(files[name], name):
            todo.append(imported)
            if imported != PACKAGE and imported in files and files[imported].name == "__init__.py":
                # A package that is imported by its own name, as `import segline.model` to ship it, is used as a whole.
                todo += [inner for inner in files if inner.startswith(f"{imported}.")]
    return {files[name] for name in reached}


def imported_names(file: Path, module: str) -> tuple[str, ...]:
    """Return the dotted names that `file` imports anywhere, also in functions; the last part may not be a module.

    Raises
    ------
    ValueError
        The file imports in a way that cannot be followed.
    """
    try:
        return _imported_names(file.read_text(), _package(file, module))
    except ValueError as error:
        raise ValueError(f"{file}:{error}") from None


def params_read(file: Path, module: str) -> tuple[str, ...]:
    """Return the sections of params.yaml that `file` reads; `data/tune/best.yaml` stands for ``params.read_tuned()``.

    A section with settings that may be `auto` is also read from data/plan/plan.yaml.

    Raises
    ------
    ValueError
        The file reads settings in another form.
    """
    try:
        return _params_read(file.read_text(), _package(file, module))
    except ValueError as error:
        raise ValueError(f"{file}:{error}: {FORM}") from None


def _package(file: Path, module: str) -> str:
    return module if file.name == "__init__.py" else module.rpartition(".")[0]


# By content, as many tests read copies of the same files.
@cache
def _imported_names(source: str, package: str) -> tuple[str, ...]:
    names: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            if any(alias.name == "import_module" and alias.asname for alias in node.names):
                raise ValueError(f"{node.lineno}: write import_module by its own name")
            names += [f"{_origin(node, package)}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Call) and _last_name(node.func) == "import_module":
            name = node.args[0].value if node.args and isinstance(node.args[0], ast.Constant) else ""
            if not isinstance(name, str) or not name or name.startswith("."):
                raise ValueError(
                    f"{node.lineno}: an import by a computed or relative name has no closure; name the module"
                )
            names.append(name)
        elif isinstance(node, ast.Name) and node.id == "__import__":
            raise ValueError(f"{node.lineno}: __import__ has no closure; write an import statement")
    return tuple(names)


def _last_name(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def _origin(node: ast.ImportFrom, package: str) -> str:
    """Return the dotted name of the package or module from which names are imported."""
    parts = package.split(".")
    if node.level > len(parts):
        raise ValueError(f"{node.lineno}: the import climbs above the outermost package")
    base = ".".join(parts[: len(parts) - node.level + 1]) if node.level else ""
    return ".".join(part for part in (base, node.module) if part)


@cache
def _params_read(source: str, package: str) -> tuple[str, ...]:
    tree = ast.parse(source)
    _refuse_other_names(tree, package)
    calls = {id(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}
    sections: list[str] = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute) or not isinstance(node.value, ast.Name) or node.value.id != "params":
            continue
        call = calls.get(id(node))
        if node.attr == "read_tuned" and call:
            sections.append("data/tune/best.yaml")
        elif node.attr == "read" and call:
            section = ast.unparse(call.args[0]) if call.args else ""
            if not section.startswith("params."):
                raise _unfindable(node, ast.unparse(call))
            sections.append(section.removeprefix("params.").lower())
            if sections[-1] in PLANNED_SECTIONS:
                sections.append(f"{params.PLAN_FILE}:{sections[-1]}")
        elif node.attr == "read_fixed" and call:
            names = ast.unparse(call.args[0]) if call.args else ""
            if names not in ("recipe.INPUTS", "recipe.TIMED"):
                raise _unfindable(node, ast.unparse(call))
            sections += getattr(recipe, names.removeprefix("recipe."))
        elif node.attr in READERS:
            raise _unfindable(node, ast.unparse(node))
    return tuple(sections)


def _refuse_other_names(tree: ast.Module, package: str) -> None:
    """Refuse segline.params, and the functions in it that read settings, under any name but `params`."""
    owners = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    imported = False
    for node in ast.walk(tree):
        if isinstance(node, ast.Import) and any(alias.name == PARAMS for alias in node.names):
            raise _unfindable(node, ast.unparse(node))
        if isinstance(node, ast.ImportFrom):
            names = {f"{_origin(node, package)}.{alias.name}": alias.asname for alias in node.names}
            readers = {f"{PARAMS}.{name}" for name in (*READERS, "*")} & set(names)
            if readers or names.get(PARAMS) not in (None, "params"):
                raise _unfindable(node, ast.unparse(node))
            imported |= PARAMS in names
        by_text = isinstance(node, ast.Constant) and node.value == PARAMS
        if by_text or (isinstance(node, ast.Attribute) and node.attr == "params" and ast.unparse(node) == PARAMS):
            raise _unfindable(node, PARAMS)
    for node in ast.walk(tree):
        if imported and isinstance(node, ast.Name) and node.id == "params" and id(node) not in owners:
            raise _unfindable(node, "params without an attribute")


def _unfindable(node: ast.AST, code: str) -> ValueError:
    return ValueError(f"{getattr(node, 'lineno', 0)}: {code}")
