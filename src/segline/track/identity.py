"""Identity of code: digests that change with the code, and not with its comments, docstrings and layout.

The resume key of a training, the key of a search, the MD5 of a version, the search for a version's commit and the
score cache all compare code by these digests. They tell code apart by what it does. Whether a file was tampered with
is a different question, which the MD5s of the files themselves answer (see `trust` and `intact`).
"""

import ast
import hashlib
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path

from segline import files
from segline.track.git import lf

LARGEST = 2**20  # bytes of source that are parsed; the syntax tree of a planted 16 MiB file would take gigabytes
IGNORED_FIELDS = ("ctx", "kind", "type_comment")  # of syntax nodes: implied by the position, or without an effect


def text_of(source: bytes) -> str:
    """Return the text of a Python file, which is UTF-8 whatever a coding comment declares.

    The digest is of this text, and `modules` compiles this text. A file whose comments could hide statements under
    another encoding is therefore read in one way only.

    Raises
    ------
    UnicodeDecodeError
        The bytes are not UTF-8.
    """
    return source.decode("utf-8-sig")


@lru_cache(maxsize=1024)
def of_source(source: bytes) -> str:
    """Return the identity of one Python file: the MD5 of its syntax tree without docstrings.

    Bytes that are not Python, or too large to parse, have the identity of their exact content.
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
    """Return the identity of the file at `path`: of its code if it is a Python file, else of its lines."""
    if path.endswith(".py"):
        return of_source(content)
    return files.bytes_md5(lf(content))


def of_sources(sources: Mapping[str, bytes]) -> str:
    """Return the identity of a package, given its Python files by their paths in it."""
    lines = "".join(f"{path} {of_source(source)}\n" for path, source in sorted(sources.items()))
    return files.bytes_md5(lines.encode())


def of_folder(folder: Path) -> str:
    """Return the identity of the Python files in `folder` and below."""
    return of_sources({file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*.py")})


def _tokens(tree: ast.AST) -> Iterator[str]:
    """Yield the tokens of a syntax tree in preorder, lengths included, so that different trees give different tokens.

    Neither `ast.dump` nor bytecode would do: both change with the Python version. A stack instead of recursion keeps
    the result independent of the depth at which it is called.
    """
    todo: list[object] = [tree]
    while todo:
        item = todo.pop()
        if isinstance(item, ast.AST):
            fields = [(name, value) for name, value in ast.iter_fields(item) if name not in IGNORED_FIELDS]
            # Python versions differ in the empty fields that a node has.
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
    """Return whether a statement is a bare string: a docstring, or the explanation below a field."""
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )
