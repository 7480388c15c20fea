"""Compute code digests: a digest changes if code changes, but not if comments, docstrings or formatting change.

Code digests are part of the resume key of a training run, the key of a search, the MD5 of a version and the key of the
score cache. The search for a version's commit also compares code digests. To detect that somebody altered a file, the
MD5 of the file is used instead (see `trust` and `intact`).
"""

import ast
import hashlib
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path

from segline import files
from segline.track.git import lf

LARGEST = 2**20  # bytes; larger files are not parsed, since the syntax tree of a 16 MiB file would take gigabytes
IGNORED_FIELDS = (
    "ctx",
    "kind",
    "type_comment",
)  # fields of syntax nodes; these fields follow from other fields or have no effect


def text_of(source: bytes) -> str:
    """Decode a Python file as UTF-8, even if a coding comment in the file declares another encoding.

    The digest is computed from this text, and `modules` compiles the same text. With two different encodings, a file
    could hide statements from the digest.

    Raises
    ------
    UnicodeDecodeError
        The bytes are not UTF-8.
    """
    return source.decode("utf-8-sig")


@lru_cache(maxsize=1024)
def of_source(source: bytes) -> str:
    """Return the code digest of a Python file: the MD5 of its syntax tree without docstrings.

    If the source is not valid Python or too large to parse, the digest is computed from its exact bytes.
    """
    digest = hashlib.md5(usedforsecurity=False)
    try:
        if len(source) > LARGEST:
            raise ValueError("too large to parse")
        tree = ast.parse(text_of(source))
        for token in _tokens(tree):
            digest.update(f"{token}\n".encode())
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        digest = hashlib.md5(b"not parsed\n" + source, usedforsecurity=False)
    return digest.hexdigest()


def of_file(path: str, content: bytes) -> str:
    """Return the code digest of a Python file, or the MD5 of any other file after conversion to LF line endings."""
    if path.endswith(".py"):
        return of_source(content)
    return files.bytes_md5(lf(content))


def of_sources(sources: Mapping[str, bytes]) -> str:
    """Return the code digest of a package; `sources` holds the Python files (path in the package -> content)."""
    lines = "".join(f"{path} {of_source(source)}\n" for path, source in sorted(sources.items()))
    return files.bytes_md5(lines.encode())


def of_folder(folder: Path) -> str:
    """Return the combined code digest of all Python files in `folder` and its subfolders."""
    return of_sources({file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*.py")})


def _tokens(tree: ast.AST) -> Iterator[str]:
    """Turn a syntax tree into a sequence of texts; different trees give different sequences.

    `ast.dump` and bytecode are not suitable, because both change with the Python version. The function does not call
    itself, because a recursion could fail if the call stack is already deep.
    """
    todo: list[object] = [tree]
    while todo:
        item = todo.pop()
        if isinstance(item, ast.AST):
            fields = [(name, value) for name, value in ast.iter_fields(item) if name not in IGNORED_FIELDS]
            # Leave out empty fields of a syntax tree node: newer Python versions add fields that are usually empty.
            present = [(name, value) for name, value in fields if value is not None and value != []]
            yield f"{type(item).__name__} {len(present)}"
            for name, value in reversed(present):
                todo += (value, name)
        elif isinstance(item, list):
            statements = [statement for statement in item if not _is_text(statement)]
            yield f"list {len(statements)}"
            todo += reversed(statements)
        else:
            yield ascii(item)


def _is_text(statement: object) -> bool:
    """Return whether a statement is only a string, such as a docstring."""
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )
