"""Write a model version into MLflow's registry: files with md5s, tags about the origin, metrics, image list."""

import csv
import io
import json
import re
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import mlflow.artifacts
from mlflow.entities import LoggedModel, LoggedModelOutput, Metric
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import Model

from segline import progress
from segline.track import commits, intact
from segline.track.entries import open_regular
from segline.track.history import RegistryError
from segline.track.packaging import Parts, check, pack
from segline.track.recording import Run
from segline.track.store import Store
from segline.track.tags import VERSION_MD5
from segline.track.trust import IMAGES

VERSION_TAG = VERSION_MD5
LINKS = "mlflow.modelVersions"
MAX_DESCRIPTION = 5000  # maximum number of characters that MLflow stores
MAX_TABLE = 2**27  # maximum number of bytes that are read from an image list


@dataclass(frozen=True)
class SplitImage:
    """An image of the dataset that a registered model version was made from.

    ``image`` is the stem of the image. ``file`` is the image file in the dataset, and ``md5`` is the MD5 of this file.
    ``split`` is the split that the image belongs to.
    """

    image: str
    file: str
    md5: str
    split: str


def log(
    store: Store, name: str, parts: Parts, run: Run, records: Mapping[str, bytes]
) -> tuple[LoggedModel, dict[str, str]]:
    """Log a model as an output of `run`; return two values: the logged model and the md5s of the logged files."""
    # Replace characters that MLflow accepts in the name of a registered model, but not in the name of a logged model.
    plain = re.sub(r"[^\w -]", "_", name)
    client = store.client
    if store.place.own:  # skipped on a team's server, because another machine may be registering this model now
        _fail_abandoned(store, parts.md5)
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
    """Create a registered version of the model `name` from a logged model."""
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
    # MLflow's page uses this tag to link a logged model to its versions.
    links = json.dumps([{"name": name, "version": str(version.version)}])
    client.set_logged_model_tags(logged.model_id, {LINKS: links})
    return version


def log_metrics(
    store: Store, version: ModelVersion, run: Run, metrics: Mapping[str, float], tags: Mapping[str, str]
) -> None:
    """Log test metrics for a version's logged model; MLflow's page of models can then rank versions by these metrics.

    If the model already has metrics, nothing is logged. If the run already has a point with the same metric and value,
    the timestamp and step of this point are used again. Otherwise MLflow's chart would show two points.

    Parameters
    ----------
    tags : tags of the version; ``dataset`` and ``data.md5`` identify the dataset on which the metrics were measured.
    """
    model_id = _model_id(version)
    try:
        if not metrics or store.client.get_logged_model(model_id).metrics:
            return
    except MlflowException as error:  # the logged model was deleted on MLflow's page; predictions do not need it
        label = f"{version.name} version {version.version}"
        progress.note(f"warning: {label} has no metrics on MLflow's page of models: {error.message}")
        return
    dataset = {"dataset_name": tags.get("dataset"), "dataset_digest": tags.get("data.md5")}
    if not all(dataset.values()):
        dataset = {}
    now = int(time.time() * 1000)
    logged = []
    for name, value in metrics.items():
        points = store.client.get_metric_history(run.id, name)
        timestamp, step = next(
            ((point.timestamp, point.step) for point in reversed(points) if point.value == value), (now, 0)
        )
        logged.append(Metric(name, value, timestamp, step, model_id, run_id=run.id, **dataset))
    store.client.log_batch(run.id, logged)


def images(store: Store, version: ModelVersion) -> list[SplitImage] | None:
    """Return the training, validation and test images of a version; None if the version's image list cannot be read."""
    try:
        logged = store.client.get_logged_model(_model_id(version))
        with store.current():  # a server sends only the image list, not the weights
            file = mlflow.artifacts.download_artifacts(f"{logged.artifact_location}/{IMAGES}")
        with open_regular(Path(file)) as stream:
            text = stream.read(MAX_TABLE).decode()
        rows = list(csv.DictReader(io.StringIO(text, newline="")))
    except (MlflowException, OSError, ValueError, csv.Error):  # the list or its address may have been edited
        return None
    return [SplitImage(*(row.get(name) or "" for name in ("image", "file", "md5", "split"))) for row in rows]


def update_origin(store: Store, version: ModelVersion, tags: Mapping[str, str], records: Mapping[str, bytes]) -> None:
    """Replace the tags about a version's origin with `tags`, unless the old tags match a commit in git.

    The same model may be made again from other code or params, and the old code or params may remain uncommitted.
    """
    if all(version.tags.get(name) == tags.get(name) for name in commits.TAGS):
        return
    if commits.find(version.tags, store.place.root).commit:
        return
    md5s, new_tags = intact.recorded(version), dict(tags)
    with TemporaryDirectory() as folder:
        for name, content in records.items():
            file = Path(folder, name)
            file.write_bytes(content)
            try:
                store.client.log_model_artifact(_model_id(version), str(file))
            except (MlflowException, OSError) as error:
                raise RegistryError(
                    f"{version.name} version {version.version}: the file {name} cannot be stored ({error}); "
                    f"{intact.way_out(version)}"
                ) from error
        if md5s:  # an invalid tag is kept; a new tag would list only `records`, and other files would count as added
            new_tags[intact.FILES_TAG] = json.dumps({**md5s, **intact.listing(Path(folder))})
    for name, value in new_tags.items():
        store.client.set_model_version_tag(version.name, version.version, name, value)


def described(card: str, verdict: str = "") -> str:
    """Return a model card followed by a verdict; if the text is too long for MLflow, cut the card."""
    room = max(MAX_DESCRIPTION - len(verdict) - 1, 0)
    if len(card) > room:
        end = "\n\n... (the whole card is data/reports/model_card.md)"
        card = card[: max(room - len(end), 0)] + end
    return f"{card}\n{verdict}"[:MAX_DESCRIPTION] if verdict else card


def _model_id(version: ModelVersion) -> str:
    return str(version.source).removeprefix("models:/")


def _fail_abandoned(store: Store, md5: str) -> None:
    """Mark logged models with this md5 as FAILED if a killed registration left them without a version."""
    logged_models = store.client.search_logged_models([store.experiment_id], f"tags.`{VERSION_TAG}` = '{md5}'")
    for logged in logged_models:
        if LINKS not in logged.tags and str(logged.status) != "FAILED":
            store.client.finalize_logged_model(logged.model_id, "FAILED")


def _upload(store: Store, parts: Parts, run: Run, logged: LoggedModel, records: Mapping[str, bytes]) -> dict[str, str]:
    """Pack a model, check the packed model's example prediction, and upload the files; return the md5s of the files."""
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
