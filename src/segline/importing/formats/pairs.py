"""Pair images with masks by their file names."""

import re
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path

from segline import names
from segline.data.imagefiles import JPEG_2000, LOSSY
from segline.importing.layout import READABLE, ImportOptions, LayoutError, first_few

MASK_WORDS = "(?:cp_)?masks?|labels?|lbl|seg|segmentation|gt|ground_?truth|annotations?"
IMAGE_WORDS = "images?|img|im|raw"

Naming = Callable[[Path], str]  # returns a name for a file; an image and its mask get the same name


@dataclass(frozen=True)
class Pairs:
    """Two dicts whose keys are the stems of the images: one dict of images, and one dict of masks.

    `rule` tells the user how images and masks were paired. An image without mask holds background only.
    """

    images: Mapping[str, Path]
    masks: Mapping[str, Path]
    rule: str


def stem(file: Path) -> str:
    """Return the file name in Unicode form NFC, without a suffix such as `.tif` or `.ome.tif`."""
    return names.composed(file.stem).removesuffix(".ome")


def in_two_folders(images: Sequence[Path], masks: Sequence[Path], options: ImportOptions) -> Pairs:
    """Pair images and masks by their names: try several rules, and use the first that leaves no file unpaired.

    If every rule leaves files unpaired, use the rule that finds the most pairs.

    Raises
    ------
    LayoutError
        Files remain unpaired without --skip-unpaired, or two files have the same stem.
    """
    for files in (images, masks):
        _by_name(files, stem, refuse=True)
    of_mask = _without(MASK_WORDS)
    rules = (
        ("paired by stem", stem, stem),
        ("paired by stem, without words such as mask, label, seg or gt in the names of masks", stem, of_mask),
        ("paired by stem, without words such as image, raw, mask, label, seg or gt", _without(IMAGE_WORDS), of_mask),
        ("paired by the part in which the stems differ", _without_shared(images), _without_shared(masks)),
    )
    best: tuple[int, str, dict[str, Path], dict[str, Path]] | None = None
    for rule, name_image, name_mask in rules:
        image_by_name, mask_by_name = _by_name(images, name_image), _by_name(masks, name_mask)
        if image_by_name and set(image_by_name) == set(mask_by_name):
            return _pairs(image_by_name, mask_by_name, rule, options)
        common = len(set(image_by_name) & set(mask_by_name))
        if best is None or common > best[0]:
            best = common, rule, image_by_name, mask_by_name
    assert best is not None
    _, rule, image_by_name, mask_by_name = best
    return _pairs(image_by_name, mask_by_name, rule, options)


def in_one_folder(files: Sequence[Path], options: ImportOptions) -> Pairs | None:
    """Pair images and masks that are in one folder; return None if no file is a mask.

    For example, `a` or `a_img` pairs with `a_mask` or `mask_a`, and `a.jpg` pairs with `a.png`.

    Raises
    ------
    LayoutError
        Files remain unpaired without --skip-unpaired, or an image has two masks.
    """
    of_image, of_mask = _without(IMAGE_WORDS), _without(MASK_WORDS)
    image_names = {naming(file) for naming in (stem, of_image) for file in files}
    masks = [file for file in files if of_mask(file) != stem(file) and of_mask(file) in image_names]
    if not masks:
        return _by_file_type(files, options)
    is_mask = set(masks)
    images = [file for file in files if file not in is_mask]
    mask_by_name = _by_name(masks, of_mask, refuse=True)
    whole_stems = all(stem(file) in mask_by_name for file in images)
    rule = "masks beside the images, paired by stem, without words such as mask, label, seg or gt"
    return _pairs(_by_name(images, stem if whole_stems else of_image, refuse=True), mask_by_name, rule, options)


