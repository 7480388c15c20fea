"""`segline plan --explain`: show the plan beside params.yaml, with the reason for each value."""

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from segline import files, params


class PlanError(RuntimeError):
    """There is no plan yet, or it is damaged; the message names the command that makes it."""


class PlanFile(BaseModel):
    """Content of plan.yaml besides the planned values: the measured images, and the reason for each setting."""

    model_config = ConfigDict(extra="allow")

    measured: str
    reasons: dict[str, str]


def main(console: Console) -> None:
    """Print a table of the settings that may be `auto`: the value that is used, and the reason.

    Raises
    ------
    PlanError
        The plan was not made yet, or data/plan/plan.yaml is damaged.
    ParamsError
        params.yaml is wrong.
    """
    own = params.read_fixed(params.PLANNED)
    if not params.PLAN_FILE.exists():
        raise PlanError(f"there is no plan yet; run `dvc repro plan`, which makes {params.PLAN_FILE}")
    try:
        plan = files.read_record(params.PLAN_FILE, PlanFile, "")
    except files.FileError as error:
        raise PlanError(f"{str(error).removesuffix('; ')}; {params.PLAN_REMEDY}") from error
    console.print(Text(plan.measured))
    console.print(table(own, params.flat(plan.model_extra or {}), plan.reasons))


def table(own: Mapping[str, object], planned: Mapping[str, object], reasons: Mapping[str, str]) -> Table:
    """Return a table by section. `own`: values in params.yaml, shown in bold; settings without one are `auto`."""
    content = Table(box=SIMPLE_HEAD, padding=(0, 1))
    for name in ("setting", "value"):
        content.add_column(name, no_wrap=True)
    content.add_column("reason")
    for section in params.Params.model_fields:
        mine = [name for name in params.PLANNED if name.startswith(f"{section}.")]
        if mine:
            content.add_section()
            content.add_row(Text(section, style="bold"))
        for name in mine:
            choice, reason = _text(planned.get(name, "-")), reasons.get(name, "")
            value = Text(choice)
            if name in own:
                value = Text(_text(own[name]), "bold")
                reason = (
                    f"set in params.yaml; the plan: {choice} ({reason})" if name in planned else "set in params.yaml"
                )
            content.add_row(f"  {name.removeprefix(f'{section}.')}", value, Text(reason))
    return content


def _text(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(name for entry in value for name in entry) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)
