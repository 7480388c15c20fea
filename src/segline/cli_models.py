"""`segline models ...`: what a person asks of the registry; each command imports what it needs when it runs."""

from pathlib import Path
from typing import Annotated

import typer

from segline import terminal

app = typer.Typer(
    help="The registry: versions of a model, who is champion, and why.",
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
)

Which = Annotated[
    str, typer.Argument(metavar="VERSION", help="a number, an alias such as @champion, or an md5's start")
]
OneName = Annotated[str, typer.Option("--name", help="of one model; without it, all")]
Name = Annotated[str, typer.Option(help="of the model; without it, that of params.yaml, else the only one there is")]
AsJson = Annotated[bool, typer.Option("--json", help="as JSON")]


@app.command("list")
def list_(name: Name = "", as_json: AsJson = False) -> None:
    """List the versions with their aliases, main metric and verdict."""
    from segline.commands import models as command

    command.list_(name, as_json, terminal.console(), terminal.say)


@app.command()
def show(version: Which, name: Name = "", as_json: AsJson = False) -> None:
    """Show how a version came about: commit, data, params, environment, run, verdict, images."""
    from segline.commands import show as command

    command.main(version, name, as_json, terminal.console(), terminal.say)


@app.command()
def uses(
    image: Annotated[str, typer.Argument(help="a file, whose content counts, or the name of one")],
    name: Name = "",
    as_json: AsJson = False,
) -> None:
    """List the versions that were trained, validated or tested on an image."""
    from segline.commands import uses as command

    command.main(image, name, as_json, terminal.console(), terminal.say)


@app.command()
def verify(name: OneName = "", as_json: AsJson = False) -> None:
    """See whether files, aliases and history agree; exit code 1 where they do not."""
    from segline.commands import verify as command

    raise typer.Exit(command.main(name, as_json, terminal.say))


@app.command()
def compare(
    first: Which,
    second: Which,
    name: Name = "",
    out: Annotated[Path, typer.Option(help="folder for pictures and figures, in FIRST-SECOND")] = Path("comparison"),
    as_json: AsJson = False,
) -> None:
    """Compare two versions on the test images: figures with intervals, and pictures of where they differ most."""
    from segline.commands import compare as command

    command.main(first, second, name, out=out, as_json=as_json, console=terminal.console(), say=terminal.say)


@app.command()
def promote(
    version: Which,
    name: Name = "",
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only judge; change nothing")] = False,
    force: Annotated[bool, typer.Option("--force", help="whatever the gate says; needs --reason")] = False,
    reason: Annotated[str, typer.Option(help="for the history, and in the verdict where it is forced")] = "",
    trust: Annotated[bool, typer.Option("--trust", help="take a version that registry.jsonl does not know")] = False,
    as_json: AsJson = False,
) -> None:
    """Make a version champion if the gate passes it: exit code 0; 1: it does not; 2: it cannot be judged."""
    from segline.commands import promote as command

    raise typer.Exit(
        command.promote(
            version,
            name,
            terminal.console(),
            terminal.say,
            dry_run=dry_run,
            force=force,
            reason=reason,
            as_json=as_json,
            trust=trust,
        )
    )


@app.command()
def rollback(
    reason: Annotated[str, typer.Option(help="for the history")],
    to: Annotated[str, typer.Option(metavar="VERSION", help="a former champion; without it, the one before")] = "",
    name: Name = "",
) -> None:
    """Make a former champion champion again."""
    from segline.commands import promote as command

    command.rollback(reason, to, name, terminal.say)


@app.command()
def sync() -> None:
    """After a clone: bring back runs, versions and aliases, as registry.jsonl and the commits tell them."""
    from segline.commands import sync as command
    from segline.stages import register as stage

    command.main(stage.again, terminal.say)


@app.command()
def rebuild(
    version: Which,
    name: Name = "",
    *,
    keep: Annotated[Path | None, typer.Option(metavar="DIR", help="keep the clone here, a new or empty folder")] = None,
) -> None:
    """Make a version again from its commit and data, elsewhere; exit code 0: the same model; 1: not; 2: cannot tell."""
    from segline.commands import rebuild as command

    raise typer.Exit(command.main(version, name, keep, terminal.say))
