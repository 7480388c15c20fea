"""The command line, thin and quick: each command imports what it needs when it runs."""

import logging
import sys
import traceback
from pathlib import Path
from typing import Annotated, Literal

import typer

from segline import cli_models, failure, process, terminal
from segline.addresses import hide, shown

app = typer.Typer(
    name="segline",
    help="From raw images to a registered segmentation model. `dvc repro` runs the stages; see README.md.",
    no_args_is_help=True,
    rich_markup_mode=None,  # drawing help with rich doubles the time to the first line
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(cli_models.app, name="models")


def main() -> None:
    """Run one command; what the user can mend is said in one message, without a traceback.

    Such a message is any exception whose class segline defines (ParamsError, ImageError, ...), and what `_known`
    explains, such as a full disk or a locked database; others are our mistakes, with a traceback. No password is
    printed. The exit code is 1, or what the class has as `exit_code`.
    """
    process.install()
    # MLflow logs a traceback of each error of its database, and raises it too: it is explained then.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    with terminal.safe():
        try:
            app()
        except Exception as error:
            ours = type(error).__module__.startswith("segline.")
            # Not what follows from a full disk, such as "its files are missing", but the cause.
            caused = failure.is_full(error) and failure.AGAIN.split(",", maxsplit=1)[0] not in str(error)
            message = str(error) if ours and not caused else _known(error)
            if message is None:
                print(hide(traceback.format_exc()), file=sys.stderr)  # noqa: T201  here control characters are escaped
            else:
                terminal.fail(hide(message))
            sys.exit(getattr(error, "exit_code", 1))


def _known(error: Exception) -> str | None:
    """Return the message for an error of a file, of MLflow or of a database; None for a mistake of ours."""
    if message := failure.explain(error):
        return message
    from segline.track import faults, location

    try:
        store = location.locate()
    except faults.StoreError:
        address = name = ""
    else:
        address = store.uri
        name = str(store.database) if store.own else f"MLFLOW_TRACKING_URI = {shown(store.uri)}"
    known = faults.at_the_edge(error, address, name)
    return None if known is None else str(known)


def _folder(name: str) -> Path:
    """A folder that an option names; of an empty name, from an unset variable, `Path` would make this folder."""
    if not name:
        raise typer.BadParameter("is empty; name a folder, or `.` for this one")
    return Path(name)


@app.command()
def sample() -> None:
    """Draw the embedded default dataset into data/raw/cells."""
    from segline.stages import sample as stage

    stage.main()


@app.command()
def prepare() -> None:
    """Check the dataset, split it, and write it as arrays."""
    from segline.stages import prepare as stage

    stage.main()


@app.command()
def weights() -> None:
    """Write a border weight map for each image to learn from."""
    from segline.stages import weights as stage

    stage.main()


@app.command()
def tune(
    join: Annotated[
        str | None, typer.Option(metavar="STORAGE", help="work on a search that runs elsewhere; writes no outputs")
    ] = None,
) -> None:
    """Choose the settings that train takes; STORAGE is a journal's path or the address of a PostgreSQL database."""
    from segline.stages import tune as stage

    stage.main(join)


@app.command()
def train() -> None:
    """Train the network."""
    from segline.stages import train as stage

    stage.main()


@app.command()
def evaluate() -> None:
    """Judge the network on the test split."""
    from segline.stages import evaluate as stage

    stage.main()


@app.command()
def register() -> None:
    """Log the model to the registry."""
    from segline.stages import register as stage

    stage.main()


@app.command("import")
def import_(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="images and labels as they came; only read")],
    name: Annotated[str, typer.Option(help="of the dataset, and later of the model")],
    *,
    labels: Annotated[
        Literal["instances", "classes", "boundaries"] | None,
        typer.Option(help="what the masks say, where that cannot be seen from them"),
    ] = None,
    classes: Annotated[list[str] | None, typer.Option("--class", metavar="ID=NAME", help="name of a class")] = None,
    colours: Annotated[Path | None, typer.Option(help="CSV with columns colour (#rrggbb), class (id), name")] = None,
    ignore: Annotated[int | None, typer.Option(help="mask value of pixels that do not count")] = None,
    threshold: Annotated[float | None, typer.Option(help="mask values above it are foreground")] = None,
    images: Annotated[str | None, typer.Option(help="which files are images, such as 'raw/*_img.tif'")] = None,
    masks: Annotated[str | None, typer.Option(help="which are their masks, such as 'gt/*_seg.png'; * pairs")] = None,
    group_by: Annotated[str | None, typer.Option(help="regular expression that finds the group in a name")] = None,
    skip_unpaired: Annotated[bool, typer.Option("--skip-unpaired", help="leave out what has no partner")] = False,
    missing_as_background: Annotated[
        bool, typer.Option("--missing-as-background", help="images without a mask hold background only")
    ] = False,
    crowd: Annotated[
        Literal["ignore", "objects"] | None,
        typer.Option(help="what COCO annotations with iscrowd 1 are; CVAT writes it for whatever the brush drew"),
    ] = None,
    skip_shapes: Annotated[
        bool, typer.Option("--skip-shapes", help="leave out LabelMe shapes that enclose nothing: points, lines")
    ] = False,
    cut: Annotated[
        int | None, typer.Option(metavar="SIDE", help="cut images larger than SIDE px into blocks that are not")
    ] = None,
    licence: Annotated[str, typer.Option(help="under which the images may be used")] = "",
    origin: Annotated[str, typer.Option(help="where the images come from")] = "",
    replace: Annotated[bool, typer.Option("--replace", help="put it in the place of a dataset of that name")] = False,
) -> None:
    """Bring images and labels of a foreign layout into data/raw/NAME; docs/import.md says which are understood."""
    from segline.commands import import_ as command

    lines = command.run(
        source,
        name,
        classes=classes or (),
        colours=colours,
        licence=licence,
        origin=origin,
        replace=replace,
        labels=labels,
        ignore=ignore,
        threshold=threshold,
        images=images,
        masks=masks,
        group_by=group_by,
        skip_unpaired=skip_unpaired,
        missing_as_background=missing_as_background,
        cut=cut,
        crowd=crowd,
        skip_shapes=skip_shapes,
    )
    terminal.say("\n".join(lines))


