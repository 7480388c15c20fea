"""Images that follow one another, as slices or in time: grouped so that neighbours seldom part between the splits."""

from collections.abc import Mapping, Sequence

import numpy as np

FEWEST = 3  # series that can be kept whole: one to learn from, one for validation, one for the test
BLOCKS = 10  # runs of neighbours that all series together are cut into otherwise


def groups(series: Mapping[str, Sequence[str]], what: str) -> tuple[dict[str, str], str]:
    """The group of each stem, and why.

    Each series is a group where there are three at least. Fewer could not be split at all, and images drawn at random
    would have their neighbours, which look alike, in another split; so each series is cut into runs of neighbours.

    Parameters
    ----------
    series : stems in their order, each beginning with the name of the series and `_`, by that name.
    what : what a series is called.
    """
    if len(series) >= FEWEST:
        whole = {stem: name for name, stems in series.items() for stem in stems}
        return whole, f"groups: each {what} is one, for images of one {what} look alike"
    total = sum(map(len, series.values()))
    length = max(min(2, total // FEWEST), -(-total // BLOCKS))
    if length < 2:
        alone = {stem: stem for stems in series.values() for stem in stems}
        return alone, f"mind: {total} images are too few to group; neighbours look alike, and may be in two splits"
    found = {
        stem: _name(name, run.tolist())
        for name, stems in series.items()
        for run in np.array_split(np.array(stems), max(1, round(len(stems) / length)))
        for stem in run.tolist()
    }
    return found, (
        f"groups: runs of about {length} consecutive images, for neighbours look alike and {len(series)} {what}(s) are "
        "too few to keep each whole; where two runs meet, neighbours may still be in two splits: for a stricter test "
        "name runs of groups.csv that follow one another in prepare.test and prepare.validation"
    )


def _name(series: str, run: Sequence[str]) -> str:
    return run[0] if len(run) == 1 else f"{run[0]}-{run[-1].removeprefix(f'{series}_')}"
