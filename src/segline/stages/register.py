"""Stage register: log the model to the registry, judged by the floors."""

import json
from pathlib import Path
from typing import Any

from segline import files, params, progress
from segline.data import truth
from segline.data.prepared import PREPARED, Prepared
from segline.gate import rules
from segline.score.judge import Result
from segline.track import commits, lineage, packaging
from segline.track.recording import metrics_of_test
from segline.track.registry import IMAGES, Registered, Registry
from segline.track.store import open_store
from segline.track.verdict import Verdict

MODEL = Path("data/model")
REPORTS = Path("data/reports")
COLUMNS = ["image", "file", "md5", "split"]


def main() -> None:
    """Register the model of data/model; write data/reports/registration.json."""
    registration, floors = params.read(params.Registration), params.read(params.Gate)
    prepared = Prepared.open()
    verdict = rules.floors(_result(), floors)
    parts = _parts(prepared)
    done = _register(prepared, registration.name or prepared.dataset.name, parts, verdict)
    # No version number and no alias: those belong to this store, and an output must come out alike on every machine.
    record = {"name": done.name, "version_md5": parts.md5, "code_md5": parts.code_md5, "floors": verdict.as_dict()}
    files.write_json(REPORTS / "registration.json", record)
    state = "is new" if done.created else "was there already"
    progress.note(f"{done.name} version {done.version} ({', '.join(f'@{alias}' for alias in done.aliases)}) {state}")
    for check in verdict.checks:
        if not check.passed:
            progress.note(f"no champion by this model: {check.name} is {check.value}, gate asks for {check.limit}")


def again(name: str) -> str:
    """Register the model of data/model as `name` with the code of this checkout; no alias moves.

    Its run, where it has to be restored, gets the figures of the test split, too. Returns the version's number.
    """
    prepared = Prepared.open()
    result = _result()
    run = open_store().train_run(MODEL, params.TUNED_FILE)
    if not run.has("test_mean_iou"):
        run.log(0, metrics_of_test(result))
        run.artifact(REPORTS / "test.json", "reports")
    verdict = rules.floors(result, params.read(params.Gate))
    return _register(
        prepared, name, _parts(prepared, Path("src/segline/model").resolve()), verdict, alias=False
    ).version


def _result() -> dict[str, Any]:
    """The figures of the test split."""
    file = REPORTS / "test.json"
    files.read_record(file, Result, "remove it, and `dvc repro` writes it")
    return dict(files.read_json(file))


def _parts(prepared: Prepared, room: Path = packaging.ROOM) -> packaging.Parts:
    return packaging.Parts(MODEL, REPORTS / "inference.json", *_example(prepared), room)


def _register(
    prepared: Prepared, name: str, parts: packaging.Parts, verdict: Verdict, *, alias: bool = True
) -> Registered:
    store = open_store()
    card = files.read_bytes(REPORTS / "model_card.md").decode(errors="replace")
    run = store.train_run(MODEL, params.TUNED_FILE)
    tags, records = {**_tags(prepared), **run.environment()}, {IMAGES: _images(prepared)}
    return Registry(store, name).register(parts, run, verdict, tags, card, records=records, alias=alias)


def _example(prepared: Prepared) -> tuple[bytes, bytes, bytes]:
    """The smallest test image, as the bytes of a file, and the label and instance images that evaluate wrote for it."""
    name = min(prepared.names("test"), key=lambda name: (prepared.image(name).size, name))
    png, tiff = (REPORTS / "instances" / f"{name}{suffix}" for suffix in (".png", ".tif"))
    answer = files.read_bytes(REPORTS / "predictions" / f"{name}.png")
    return packaging.encode(prepared.image(name)), answer, files.read_bytes(png if png.exists() else tiff)


def _images(prepared: Prepared) -> bytes:
    """A table of the images that the model learned from, chose by and was judged on, with their md5s."""
    known = [column for column in COLUMNS if column in prepared.manifest]
    table: str = prepared.manifest[known].to_csv(index=False, lineterminator="\n")
    return table.encode()


def _tags(prepared: Prepared) -> dict[str, str]:
    """What a version says of its making."""
    return {
        "model.md5": lineage.model_md5(MODEL),
        "data.md5": lineage.digest(PREPARED),
        "test.md5": lineage.combined_md5(truth.md5s(prepared)),
        "dataset": prepared.dataset.name,
        "classes": json.dumps(prepared.dataset.classes),
        "channels": str(prepared.statistics.channels),
        "dtype": prepared.statistics.dtype,
        **lineage.git(),
        **commits.here(),
    }