@app.command()
def check(
    dataset: Annotated[Path | None, typer.Argument(help="dataset folder; without it, that of params.yaml")] = None,
    groups: Annotated[Path | None, typer.Option(help="write groups here that keep alike images together")] = None,
    every: Annotated[bool, typer.Option("--all", help="name every file, not some of each kind of problem")] = False,
) -> None:
    """Show what is wrong with a dataset; exit code 1 when there are errors."""
    from segline.commands import check as command

    command.main(dataset, groups, every, "auto", terminal.say)


@app.command()
def preset(name: Annotated[str, typer.Argument(help="which preset; without it, those there are")] = "") -> None:
    """Write the settings of a known dataset into params.yaml."""
    from segline import params
    from segline.commands import preset as command

    if not name:
        terminal.say("\n".join(command.names()))
        return
    changes = command.write(name)
    terminal.say("\n".join(changes) or f"params.yaml has the settings of {name} already")
    source = params.read(params.Data).source
    if not Path(source).exists() and name != command.DEFAULT:
        terminal.say(f"{source} is not there yet: segline import FOLDER --name {Path(source).name}")


@app.command()
def summary() -> None:
    """Show what the last run reached, and what to type next."""
    from segline.commands import summary as command

    command.main(terminal.console())


@app.command()
def runs(
    count: Annotated[int, typer.Option("--count", "-n", min=1, max=1000, help="how many")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="as JSON, with all metrics")] = False,
) -> None:
    """List the latest runs with their state and main metric."""
    from segline.commands import runs as command

    command.main(count, as_json, terminal.console(), terminal.say)


@app.command()
def ui(port: Annotated[int, typer.Option(min=1, max=65535, help="of 127.0.0.1")] = 5000) -> None:
    """Open MLflow's page on the runs and the registry."""
    from segline.commands import ui as command

    command.main(port, terminal.say)


@app.command()
def serve(
    model: Annotated[str, typer.Option(help="such as models:/cells@champion, which is followed, or models:/cells/3")],
    *,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free")] = 8000,
    host: Annotated[str, typer.Option(help="address to listen on; 0.0.0.0 lets other machines ask")] = "127.0.0.1",
    max_megabytes: Annotated[float, typer.Option(min=0.001, help="of a request")] = 64,
    max_megapixels: Annotated[float, typer.Option(min=0.001, help="of the images of a request")] = 25,
    allowed_host: Annotated[
        list[str] | None, typer.Option(help="name by which a proxy's clients ask; may be repeated")
    ] = None,
    trust: Annotated[bool, typer.Option("--trust", help="use a version that registry.jsonl does not know")] = False,
) -> None:
    """Answer images over HTTP with a registered model, as MLflow's server does; docs/serve.md says how to ask."""
    from segline.commands import serve as command
    from segline.serve.app import Limits

    limits = Limits(round(max_megabytes * 1e6), round(max_megapixels * 1e6))
    command.main(model, host, port, limits, terminal.say, allowed_hosts=allowed_host or (), trust=trust)


@app.command()
def predict(
    images: Annotated[list[str], typer.Argument(metavar="FILE...", help="images, folders, patterns: 'scans/**/*.tif'")],
    model: Annotated[str, typer.Option(help="such as models:/cells@champion or models:/cells/3")],
    out: Annotated[Path, typer.Option(parser=_folder, metavar="PATH", help="folder for the label images")],
    *,
    instances: Annotated[bool, typer.Option("--instances", help="also write images of instance ids")] = False,
    probabilities: Annotated[bool, typer.Option("--probabilities", help="also write class probabilities")] = False,
    overlays: Annotated[bool, typer.Option("--overlays", help="also write pictures to look at")] = False,
    views: Annotated[
        Literal["1", "4", "8"] | None,
        typer.Option(help="average so many rotations and mirrorings; without it, as the model was judged"),
    ] = None,
    trust: Annotated[bool, typer.Option("--trust", help="use a version that registry.jsonl does not know")] = False,
) -> None:
    """Label images with a registered model; docs/predict.md says more."""
    from segline.commands import predict as command
    from segline.commands.records import PredictOptions

    options = PredictOptions(instances, probabilities, overlays, int(views or 0))
    command.main(images, model, out, "auto", options, trust=trust)
