"""DVC stage `tune`: choose the settings for the stage `train`: by a search, or from params.yaml and the plan."""

import json
import os
from contextlib import AbstractContextManager, ExitStack, closing
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from segline import files, params, progress
from segline.model import geometry
from segline.process import Deferred

if TYPE_CHECKING:
    from segline.params import Runtime
    from segline.track.recording import Run, StartedRun
    from segline.track.store import Store
    from segline.train.search import OpenTrial, Search, State, TrialOutcome
    from segline.train.space import SearchPlan

OUT = params.TUNED_FILE.parent
COLUMNS = ("number", "state", "value", "epochs", "reason")  # columns of trials.csv before the columns of settings


def main(join: str | None = None) -> None:
    """Write data/tune: the best settings of the search or, if tune.trials is 0, the settings before it.

    Parameters
    ----------
    join : Optuna storage address of a search that another process runs. If it is given, trials of the
        search are trained, and data/tune is not written.
    """
    model, augment, train = params.read(params.Model), params.read(params.Augment), params.read(params.Train)
    tune, runtime = params.read(params.Tune), params.read(params.Runtime)
    # Check the tile size here, about a second after `dvc repro` starts, rather than hours later in the stage `train`.
    geometry.of(**model.network).check(train.tile, "params.yaml: train.tile =")
    base = params.Tuned(model=model, augment=augment, train=train, searched=())
    if tune.trials == 0 and join is None:
        _write(base, [], {"trials": 0}, {})
        return
    from segline.train.space import SearchPlan

    plan = SearchPlan(base, tune)
    if join is None:
        _search(plan, runtime)
    else:
        _work(plan, runtime, join)


def _search(plan: "SearchPlan", runtime: "Runtime") -> None:
    """Run the search in one or more processes (see runtime.tune_workers), and write the best settings."""
    from segline.process import helpers
    from segline.track.store import open_store
    from segline.train import charts, search, studies

    store, key, total = open_store(), _key(plan), plan.tune.trials
    address = runtime.tune_storage or str(store.place.folder / "studies" / f"{key}.journal")
    found = search.Search(plan, *studies.open_storage(address, key), key)
    found.add_trials(total)
    progress.note(f"tune: {len(found.outcomes(total))} of {total} trials are done in search {key}")
    shared = _share(runtime)
    with Deferred() as stop, _parent(store, plan, _mark(store, key, address)) as parent:
        store.end_stale()
        with helpers(runtime.tune_workers - 1, stop.check, _work, plan, shared, address):
            _train_all(found, shared, store, _mark(store, key, address), parent.id, stop=stop, wait=True)
        stop.check()
        outcomes = found.outcomes(total)
        if len(outcomes) < total:
            progress.note(f"tune: {len(outcomes)} of {total} trials; tune.minutes = {plan.tune.minutes:g} is used up")
        winner = search.best(outcomes, plan.tune)
        settings = plan.settings(winner.values) if winner.number else plan.base
        result = _result(plan, outcomes, winner)
        _write(settings, _rows(plan, outcomes), result, dict(charts.search_charts(found.copy(total))))
        parent.artifact(OUT, "tune")
        parent.tag({name: value for name, value in result.items() if value is not None})
        stop.check()
    progress.note(f"tune: {result['said']}")


def _work(plan: "SearchPlan", runtime: "Runtime", address: str) -> None:
    """Train trials of a search that another process started, until no trial is left."""
    from segline.track.store import open_store
    from segline.train import search, studies

    store, key = open_store(), _key(plan)
    found = search.Search.joined(plan, *studies.open_storage(address, key, new=False), key)
    mark = _mark(store, key, address)
    store.end_stale()
    with Deferred() as stop, ExitStack() as stack:
        with store.place.lock("study"):  # if several processes join at once, only one starts the MLflow run
            parent: Run | None = store.latest(mark)
            if parent is None or parent.status not in ("RUNNING", "FINISHED"):
                # This MLflow store has no usable run of the search. Start a new run.
                # Reason: the search was started with another store, or the process that started the search was killed.
                parent = stack.enter_context(_parent(store, plan, mark))
        _train_all(found, runtime, store, mark, parent.id, stop=stop, wait=False)
        stop.check()


def _mark(store: "Store", key: str, address: str) -> str:
    """Return the key that identifies the MLflow run of the search.

    If the search uses a journal file and the store is a team's store, the key also contains machine and project folder.
    """
    return key if "://" in address else store.here(key)


def _train_all(
    found: "Search", runtime: "Runtime", store: "Store", mark: str, parent: str, *, stop: Deferred, wait: bool
) -> None:
    with closing(found.trials(wait, stop.check)) as trials:
        for asked in trials:
            name = f"trial {asked.number}"
            settings = params.flat(asked.trained.model_dump(mode="json", exclude={"searched"}))
            with (
                store.start_run(name, settings, parent=parent, key=f"{mark}/{asked.number}", again=True) as run,
                stop.errors_as_stop(),
            ):
                result = _train(asked, runtime, run, f"{name} (of trials 0 to {found.total - 1}), epoch", stop)
            asked.tell(*result)  # Optuna is told only after the MLflow run of the trial has ended


