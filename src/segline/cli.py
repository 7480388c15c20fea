"""The `segline` command line. Each command imports its modules only when it runs, so that --help is fast."""

import logging
import os
import sys
import traceback
from pathlib import Path
from typing import Annotated, Literal

import typer

from segline import cli_models, failure, process, terminal
from segline.addresses import hide, shown

app = typer.Typer(
    name="segline",
    help="From raw images to a registered segmentation model. `dvc repro` runs all stages; see README.md.",
    no_args_is_help=True,
    rich_markup_mode=None,  # rich would double the time of --help
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(cli_models.app, name="models")


def _show_version(value: bool) -> None:
    if value:
        from segline.track import installed

        terminal.say(f"segline {installed.version()}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="print segline's version, and exit")
    ] = False,
) -> None:
    """Take the options that stand before a command."""


def main() -> None:
    """Run one command. If the user can fix an error, print the error as a single message without a traceback.

    The user can fix exceptions of segline's own classes (ParamsError, ImageError, ...), and errors that `_known`
    explains, such as a full disk. All other exceptions are bugs and keep their traceback.
    Passwords are hidden. The exit code is the `exit_code` of the exception's class, or 1.
    """
    process.install()
    # A command started by a notebook inherits the notebook's matplotlib backend from this environment variable.
    # The backend may be missing in the Python environment of the command.
    os.environ.pop("MPLBACKEND", None)
    # MLflow logs each database error with a traceback before raising the error. Turn this log off.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    with terminal.safe():
        try:
            app()
        except Exception as error:
            ours = type(error).__module__.startswith("segline.")
            # A full disk can cause a later error, such as "its files are missing". Report the full disk instead.
            caused = failure.is_full(error) and failure.AGAIN.split(",", maxsplit=1)[0] not in str(error)
            message = str(error) if ours and not caused else _known(error)
            if message is None:
                print(hide(traceback.format_exc()), file=sys.stderr)  # noqa: T201  terminal.safe escapes control characters
            else:
                terminal.fail(hide(message))
            sys.exit(getattr(error, "exit_code", 1))


def _known(error: Exception) -> str | None:
    """Return a message that explains an error of the file system, MLflow or a database; None for a bug in segline."""
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
    """Parse a folder option. Refuse an empty name, because `Path` would take it as the current folder."""
    if not name:
        raise typer.BadParameter("the name is empty; give a folder, or `.` for the current one")
    return Path(name)


def _require(stage: str) -> None:
    """Check that the installed segline may run `stage` in this project."""
    from segline.track import installed

    installed.require(stage)


@app.command()
def init(
    folder: Annotated[
        Path, typer.Argument(parser=_folder, metavar="FOLDER", help="folder for the project, new or existing")
    ] = Path(),
    *,
    source: Annotated[
        Path | None,
        typer.Option(
            "--import",
            parser=_folder,
            metavar="SOURCE",
            help="import this folder or file of images and labels at once",
        ),
    ] = None,
    name: Annotated[str, typer.Option(help="name of the imported dataset; default: the name of SOURCE")] = "",
) -> None:
    """Make a project of your own that uses the installed segline. docs/projects.md describes such projects."""
    from segline.commands import init as command

    command.main(folder, source, name, terminal.say)


@app.command()
def upgrade(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only show what would change")] = False,
) -> None:
    """Make a project use the installed segline, and list the stages that will run again."""
    from segline.commands import upgrade as command

    command.main(terminal.say, dry_run=dry_run)


@app.command()
def sample() -> None:
    """Generate the built-in default dataset in data/raw/cells."""
    _require("sample")
    from segline.stages import sample as stage

    stage.main()


@app.command()
def prepare() -> None:
    """Check the dataset, split it, and write it as arrays."""
    _require("prepare")
    from segline.stages import prepare as stage

    stage.main()


@app.command()
def plan(
    explain: Annotated[
        bool, typer.Option("--explain", help="only show the plan beside params.yaml, with the reason for each value")
    ] = False,
) -> None:
    """Choose a value for each setting that is `auto` in params.yaml, for the dataset and the speed of this machine."""
    if explain:
        from segline.commands import explain as command

        command.main(terminal.console())
        return
    _require("plan")
    from segline.stages import plan as stage

    stage.main()


@app.command()
def weights() -> None:
    """Write border weight maps of training and validation images."""
    _require("weights")
    from segline.stages import weights as stage

    stage.main()


