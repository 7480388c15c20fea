"""`segline plan --explain`: show the plan beside params.yaml, with the reason for each value."""

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from segline import files, params

REMEDY = "run `dvc repro --force plan` to make it again"


class PlanError(RuntimeError):
    """There is no plan yet; the message names the command that makes it."""


class PlanFile(BaseModel):
    """Content of plan.yaml besides the planned values: the measured images, and reasons by the name of a setting."""

    model_config = ConfigDict(extra="allow")

    measured: str
    reasons: dict[str, str]


def main(console: Console) -> None:
    """Print a table of the settings that may be `auto`: value in params.yaml, planned value and reason.

    Raises
    ------
    PlanError
        The plan was not made yet.
    FileError, ParamsError
        data/plan/plan.yaml is damaged, or params.yaml is wrong.
    """
    own = params.read_fixed(params.PLANNED)
    if not params.PLAN_FILE.exists():
        raise PlanError(f"there is no plan yet; run `dvc repro plan`, which makes {params.PLAN_FILE}")
    plan = files.read_record(params.PLAN_FILE, PlanFile, REMEDY)
    console.print(Text(plan.measured))
    console.print(table(own, params.flat(plan.model_extra or {}), plan.reasons))
    console.print(Text("The value in bold is used. A value in params.yaml takes precedence over the plan."))


def table(own: Mapping[str, object], planned: Mapping[str, object], reasons: Mapping[str, str]) -> Table:
    """Return a table by section. `own`: values in params.yaml; settings without a value there are `auto`."""
    content = Table(box=SIMPLE_HEAD, padding=(0, 1))
    for name, wrap in (("setting", False), ("params.yaml", False), ("plan", False), ("reason", True)):
        content.add_column(name, no_wrap=not wrap)
    for section in params.Params.model_fields:
        mine = [name for name in params.PLANNED if name.startswith(f"{section}.")]
        if mine:
            content.add_section()
            content.add_row(Text(section, style="bold"))
        for name in mine:
            value, plan = _text(own.get(name, params.AUTO)), _text(planned.get(name, "-"))
            styles = ("bold", "") if name in own else ("", "bold")
            label = f"  {name.removeprefix(f'{section}.')}"
            content.add_row(label, Text(value, styles[0]), Text(plan, styles[1]), Text(reasons.get(name, "not timed")))
    return content


def _text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
