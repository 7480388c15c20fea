"""Which mask belongs to which image, told from the names of the files."""

import re
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path

from segline import names
from segline.data.imagefiles import JPEG_2000, LOSSY
from segline.importing.formats import READABLE, LayoutError, Wishes, some

MASK_WORDS = "(?:cp_)?masks?|labels?|lbl|seg|segmentation|gt|ground_?truth|annotations?"
IMAGE_WORDS = "images?|img|im|raw"

Name = Callable[[Path], str]  # of a file: what an image and its mask have in common


@dataclass(frozen=True)
class Pairs:
    """Images and masks by the stem of the image, and how they were found to belong together.

    An image without mask holds background only.
    """

    images: Mapping[str, Path]
    masks: Mapping[str, Path]
    how: str


def stem(file: Path) -> str:
    """The name of a file without its endings, in NFC."""
    return names.composed(file.stem).removesuffix(".ome")


def in_two_folders(images: Sequence[Path], masks: Sequence[Path], wishes: Wishes) -> Pairs:
    """Pair by the first rule that leaves no file alone; if none does, by the rule that leaves the fewest.

    Raises
    ------
    LayoutError
        Files stay alone that are not to be skipped, or two files have one stem.
    """
    for files in (images, masks):
        _by(files, stem, refuse=True)
    of_mask = _without(MASK_WORDS)
    rules = (
        ("paired by stem", stem, stem),
        ("paired by stem, the masks' without mask, label, seg or gt", stem, of_mask),
        ("paired by stem, without image or raw, mask, label, seg or gt", _without(IMAGE_WORDS), of_mask),
        ("paired by what differs within the stems", _without_shared(images), _without_shared(masks)),
    )
    best: tuple[int, str, dict[str, Path], dict[str, Path]] | None = None
    for how, name_image, name_mask in rules:
        one, other = _by(images, name_image), _by(masks, name_mask)
        if one and set(one) == set(other):
            return _pairs(one, other, how, wishes)
        common = len(set(one) & set(other))
        if best is None or common > best[0]:
            best = common, how, one, other
    assert best is not None
    _, how, one, other = best
    return _pairs(one, other, how, wishes)


def in_one_folder(files: Sequence[Path], wishes: Wishes) -> Pairs | None:
    """Pair `a` or `a_img` with `a_mask`, `mask_a` and the like, or `a.jpg` with `a.png`; None where no file is a mask.

    Raises
    ------
    LayoutError
        Files stay alone that are not to be skipped, or two masks are of one image.
    """
    of_image, of_mask = _without(IMAGE_WORDS), _without(MASK_WORDS)
    known = {name(file) for name in (stem, of_image) for file in files}
    masks = [file for file in files if of_mask(file) != stem(file) and of_mask(file) in known]
    if not masks:
        return _by_kind(files, wishes)
    taken = set(masks)
    images = [file for file in files if file not in taken]
    by_stem = _by(masks, of_mask, refuse=True)
    whole = all(stem(file) in by_stem for file in images)
    how = "masks beside the images, paired by stem without mask, label, seg or gt"
    return _pairs(_by(images, stem if whole else of_image, refuse=True), by_stem, how, wishes)


def _by_kind(files: Sequence[Path], wishes: Wishes) -> Pairs | None:
    """Pair JPEG images, or else JPEG 2000 images, with the other files, where each of these has an image."""
    kinds = LOSSY if any(file.suffix.lower() in LOSSY for file in files) else JPEG_2000
    images = [file for file in files if file.suffix.lower() in kinds]
    masks = [file for file in files if file.suffix.lower() not in kinds]
    if not masks or not set(map(stem, masks)) <= set(map(stem, images)):
        return None
    one, other = (_by(files, stem, refuse=True) for files in (images, masks))
    return _pairs(one, other, "masks beside the images, which are the JPEG files", wishes)


def by_pattern(source: Path, files: Sequence[Path], images: str, masks: str, wishes: Wishes) -> Pairs:
    """Pair the files below `source` that fit the pattern `images` with those that fit `masks` and have the same at `*`.

    `*` is anything but `/`, `**/` any folders, `?` one character; a `*` at the end stands for any ending too. A pattern
    that names a folder means the files in it. Files that fit `masks` are no images. All files of one folder and all of
    another are paired as in `in_two_folders`, where they have not the same names.

    Raises
    ------
    LayoutError
        A pattern fits nothing, or the same at `*` twice, or files stay alone that are not to be skipped.
    """
    images, masks = (
        f"{name.rstrip('/')}/*" if names.on_disk(source / name).is_dir() else name for name in (images, masks)
    )
    found: dict[str, dict[str, Path]] = {}
    for flag, pattern in (("--masks", masks), ("--images", images)):
        taken = set(found.get("--masks", {}).values())
        found[flag] = _fitting(source, [file for file in files if file not in taken], flag, pattern)
    how = f"images {images}, masks {masks}, "
    if found["--images"].keys() != found["--masks"].keys() and all(_is_folder(pattern) for pattern in (images, masks)):
        by_name = in_two_folders(list(found["--images"].values()), list(found["--masks"].values()), wishes)
        return replace(by_name, how=how + by_name.how)
    return _pairs(found["--images"], found["--masks"], how + "paired by what is at *", wishes)