@app.command()
def tune(
    join: Annotated[
        str | None,
        typer.Option(
            metavar="STORAGE", help="join a running search, also from another machine; this command writes no outputs"
        ),
    ] = None,
) -> None:
    """Search for better training settings. STORAGE is a journal file or the address of a PostgreSQL database."""
    _require("tune")
    from segline.stages import tune as stage

    stage.main(join)


@app.command()
def train() -> None:
    """Train the network."""
    _require("train")
    from segline.stages import train as stage

    stage.main()


@app.command()
def evaluate() -> None:
    """Evaluate the network on the test split."""
    _require("evaluate")
    from segline.stages import evaluate as stage

    stage.main()


@app.command()
def register() -> None:
    """Register the model in MLflow's registry."""
    _require("register")
    from segline.stages import register as stage

    stage.main()


@app.command("import")
def import_(
    source: Annotated[
        Path, typer.Argument(metavar="SOURCE", help="folder or file with images and labels; it is not changed")
    ],
    name: Annotated[str, typer.Option(help="name of the dataset, and later of the model")],
    *,
    labels: Annotated[
        Literal["instances", "classes", "boundaries"] | None,
        typer.Option(help="meaning of the masks, if import cannot tell it from their values"),
    ] = None,
    classes: Annotated[
        list[str] | None, typer.Option("--class", metavar="ID=NAME", help="name of a class; may be repeated")
    ] = None,
    colours: Annotated[
        Path | None, typer.Option(help="CSV file with the columns colour (#rrggbb), class (its id) and name")
    ] = None,
    ignore: Annotated[int | None, typer.Option(help="mask value of pixels to ignore in training and metrics")] = None,
    threshold: Annotated[float | None, typer.Option(help="mask values above this number are foreground")] = None,
    images: Annotated[str | None, typer.Option(help="pattern of the image files, such as 'raw/*_img.tif'")] = None,
    masks: Annotated[
        str | None,
        typer.Option(help="pattern of the mask files, such as 'gt/*_seg.png'; the text at * pairs images with masks"),
    ] = None,
    group_by: Annotated[
        str | None,
        typer.Option(help="regular expression for file names; the text in its first parentheses is the group"),
    ] = None,
    skip_unpaired: Annotated[
        bool, typer.Option("--skip-unpaired", help="leave out images without masks and masks without images")
    ] = False,
    missing_as_background: Annotated[
        bool, typer.Option("--missing-as-background", help="treat images without a mask as background only")
    ] = False,
    crowd: Annotated[
        Literal["ignore", "objects"] | None,
        typer.Option(help="treatment of COCO annotations with iscrowd = 1; CVAT sets it for every brush stroke"),
    ] = None,
    skip_shapes: Annotated[
        bool, typer.Option("--skip-shapes", help="leave out LabelMe shapes without an area: points, lines")
    ] = False,
    cut: Annotated[
        int | None, typer.Option(metavar="SIDE", help="cut images larger than SIDE px into equal blocks")
    ] = None,
    licence: Annotated[str, typer.Option(help="licence of the images")] = "",
    origin: Annotated[str, typer.Option(help="source of the images")] = "",
    replace: Annotated[bool, typer.Option("--replace", help="replace an existing dataset of this name")] = False,
) -> None:
    """Import images and labels into data/raw/NAME. docs/import.md lists the supported layouts."""
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
    terminal.say("\n".join([*lines, *command.next_steps(name)]))


@app.command()
def check(
    dataset: Annotated[Path | None, typer.Argument(help="dataset folder; default: data.source of params.yaml")] = None,
    groups: Annotated[
        Path | None, typer.Option(help="write a groups file that keeps similar images in one split")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="list every file, not only three per kind of problem")] = False,
) -> None:
    """List the problems of a dataset. The exit code is 1 if there are errors."""
    from segline.commands import check as command

    command.main(dataset, groups, every, "auto", terminal.say)


@app.command()
def preset(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="name of a preset, or a YAML file; without it, the presets are listed")
    ] = "",
) -> None:
    """Write the settings of a preset or of a YAML file into params.yaml."""
    from segline import params
    from segline.commands import preset as command

    if not name:
        terminal.say("\n".join(command.names()))
        return
    changes = command.write(name)
    terminal.say("\n".join(changes) or f"params.yaml already has the settings of preset {name}")
    source = params.read(params.Data).source
    if not Path(source).exists() and name != command.DEFAULT:
        terminal.say(
            f"the dataset {source} does not exist yet; create it: segline import FOLDER --name {Path(source).name}"
        )


