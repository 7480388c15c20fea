"""`segline models verify`: check that files, aliases and history of the registry agree."""

import json
from collections.abc import Callable
from dataclasses import asdict

from segline import names
from segline.commands.models import open_registry
from segline.text import shown
from segline.track.audit import Finding, verify
from segline.track.history import HISTORY, read_history
from segline.track.registry import Registry
from segline.track.store import open_store

FOREIGN = Finding(
    "", "segline never gives a model this name, so the model was not checked; delete it on MLflow's page", note=True
)


def main(name: str, as_json: bool, say: Callable[[str], None]) -> int:
    """Print the problems of one model, or of all models; return exit code 1 if there are problems, otherwise 0."""
    store = open_store()
    known = {model.name for model in store.client.search_registered_models(max_results=1000)}
    known |= {line.name for line in read_history(store.place.root / HISTORY)}  # the store of a new clone is empty
    if name and name not in known:
        open_registry(name, store)  # raises an error that lists the models
    selected = [name] if name else sorted(filter(names.is_model, known))
    registries = [Registry(store, model) for model in selected]
    findings = [(registry.name, finding) for registry in registries for finding in verify(registry)]
    if not name:
        findings += [(shown(model), FOREIGN) for model in sorted(known) if not names.is_model(model)]
    if as_json:
        say(json.dumps([{"model": model, **asdict(finding)} for model, finding in findings], indent=2))
    else:
        for model, finding in findings:
            where = f"{model} version {finding.version}" if finding.version else model
            say(f"{'note' if finding.note else 'problem'}: {where}: {finding.what}")
        numbers = ((registry.name, len(registry.versions())) for registry in registries)
        counts = (f"{name} has {number} version{'s' * (number != 1)}" for name, number in numbers)
        wrong = sum(not finding.note for _, finding in findings)
        end = f"{wrong} problem{'s' * (wrong > 1)}" if wrong else "all is well"
        say(f"{', '.join(counts) or 'no model is registered'}: {end}")
    return int(any(not finding.note for _, finding in findings))
