"""Names and links that another machine would not have as they are here."""

import os
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from segline.data.checks.examine import name_of
from segline.data.checks.problems import Problem
from segline.data.dataset import GROUPS, SPEC, Dataset

WINDOWS_FORBIDS = re.compile(r'[<>:"|?*\\]|[. ]$')
# Where DVC keeps content, and where its links lead when cache.type is symlink: DVC 3 in files/md5 of its cache, DVC 2
# in the cache itself, wherever cache.dir has that be.
DVC_CACHE = re.compile(r"/[0-9a-f]{2}/[0-9a-f]{30}$")


def problems(dataset: Dataset) -> Iterator[Problem]:
    """What is wrong with names and links, without opening a file."""
    yield from _colliding(dataset)
    labels = [*dataset.instances.values(), *dataset.classes.values()]
    for file in (dataset.folder / SPEC, dataset.folder / GROUPS, *dataset.images.values(), *labels):
        name = name_of(dataset, file)
        yield from _name(name, file)
        yield from _link(name, file, dataset.folder)


def _colliding(dataset: Dataset) -> Iterator[Problem]:
    """Images whose stems differ by case or by the composition of their letters only."""
    first: dict[str, str] = {}
    for stem in dataset.stems:
        other = first.setdefault(unicodedata.normalize("NFC", stem).casefold(), stem)
        if other != stem:
            name, twin = (name_of(dataset, dataset.images[one]) for one in (stem, other))
            message = f"differs from {twin} by case only, which Windows and macOS take for one name; rename one"
            yield Problem("error", name, message, kind="names that differ by case only")


def _name(name: str, file: Path) -> Iterator[Problem]:
    kinds = {unicodedata.category(letter) for letter in file.name}
    if kinds & {"Cs", "Cc", "Zl", "Zp"}:
        what = "bytes that are no UTF-8" if "Cs" in kinds else "a control character"
        message = f"the name holds {what}, which tables and other machines cannot hold; rename it"
        yield Problem("error", name, message, kind="names that cannot be written in a table")
    elif WINDOWS_FORBIDS.search(file.stem):
        message = 'Windows allows no name with < > : " | ? * \\, or a dot or space at its end; better rename it'
        yield Problem("warning", name, message, kind="names that Windows does not allow")


def _link(name: str, file: Path, folder: Path) -> Iterator[Problem]:
    """A link to another place, unless it is one into DVC's cache, which DVC itself made."""
    if not (file.is_symlink() or file.parent.is_symlink()):
        return
    # Unlike Path.resolve, this survives links that lead to themselves.
    target = Path(os.path.realpath(file))
    if not target.is_relative_to(os.path.realpath(folder)) and not DVC_CACHE.search(target.as_posix()):
        message = f"a link to {target}, outside the dataset; other machines do not have that: copy the file here"
        yield Problem("error", name, message, kind="links out of the dataset")