def _by_file_type(files: Sequence[Path], options: ImportOptions) -> Pairs | None:
    """Treat JPEG files as images and all other files as masks, and pair them.

    If there are no JPEG files, JPEG 2000 files are the images. Return None if a mask has no image.
    """
    types = LOSSY if any(file.suffix.lower() in LOSSY for file in files) else JPEG_2000
    images = [file for file in files if file.suffix.lower() in types]
    masks = [file for file in files if file.suffix.lower() not in types]
    if not masks or not set(map(stem, masks)) <= set(map(stem, images)):
        return None
    image_by_name, mask_by_name = (_by_name(files, stem, refuse=True) for files in (images, masks))
    return _pairs(image_by_name, mask_by_name, "masks beside the images (the JPEG files are the images)", options)


def by_pattern(source: Path, files: Sequence[Path], images: str, masks: str, options: ImportOptions) -> Pairs:
    """Pair files below `source` by the patterns `images` and `masks`; `*` must match the same text in image and mask.

    `*` matches any text without `/`, `**/` matches nested folders of any depth, and `?` matches a single character. A
    `*` at the end also matches the file ending. A pattern that names a folder matches the files in this folder. Files
    that match `masks` are not images. If both patterns match whole folders and the file names differ,
    `in_two_folders` pairs the files.

    Raises
    ------
    LayoutError
        A pattern matches no file, or its `*` matches the same text in two files. Or files remain unpaired, and
        --skip-unpaired is not set.
    """
    images, masks = (
        f"{name.rstrip('/')}/*" if names.on_disk(source / name).is_dir() else name for name in (images, masks)
    )
    mask_by_text = _matching(source, files, "--masks", masks)
    is_mask = set(mask_by_text.values())
    image_by_text = _matching(source, [file for file in files if file not in is_mask], "--images", images)
    rule = f"images {images}, masks {masks}, "
    if image_by_text.keys() != mask_by_text.keys() and all(_is_folder(pattern) for pattern in (images, masks)):
        by_name = in_two_folders(list(image_by_text.values()), list(mask_by_text.values()), options)
        return replace(by_name, rule=rule + by_name.rule)
    return _pairs(image_by_text, mask_by_text, rule + "paired by the text at *", options)


def _is_folder(pattern: str) -> bool:
    """Return whether a pattern matches all files of a folder, whatever their names."""
    return pattern.endswith("/*") and pattern.count("*") == 1


def _matching(source: Path, files: Sequence[Path], option: str, pattern: str) -> dict[str, Path]:
    """Return the `files` that match `pattern`; the key of each file is the text that `*` matches."""
    expression = re.compile(_expression(names.composed(pattern)))
    by_text: dict[str, Path] = {}
    for file in files:
        match = expression.fullmatch(names.composed(file.relative_to(source).as_posix()))
        if not match:
            continue
        name = "_".join(part.strip("/").replace("/", "_") for part in match.groups() if part) or stem(file)
        if name in by_text:
            if by_text[name].name != file.name and names.composed(by_text[name].name) == names.composed(file.name):
                raise LayoutError(names.differ([by_text[name], file]))
            raise LayoutError(
                f"{option} {pattern!r}: * matches the same text in {by_text[name]} and in {file}, but must match "
                "different text in each file; let * cover the part in which these paths differ, or give a pattern that "
                "matches only one of these files"
            )
        by_text[name] = file
    if not by_text:
        existing = first_few([file.relative_to(source).as_posix() for file in files], 3) or "no file"
        raise LayoutError(f"{option} {pattern!r} matches no file below {source}; files there: {existing}")
    return by_text


def _expression(pattern: str) -> str:
    """Convert a file pattern to a regular expression with one group per star."""
    pattern = pattern.removeprefix("./") + ("/*" if pattern.endswith("**") else "")
    ending = next((ending for ending in ("*.*", ".*", "*") if pattern.endswith(ending)), "")
    body = pattern.removesuffix(ending)
    parts = re.split(r"(\*\*/|\*|\?)", body)
    signs = {"**/": "((?:[^/]+/)*)", "*": "([^/]*)", "?": "[^/]"}
    expression = "".join(signs.get(part, re.escape(part)) for part in parts)
    readable = "|".join(re.escape(suffix) for suffix in READABLE)
    return expression + {"": "", ".*": f"(?i:{readable})"}.get(ending, f"([^/]*)(?i:{readable})")