@app.command()
def compare_nets(
    networks: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NETWORK...", help="unet, unet:resnet34, fcn8s:vgg16, ...; default: five networks, the U-Net first"
        ),
    ] = None,
    *,
    minutes: Annotated[float, typer.Option(min=0.01, max=100_000, help="training time of each network")] = 10,
    seed: Annotated[int, typer.Option(min=0, help="seed of the trainings")] = 0,
    out: Annotated[Path, typer.Option(parser=_folder, metavar="PATH", help="folder for the results")] = Path(
        "comparison"
    ),
) -> None:
    """Train several networks for equal times on the prepared dataset, and compare them on the validation split."""
    from segline.commands import compare_nets as command

    command.main(
        networks or command.NETS, minutes=minutes, seed=seed, out=out, console=terminal.console(), say=terminal.say
    )


@app.command()
def summary() -> None:
    """Show the results of the last run and the next command to type."""
    from segline.commands import summary as command

    command.main(terminal.console())


@app.command()
def runs(
    count: Annotated[int, typer.Option("--count", "-n", min=1, max=1000, help="number of runs to list")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON with all metrics")] = False,
) -> None:
    """List the latest runs with their state and main metric."""
    from segline.commands import runs as command

    command.main(count, as_json, terminal.console(), terminal.say)


@app.command()
def ui(port: Annotated[int, typer.Option(min=1, max=65535, help="port on 127.0.0.1")] = 5000) -> None:
    """Open MLflow's page with the runs and the registry."""
    from segline.commands import ui as command

    command.main(port, terminal.say)


@app.command()
def serve(
    model: Annotated[
        str,
        typer.Option(
            help="models:/cells@champion follows the alias; models:/cells/3 stays with version 3; or a model folder"
        ),
    ],
    *,
    port: Annotated[int, typer.Option(min=0, max=65535, help="port to listen on; 0: any free port")] = 8000,
    host: Annotated[str, typer.Option(help="address to listen on; 0.0.0.0 admits other machines")] = "127.0.0.1",
    max_megabytes: Annotated[float, typer.Option(min=0.001, help="largest size of a request, megabytes")] = 64,
    max_megapixels: Annotated[float, typer.Option(min=0.001, help="largest number of megapixels in a request")] = 25,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(help="host name by which clients reach the server through a proxy; may be repeated"),
    ] = None,
    trust: Annotated[bool, typer.Option("--trust", help="use a version that registry.jsonl does not list")] = False,
) -> None:
    """Serve a registered model over HTTP. docs/serve.md shows requests."""
    from segline.commands import serve as command
    from segline.serve.app import Limits

    limits = Limits(round(max_megabytes * 1e6), round(max_megapixels * 1e6))
    command.main(model, host, port, limits, terminal.say, allowed_hosts=allowed_host or (), trust=trust)


@app.command()
def predict(
    images: Annotated[
        list[str], typer.Argument(metavar="FILE...", help="images, folders or patterns such as 'scans/**/*.tif'")
    ],
    model: Annotated[str, typer.Option(help="models:/cells@champion, models:/cells/3, or the path of a model folder")],
    out: Annotated[Path, typer.Option(parser=_folder, metavar="PATH", help="folder for the label images")],
    *,
    instances: Annotated[bool, typer.Option("--instances", help="also write images of instance ids")] = False,
    probabilities: Annotated[bool, typer.Option("--probabilities", help="also write class probabilities")] = False,
    overlays: Annotated[
        bool, typer.Option("--overlays", help="also write pictures with outlines over the images")
    ] = False,
    views: Annotated[
        Literal["1", "4", "8"] | None,
        typer.Option(
            help="number of rotations and mirror images to average; default: as many as in the model's evaluation"
        ),
    ] = None,
    trust: Annotated[bool, typer.Option("--trust", help="use a version that registry.jsonl does not list")] = False,
) -> None:
    """Predict images with a registered model. docs/predict.md describes the results."""
    from segline.commands import predict as command
    from segline.commands.prediction_records import PredictOptions

    options = PredictOptions(instances, probabilities, overlays, int(views or 0))
    command.main(images, model, out, "auto", options, trust=trust)
