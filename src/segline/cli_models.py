"""The subcommands of `segline models`. Each command imports its modules only when it runs."""

from pathlib import Path
from typing import Annotated

import typer

from segline import terminal

app = typer.Typer(
    help="List, compare and promote the versions in the model registry.",
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
)

Which = Annotated[
    str, typer.Argument(metavar="VERSION", help="version number, alias such as @champion, or first digits of an md5")
]
OneName = Annotated[str, typer.Option("--name", help="name of one model; default: all models")]
Name = Annotated[
    str, typer.Option(help="name of the model; default: the name in params.yaml, or the only registered model")
]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON")]


@app.command("list")
def list_(name: Name = "", as_json: AsJson = False) -> None:
    """List the versions with their aliases, main metric and verdict."""
    from segline.commands import models as command

    command.list_(name, as_json, terminal.console(), terminal.say)


@app.command()
def show(version: Which, name: Name = "", as_json: AsJson = False) -> None:
    """Show the origin of a version: commit, data, params, environment, run, verdict and images."""
    from segline.commands import show as command

    command.main(version, name, as_json, terminal.console(), terminal.say)


@app.command()
def uses(
    image: Annotated[str, typer.Argument(help="image file, compared by content, or a file name")],
    name: Name = "",
    as_json: AsJson = False,
) -> None:
    """List the versions whose data contain an image, and the split of the image in each version."""
    from segline.commands import uses as command

    command.main(image, name, as_json, terminal.console(), terminal.say)


@app.command()
def verify(name: OneName = "", as_json: AsJson = False) -> None:
    """Check that files, aliases and history agree. The exit code is 1 if they do not."""
    from segline.commands import verify as command

    raise typer.Exit(command.main(name, as_json, terminal.say))


@app.command()
def compare(
    first: Which,
    second: Which,
    name: Name = "",
    out: Annotated[
        Path, typer.Option(help="folder for pictures and metrics; results go to its subfolder FIRST-SECOND")
    ] = Path("comparison"),
    as_json: AsJson = False,
) -> None:
    """Compare two versions on the test images: metrics, confidence intervals, pictures of the largest differences."""
    from segline.commands import compare as command

    command.main(first, second, name, out=out, as_json=as_json, console=terminal.console(), say=terminal.say)


@app.command()
def promote(
    version: Which,
    name: Name = "",
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="show the verdict without changing anything")] = False,
    force: Annotated[bool, typer.Option("--force", help="promote even if the gate fails; needs --reason")] = False,
    reason: Annotated[
        str, typer.Option(help="reason for the promotion, kept in the history; with --force, also kept in the verdict")
    ] = "",
    trust: Annotated[bool, typer.Option("--trust", help="accept a version that registry.jsonl does not list")] = False,
    as_json: AsJson = False,
) -> None:
    """Make a version champion if it passes the gate. Exit codes: 0 promoted, 1 refused, 2 cannot be decided."""
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
    reason: Annotated[str, typer.Option(help="reason for the rollback, kept in the history")],
    to: Annotated[
        str, typer.Option(metavar="VERSION", help="former champion; default: the champion before this one")
    ] = "",
    name: Name = "",
) -> None:
    """Make a former champion the champion again."""
    from segline.commands import promote as command

    command.rollback(reason, to, name, terminal.say)


@app.command()
def sync() -> None:
    """Restore runs, versions and aliases in a new clone, from registry.jsonl and the commits."""
    from segline.commands import sync as command
    from segline.stages import register as stage

    command.main(stage.again, terminal.say)


@app.command()
def rebuild(
    version: Which,
    name: Name = "",
    *,
    keep: Annotated[Path | None, typer.Option(metavar="DIR", help="keep the clone in this new or empty folder")] = None,
) -> None:
    """Rebuild a version from its commit and data. Exit codes: 0 same model, 1 another model, 2 cannot be judged."""
    from segline.commands import rebuild as command

    raise typer.Exit(command.main(version, name, keep, terminal.say))