def _is_folder(pattern: str) -> bool:
    """Whether a pattern means all files of one folder, so that nothing is said of their names."""
    return pattern.endswith("/*") and pattern.count("*") == 1


def _fitting(source: Path, files: Sequence[Path], flag: str, pattern: str) -> dict[str, Path]:
    """Of `files` those that fit, by what is at `*`."""
    fits = re.compile(_expression(names.composed(pattern)))
    fitting: dict[str, Path] = {}
    for file in files:
        match = fits.fullmatch(names.composed(file.relative_to(source).as_posix()))
        if not match:
            continue
        name = "_".join(part.strip("/").replace("/", "_") for part in match.groups() if part) or stem(file)
        if name in fitting:
            if fitting[name].name != file.name and names.composed(fitting[name].name) == names.composed(file.name):
                raise LayoutError(names.differ([fitting[name], file]))
            raise LayoutError(f"{flag} {pattern!r}: {fitting[name]} and {file} have the same at *; be more particular")
        fitting[name] = file
    if not fitting:
        there = some([file.relative_to(source).as_posix() for file in files], 3) or "no file"
        raise LayoutError(f"{flag} {pattern!r} fits no file below {source}; there are {there}")
    return fitting


def _expression(pattern: str) -> str:
    """As a regular expression, one group for each star."""
    pattern = pattern.removeprefix("./") + ("/*" if pattern.endswith("**") else "")
    ending = next((ending for ending in ("*.*", ".*", "*") if pattern.endswith(ending)), "")
    body = pattern.removesuffix(ending)
    parts = re.split(r"(\*\*/|\*|\?)", body)
    signs = {"**/": "((?:[^/]+/)*)", "*": "([^/]*)", "?": "[^/]"}
    expression = "".join(signs.get(part, re.escape(part)) for part in parts)
    readable = "|".join(re.escape(suffix) for suffix in READABLE)
    return expression + {"": "", ".*": f"(?i:{readable})"}.get(ending, f"([^/]*)(?i:{readable})")


def _without(words: str) -> Name:
    """The stem without one of `words` after it or, if there is none, before it."""
    after = re.compile(rf"(.+?)[-_. ](?:{words})", re.IGNORECASE)
    before = re.compile(rf"(?:{words})[-_. ](.+)", re.IGNORECASE)

    def name(file: Path) -> str:
        match = after.fullmatch(stem(file)) or before.fullmatch(stem(file))
        return match[1] if match else stem(file)

    return name


def _without_shared(files: Sequence[Path]) -> Name:
    """The stem without the whole words with which all stems begin and end."""
    stems = [stem(file) for file in files]
    begin, end = _shared_words(stems), _shared_words([name[::-1] for name in stems])[::-1]
    return lambda file: stem(file).removeprefix(begin).removesuffix(end)


def _shared_words(stems: Sequence[str]) -> str:
    """The beginning that all names have, up to the end of a word."""
    first, last = min(stems, default=""), max(stems, default="")  # what these two share, all share
    length = next((place for place, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), 0)
    word_end = max(first.rfind(sign, 0, length) for sign in "-_. ")
    return first[: word_end + 1]


def _by(files: Sequence[Path], name: Name, refuse: bool = False) -> dict[str, Path]:
    """`files` by name; where two have one name, that is refused, or nothing is found."""
    found: dict[str, Path] = {}
    for file in files:
        if name(file) in found:
            if refuse and names.composed(found[name(file)].name) == names.composed(file.name):
                raise LayoutError(names.differ([found[name(file)], file]))
            if refuse:
                raise LayoutError(
                    f"{file} and {found[name(file)].name} have one name, {name(file)}, but a name is of one image and "
                    "one mask; rename or remove one, or choose with --images and --masks, such as --masks '*_mask.png'"
                )
            return {}
        found[name(file)] = file
    return found


def _pairs(images: Mapping[str, Path], masks: Mapping[str, Path], how: str, wishes: Wishes) -> Pairs:
    both, bare, stray = set(images) & set(masks), set(images) - set(masks), set(masks) - set(images)
    if bare:
        how += f"; {_alone('images', 'mask', bare, images)}"
        how += "; they hold background only, as told" * wishes.missing_as_background
    if stray:
        how += f"; {_alone('masks', 'image', stray, masks)}"
    refused = stray if wishes.missing_as_background else bare | stray
    if not both or (refused and not wishes.skip_unpaired):
        empty = "; images that hold nothing but background need none with --missing-as-background" if bare else ""
        raise LayoutError(
            f"{how}. Add the partners, say what pairs with --images and --masks (`*` is what both have in common), "
            f"or leave these out with --skip-unpaired{empty if both else ''}"
        )
    how += "; left out" if refused else ""
    taken = sorted(both | bare if wishes.missing_as_background else both)
    stems = {name: names.composed(images[name].stem) for name in taken}
    if len(set(stems.values())) < len(taken):  # images of one name in several folders
        stems = {name: name for name in taken}
    partners = {stems[name]: masks[name] for name in taken if name in masks}
    return Pairs({stems[name]: images[name] for name in taken}, partners, how)


def _alone(these: str, those: str, keys: Set[str], files: Mapping[str, Path]) -> str:
    which = some([files[key].name for key in sorted(keys)], 5)
    return f"{len(keys)} of {len(files)} {these} have no {those}: {which}"
