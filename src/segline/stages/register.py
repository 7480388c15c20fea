"""Stage register: log the model to the registry, judged by the floors."""

import json
from pathlib import Path

from segline import params, progress
from segline.data import files
from segline.data.prepared import PREPARED, Prepared
from segline.track import gate, lineage, shipping
from segline.track.registry import Registry
from segline.track.store import open_store

MODEL = Path("data/model")
REPORTS = Path("data/reports")


def main() -> None:
    """Register the model of data/model; write data/reports/registration.json."""
    registration, floors = params.read(params.Registration), params.read(params.Gate)
    prepared, store = Prepared.open(), open_store()
    verdict = gate.floors(files.read_json(REPORTS / "test.json"), floors)
    parts = shipping.Parts(MODEL, REPORTS / "inference.json", *_example(prepared))
    registry = Registry(store, registration.name or prepared.dataset.name)
    card = files.read_bytes(REPORTS / "model_card.md").decode()
    done = registry.register(parts, store.train_run(MODEL, params.TUNED_FILE), verdict, _tags(prepared), card)
    # No version number and no alias: those belong to this store, and an output must come out alike on every machine.
    record = {"name": done.name, "version_md5": parts.md5, "code_md5": parts.code_md5, "floors": verdict.as_dict()}
    files.write_json(REPORTS / "registration.json", record)
    state = "is new" if done.created else "was there already"
    progress.note(f"{done.name} version {done.version} ({', '.join(f'@{alias}' for alias in done.aliases)}) {state}")
    for check in verdict.checks:
        if not check.passed:
            progress.note(f"no champion by this model: {check.name} is {check.value}, gate asks for {check.limit}")


def _example(prepared: Prepared) -> tuple[bytes, bytes, bytes]:
    """The smallest test image, as the bytes of a file, and the label and instance images that evaluate wrote for it."""
    name = min(prepared.names("test"), key=lambda name: (prepared.image(name).size, name))
    png, tiff = (REPORTS / "instances" / f"{name}{suffix}" for suffix in (".png", ".tif"))
    answer = files.read_bytes(REPORTS / "predictions" / f"{name}.png")
    return shipping.encode(prepared.image(name)), answer, files.read_bytes(png if png.exists() else tiff)


def _tags(prepared: Prepared) -> dict[str, str]:
    """What a version says of its making."""
    return {
        "model.md5": lineage.model_md5(MODEL),
        "data.md5": lineage.digest(PREPARED),
        "dataset": prepared.dataset.name,
        "classes": json.dumps(prepared.dataset.classes),
        "channels": str(prepared.statistics.channels),
        "dtype": prepared.statistics.dtype,
        **lineage.git(),
    }