def _without(words: str) -> Naming:
    """Return a function that removes one of `words` from the end of a stem, or else from the start of the stem."""
    after = re.compile(rf"(.+?)[-_. ](?:{words})", re.IGNORECASE)
    before = re.compile(rf"(?:{words})[-_. ](.+)", re.IGNORECASE)

    def name(file: Path) -> str:
        match = after.fullmatch(stem(file)) or before.fullmatch(stem(file))
        return match[1] if match else stem(file)

    return name


def _without_shared(files: Sequence[Path]) -> Naming:
    """Return a function that removes from a stem the words with which all stems of `files` begin or end."""
    stems = [stem(file) for file in files]
    start, end = _shared_words(stems), _shared_words([name[::-1] for name in stems])[::-1]
    return lambda file: stem(file).removeprefix(start).removesuffix(end)


def _shared_words(stems: Sequence[str]) -> str:
    """Return the words that all `stems` begin with, as one text."""
    first, last = min(stems, default=""), max(stems, default="")  # a prefix of both is a prefix of all
    length = next((place for place, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), 0)
    word_end = max(first.rfind(sign, 0, length) for sign in "-_. ")
    return first[: word_end + 1]


def _by_name(files: Sequence[Path], naming: Naming, refuse: bool = False) -> dict[str, Path]:
    """Return a mapping from name to file; the function `naming` derives the name from the file.

    If two files have the same name, raise LayoutError if `refuse` is True, and return an empty mapping otherwise.
    """
    by_name: dict[str, Path] = {}
    for file in files:
        name = naming(file)
        if name in by_name:
            if refuse and names.composed(by_name[name].name) == names.composed(file.name):
                raise LayoutError(names.differ([by_name[name], file]))
            if refuse:
                raise LayoutError(
                    f"{file} and {by_name[name].name} have the same name, {name}, but each name may have only one "
                    "image and one mask; rename or remove one, or select files with --images and --masks, such as "
                    "--masks '*_mask.png'"
                )
            return {}
        by_name[name] = file
    return by_name


def _pairs(images: Mapping[str, Path], masks: Mapping[str, Path], rule: str, options: ImportOptions) -> Pairs:
    both, bare, stray = set(images) & set(masks), set(images) - set(masks), set(masks) - set(images)
    if bare:
        rule += f"; {_unpaired('images', 'mask', bare, images)}"
        rule += "; they hold background only (--missing-as-background)" * options.missing_as_background
    if stray:
        rule += f"; {_unpaired('masks', 'image', stray, masks)}"
    refused = stray if options.missing_as_background else bare | stray
    if not both or (refused and not options.skip_unpaired):
        empty = "; for images that hold only background, add --missing-as-background" if bare else ""
        raise LayoutError(
            f"some files have no partner: {rule}. Add the missing files, give --images and --masks patterns that match "
            "the pairs (`*` stands for the text that both names share), or use --skip-unpaired to leave out files "
            "without a partner"
            f"{empty if both else ''}"
        )
    rule += "; files without a partner are left out" if refused else ""
    taken = sorted(both | bare if options.missing_as_background else both)
    stems = {name: names.composed(images[name].stem) for name in taken}
    if len(set(stems.values())) < len(taken):  # images in several folders have the same name
        stems = {name: name for name in taken}
    partners = {stems[name]: masks[name] for name in taken if name in masks}
    return Pairs({stems[name]: images[name] for name in taken}, partners, rule)


def _unpaired(files: str, partner: str, unpaired: Set[str], file_by_name: Mapping[str, Path]) -> str:
    examples = first_few([file_by_name[name].name for name in sorted(unpaired)], 5)
    return f"{len(unpaired)} of {len(file_by_name)} {files} have no {partner}: {examples}"
