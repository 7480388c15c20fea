"""What a model must reach before it may become champion: the absolute floors."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from segline.params import Gate


@dataclass(frozen=True)
class Check:
    """One floor: what was measured, what is asked for, and whether it holds."""

    name: str
    value: float | None
    limit: float
    passed: bool


@dataclass(frozen=True)
class Verdict:
    """All checks; a model passes when every one holds."""

    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether every check holds."""
        return all(check.passed for check in self.checks)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"passed": self.passed, "checks": [asdict(check) for check in self.checks]}


def floors(figures: Mapping[str, float | None], gate: Gate) -> Verdict:
    """Judge the `figures` of test.json by the floors of `gate`.

    A figure that is missing, null or not a number fails: what cannot be shown does not hold. A value on the limit
    passes.
    """
    mean_iou, pixel_error = _figure(figures, "mean_iou"), _figure(figures, "pixel_error")
    return Verdict(
        (
            Check("mean_iou", mean_iou, gate.min_mean_iou, mean_iou is not None and mean_iou >= gate.min_mean_iou),
            Check(
                "pixel_error",
                pixel_error,
                gate.max_pixel_error,
                pixel_error is not None and pixel_error <= gate.max_pixel_error,
            ),
        )
    )


def _figure(figures: Mapping[str, float | None], name: str) -> float | None:
    value = figures.get(name)
    return None if value is None or math.isnan(value) else float(value)