def _train(asked: "OpenTrial", runtime: "Runtime", run: "StartedRun", what: str, stop: Deferred) -> "tuple[State, str]":
    """Train one trial and log it to an MLflow run; return the trial's state and, if it failed, the error message."""
    from segline.data.prepared import Prepared
    from segline.track.recording import OUTCOME_TAG
    from segline.train import device, loop, search, setup

    def check() -> None:
        stop.check()
        asked.check_time()

    settings = asked.trained.train
    state: State = "finished"
    reason = ""
    judge = asked.plan.base.train
    started = setup.build(Prepared.open(), asked.trained, device.choose(runtime), judge)
    epochs = loop.fit(
        started.state, started.tiles, started.validation, settings, runtime.workers, judged_by=judge, check=check
    )
    try:
        for epoch in progress.track(epochs, what, runtime.progress, settings.epochs, loop.Epoch.summary):
            run.log(epoch.epoch, epoch.metrics())
            if asked.report(epoch):
                state = "pruned"
                break
    except search.OvertimeError:
        state = "pruned"
        progress.note(f"tune: trial {asked.number} ends early, because tune.minutes is used up")
    except loop.TrainingError as error:
        state, reason = "failed", str(error)
        run.tag({"error": reason})
    finally:
        epochs.close()
    run.tag({"optuna.state": "COMPLETE" if state == "finished" else "PRUNED"})
    if state == "pruned":
        run.tag({OUTCOME_TAG: state})
    if state == "finished":
        run.tag({"optuna.value": asked.value})
    run.finish("FINISHED" if state == "finished" else "KILLED")
    return state, reason


def _key(plan: "SearchPlan") -> str:
    """Return the search key: a digest of settings, data, code and torch version."""
    from segline.data.prepared import PREPARED, WEIGHTS
    from segline.track import lineage
    from segline.train import pretrained

    settings = json.dumps(plan.content(), sort_keys=True).encode()
    data = {path.as_posix(): lineage.digest(path) for path in (PREPARED, WEIGHTS)}
    data |= pretrained.digests(plan.base.model.encoder_weights)
    own = {"settings": files.bytes_md5(settings), "torch": version("torch")}
    return lineage.combined_md5({**own, **data, **lineage.code("tune")})


def _share(runtime: "Runtime") -> "Runtime":
    """Return the runtime settings for one search process. Each process gets an equal share of the CPU cores."""
    if runtime.tune_workers == 1 or runtime.threads or "OMP_NUM_THREADS" in os.environ:
        return runtime
    return runtime.model_copy(update={"threads": max(1, (os.cpu_count() or 1) // runtime.tune_workers)})


def _parent(store: "Store", plan: "SearchPlan", mark: str) -> "AbstractContextManager[StartedRun]":
    """Start the MLflow run of the search; this run is the parent of the runs of the trials."""
    from segline.data.prepared import PREPARED, Prepared
    from segline.track import lineage
    from segline.track.recording import LoggedDataset

    digest, name = lineage.digest(PREPARED), Prepared.open().dataset.name
    inputs = [LoggedDataset(split, name, digest, str(PREPARED)) for split in ("train", "validation")]
    return store.start_run("study", params.flat(plan.content()), lineage.tags(), inputs, key=mark, again=True)


def _result(plan: "SearchPlan", outcomes: "list[TrialOutcome]", winner: "TrialOutcome") -> dict[str, Any]:
    """Return the result of the search: the best trial, compared with trial 0, which has the settings before it."""
    own, metric = outcomes[0].value, plan.tune.metric
    said = (
        f"validation {metric} {winner.value:.4f} (trial {winner.number} of {len(outcomes)}, {plan.epochs} epochs each)"
    )
    if own is None:
        said += "; the trial with the settings before the search did not finish"
    elif winner.number:
        assert winner.value is not None
        said += f", {abs(winner.value - own):.4f} better than {own:.4f} with the settings before the search"
    else:
        said += ": no trial was better than the settings before the search"
    return {
        "objective": plan.tune.objective,
        "trials": len(outcomes),
        "best_trial": winner.number,
        "best_value": winner.value,
        "own_value": own,
        "said": said,
    }


def _rows(plan: "SearchPlan", outcomes: "list[TrialOutcome]") -> list[dict[str, Any]]:
    """Return one table row for each trial; the row holds the trial's outcome and sampled settings."""
    names = sorted(plan.tune.space)
    return [
        {name: getattr(outcome, name) for name in COLUMNS} | {name: outcome.values.get(name) for name in names}
        for outcome in outcomes
    ]


def _write(
    settings: params.Tuned, rows: list[dict[str, Any]], result: dict[str, Any], pictures: dict[str, bytes]
) -> None:
    """Write data/tune. Equal inputs give byte-identical files on every machine."""
    with files.whole_folder(OUT) as folder:
        files.write_yaml(folder / params.TUNED_FILE.name, settings.model_dump(mode="json"))
        with files.table_writer(folder / "trials.csv", list(rows[0]) if rows else COLUMNS) as write:
            for row in rows:
                write(row)
        files.write_json(folder / "search.json", result)
        files.make_empty_folder(folder / "pictures")
        for name, picture in pictures.items():
            files.write_bytes(folder / "pictures" / f"{name}.png", picture)
