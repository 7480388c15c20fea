"""What a dataset holds, in figures, as a table to read."""

from collections import Counter
from collections.abc import Iterator, Sequence

from segline.data.checks.examine import Checked
from segline.data.dataset import Dataset

CHANNELS = {1: "grey", 3: "RGB"}


def lines(dataset: Dataset, checked: Sequence[Checked], instances: int | None = None) -> Iterator[str]:
    """Images, sizes, types, groups, instances where they are counted, and the share of each class."""
    rows = [("images", _images(checked)), ("pixels", _forms(checked)), ("labels", dataset.spec.labels)]
    groups = len(set(dataset.groups.values()))
    if groups < len(dataset.groups):
        rows.append(("groups", f"{groups}"))
    if instances is not None:
        rows.append(("instances", f"{instances}, {instances / max(1, len(checked)):.1f} an image"))
    yield from (f"  {name:<10}{value}" for name, value in rows)
    yield from _classes(dataset, checked)


def _images(checked: Sequence[Checked]) -> str:
    sizes = Counter(image.size for image in checked if image.size)
    if not sizes:
        return f"{len(checked)}"
    (low, high), (left, right) = ((min(side), max(side)) for side in zip(*sizes, strict=True))
    span = f"{left}x{low} px" if len(sizes) == 1 else f"{left}x{low} to {right}x{high} px ({len(sizes)} sizes)"
    return f"{len(checked)}, {span}"


def _forms(checked: Sequence[Checked]) -> str:
    forms = Counter(image.form for image in checked if image.form)
    names = [
        (f"{dtype} {CHANNELS.get(channels, f'with {channels} channels')}", count)
        for (dtype, channels), count in forms.most_common()
    ]
    return names[0][0] if len(names) == 1 else ", ".join(f"{name} ({count} images)" for name, count in names)


def _classes(dataset: Dataset, checked: Sequence[Checked]) -> Iterator[str]:
    pixels: Counter[int] = Counter()
    images: Counter[int] = Counter()
    for image in checked:
        pixels.update(dict(image.pixels))
        images.update(class_id for class_id, count in image.pixels if count)
    width = max(map(len, dataset.spec.classes.values()))
    for class_id, name in dataset.spec.classes.items():
        share = pixels[class_id] / max(1, pixels.total())
        yield f"  class {class_id:<4}{name:<{width}}  {share:8.3%} of the pixels, in {images[class_id]} images"
