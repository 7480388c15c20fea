"""DVC stage `register`: register the model. The first version that reaches the minimum metrics becomes champion."""

from pathlib import Path
from typing import Any

from segline import files, params, progress
from segline.data import truth
from segline.data.prepared import PREPARED, Prepared
from segline.gate import champion, rules
from segline.score.judge import Result
from segline.track import commits, lineage, packaging, tags
from segline.track.recording import metrics_of_test
from segline.track.registry import IMAGES, Registry
from segline.track.store import open_store

MODEL = Path("data/model")
REPORTS = Path("data/reports")
COLUMNS = ["image", "file", "md5", "split"]


def main() -> None:
    """Register the model in data/model; write data/reports/registration.json."""
    prepared, result = Prepared.open(), _result()
    name = params.read(params.Registration).name or prepared.dataset.name
    verdict = rules.floors(result, params.read(params.Gate))
    parts, store = _parts(prepared), open_store()
    run = store.train_run(MODEL, params.TUNED_FILE)
    registered = champion.register(
        Registry(store, name),
        parts,
        run,
        verdict,
        {**_tags(prepared), **run.environment()},
        description=_card(),
        records={IMAGES: _images(prepared)},
        metrics=metrics_of_test(result),
    )
    # Keep version number and alias out of the file: both differ between machines, but DVC needs equal files.
    record = {
        "name": name,
        "version_md5": registered.md5s.version,
        "code_md5": parts.code_md5,
        "floors": verdict.as_dict(),
    }
    files.write_json(REPORTS / "registration.json", record)
    aliases = ", ".join(f"@{alias}" for alias in registered.aliases)
    state = "is new" if registered.created else "existed already"
    progress.note(f"{name} version {registered.version} ({aliases}) {state}")
    for refusal in rules.refusals(verdict):
        progress.note(f"Not promoted: {refusal}.")


def again(name: str) -> str:
    """Register the model in data/model as `name`, with the code of this checkout; return the version number.

    No alias is changed. A restored training run has no test metrics, so the test metrics are added to this run.
    """
    prepared, result = Prepared.open(), _result()
    store = open_store()
    run = store.train_run(MODEL, params.TUNED_FILE)
    if not run.has("test_mean_iou"):
        run.log(0, metrics_of_test(result))
        run.artifact(REPORTS / "test.json", "reports")
    return (
        Registry(store, name)
        .register(
            _parts(prepared, packaging.room(Path())),
            run,
            rules.floors(result, params.read(params.Gate)),
            {**_tags(prepared), **run.environment()},
            _card(),
            records={IMAGES: _images(prepared)},
            metrics=metrics_of_test(result),
            alias=False,
        )
        .version
    )


def _result() -> dict[str, Any]:
    """Read the test metrics that the stage `evaluate` wrote."""
    file = REPORTS / "test.json"
    files.read_record(file, Result, "remove the file, then run `dvc repro` to write it again")
    return dict(files.read_json(file))


def _card() -> str:
    return files.read_bytes(REPORTS / "model_card.md").decode(errors="replace")


def _parts(prepared: Prepared, room: Path = packaging.ROOM) -> packaging.Parts:
    return packaging.Parts(MODEL, REPORTS / "inference.json", *_example(prepared), room)


def _example(prepared: Prepared) -> tuple[bytes, bytes, bytes]:
    """Return three encoded images: the smallest test image, its predicted labels and its predicted instance ids."""
    name = min(prepared.names("test"), key=lambda name: (prepared.image(name).size, name))
    png, tiff = (REPORTS / "instances" / f"{name}{suffix}" for suffix in (".png", ".tif"))
    labels = files.read_bytes(REPORTS / "predictions" / f"{name}.png")
    return packaging.encode(prepared.image(name)), labels, files.read_bytes(png if png.exists() else tiff)


def _images(prepared: Prepared) -> bytes:
    """Return a CSV table with the file, MD5 and split of each image."""
    columns = [column for column in COLUMNS if column in prepared.manifest]
    table: str = prepared.manifest[columns].to_csv(index=False, lineterminator="\n")
    return table.encode()


def _tags(prepared: Prepared) -> dict[str, str]:
    """Return the tags that name the model, data and code of a version."""
    return {
        "model.md5": lineage.model_md5(MODEL),
        "data.md5": lineage.digest(PREPARED),
        "test.md5": lineage.combined_md5(truth.md5s(prepared)),
        "dataset": prepared.dataset.name,
        **tags.interface(prepared.dataset.classes, prepared.statistics.channels, prepared.statistics.dtype),
        **lineage.git(),
        **commits.here(),
    }
