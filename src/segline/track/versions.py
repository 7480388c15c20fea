"""Puts a model into the registry: its files, their md5s, and what is said of its making."""

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from mlflow.entities import LoggedModel, LoggedModelOutput
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import Model

from segline.track import commits, intact
from segline.track.history import RegistryError
from segline.track.packaging import Parts, check, pack
from segline.track.recording import Run
from segline.track.store import Store
from segline.track.tags import VERSION_MD5

VERSION_TAG = VERSION_MD5
LINKS = "mlflow.modelVersions"
MAX_DESCRIPTION = 5000  # characters that MLflow's table has room for


def log(
    store: Store, name: str, parts: Parts, run: Run, records: Mapping[str, bytes]
) -> tuple[LoggedModel, dict[str, str]]:
    """Log a model as an output of its run; returns it, and the md5s of its files."""
    # MLflow allows fewer characters here than in the name of a registered model.
    plain = re.sub(r"[^\w -]", "_", name)
    client = store.client
    if store.place.own:  # on a team's server another machine may be at work
        _end_abandoned(store, parts.md5)
    logged = client.create_logged_model(
        store.experiment_id, plain, run.id, {VERSION_TAG: parts.md5}, model_type="segmentation"
    )
    try:
        md5s = _upload(store, parts, run, logged, records)
    except BaseException:
        client.finalize_logged_model(logged.model_id, "FAILED")
        raise
    client.finalize_logged_model(logged.model_id, "READY")
    client.log_outputs(run.id, [LoggedModelOutput(logged.model_id, step=0)])
    return logged, md5s


def enter(
    store: Store,
    name: str,
    parts: Parts,
    run: Run,
    logged: LoggedModel,
    *,
    tags: Mapping[str, str],
    description: str,
) -> ModelVersion:
    """Make a version of a logged model."""
    client = store.client
    with store.current():
        version = client.create_model_version(
            name,
            f"models:/{logged.model_id}",
            run.id,
            {VERSION_TAG: parts.md5, "code.md5": parts.code_md5, **tags},
            description=described(description),
            model_id=logged.model_id,
        )
    # The page links a logged model to its versions by this tag.
    links = json.dumps([{"name": name, "version": str(version.version)}])
    client.set_logged_model_tags(logged.model_id, {LINKS: links})
    return version


def _end_abandoned(store: Store, md5: str) -> None:
    """Mark as failed what a registration of the same model that was killed left without a version."""
    found = store.client.search_logged_models([store.experiment_id], f"tags.`{VERSION_TAG}` = '{md5}'")
    for logged in found:
        if LINKS not in logged.tags and str(logged.status) != "FAILED":
            store.client.finalize_logged_model(logged.model_id, "FAILED")


def _upload(store: Store, parts: Parts, run: Run, logged: LoggedModel, records: Mapping[str, bytes]) -> dict[str, str]:
    """Pack a model, see that it answers as it shall, and keep it; returns the md5s of its files."""
    metadata = Model(
        artifact_path=logged.artifact_location, model_uuid=logged.model_id, run_id=run.id, model_id=logged.model_id
    )
    with TemporaryDirectory() as place:
        folder = Path(place)
        pack(parts, folder, metadata)
        check(folder, parts)
        for cache in folder.rglob("__pycache__"):
            shutil.rmtree(cache)
        for name, content in records.items():
            (folder / name).write_bytes(content)
        store.client.log_model_artifacts(logged.model_id, place)
        return intact.listing(folder)


def tell_anew(store: Store, version: ModelVersion, tags: Mapping[str, str], records: Mapping[str, bytes]) -> None:
    """Say how a version came about this time, unless some commit has what was said of it before.

    The same model may come of other code or params; those of the first time may never be committed.
    """
    if all(version.tags.get(name) == tags.get(name) for name in commits.TAGS):
        return
    if commits.making(version.tags, store.place.root):
        return
    md5s, ours = intact.recorded(version), dict(tags)
    with TemporaryDirectory() as place:
        for name, content in records.items():
            file = Path(place, name)
            file.write_bytes(content)
            try:
                store.client.log_model_artifact(str(version.source).removeprefix("models:/"), str(file))
            except (MlflowException, OSError) as error:
                raise RegistryError(
                    f"{version.name} version {version.version}: {name} cannot be kept with it ({error}); "
                    f"{intact.way_out(version)}"
                ) from error
        if md5s:  # else the tag was edited: one of these files alone would call all others added
            ours[intact.FILES_TAG] = json.dumps({**md5s, **intact.listing(Path(place))})
    for name, value in ours.items():
        store.client.set_model_version_tag(version.name, version.version, name, value)


def described(card: str, verdict: str = "") -> str:
    """A model card and, below it, a verdict, as long as MLflow's table has room; the card is cut, the verdict last."""
    room = max(MAX_DESCRIPTION - len(verdict) - 1, 0)
    if len(card) > room:
        end = "\n\n... (the whole is data/reports/model_card.md)"
        card = card[: max(room - len(end), 0)] + end
    return f"{card}\n{verdict}"[:MAX_DESCRIPTION] if verdict else card
