"""Import closures: the code that runs when a module does, and the sections of params.yaml that it reads.

Imports are found in the syntax tree, anywhere in a file. A way of importing or reading that cannot be found there is
refused, as the closure would lack it unseen.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE = "segline"
PARAMS = f"{PACKAGE}.params"
READERS = ("read", "read_tuned", "load", "PARAMS_FILE")


def module_files(root: Path) -> dict[str, Path]:
    """Return the files of all modules under `root`/src by dotted name; the file of a package is its __init__.py."""
    src = root / "src"
    files = {}
    for file in sorted((src / PACKAGE).rglob("*.py")):
        parts = file.relative_to(src).with_suffix("").parts
        files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return files


def imported_names(file: Path, module: str) -> Iterator[str]:
    """Yield the dotted names that `file` imports anywhere, also inside functions; the last part may not be a module."""
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
    """Return the dotted name of the package or module that names are imported from."""
    parts = package.split(".")
    if node.level > len(parts):
        raise ValueError(f"{file}:{node.lineno}: the import climbs above the outermost package")
    base = ".".join(parts[: len(parts) - node.level + 1]) if node.level else ""
    return ".".join(part for part in (base, node.module) if part)


def closure(module: str, files: dict[str, Path]) -> set[Path]:
    """Return all files of segline that run when `module` does, the __init__.py of each package included."""
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
                # A package that is imported by its own name, as `import segline.model` to ship it, is used as a whole.
                todo += [inner for inner in files if inner.startswith(f"{imported}.")]
    return {files[name] for name in found}


def params_read(file: Path, module: str) -> Iterator[str]:
    """Yield the sections of params.yaml that `file` reads; `data/tune/best.yaml` stands for ``params.read_tuned()``.

    Raises
    ------
    ValueError
        The file reads settings in another way.
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
    """Refuse segline.params, and the functions in it that read settings, under any name but `params`."""
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
            raise _unfindable(file, name, "params without an attribute")


def _unfindable(file: Path, node: ast.AST, code: str) -> ValueError:
    where = f"{file}:{getattr(node, 'lineno', 0)}"
    return ValueError(
        f"{where}: {code}: read settings only by params.read(params.SECTION) or params.read_tuned(), "
        "after `from segline import params`"
    )
