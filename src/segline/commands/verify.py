"""`segline models verify`: whether files, aliases and history of the registry agree."""

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
    "", "is no name that segline gives a model; nothing was looked at; delete it on MLflow's page", note=True
)


def main(name: str, as_json: bool, say: Callable[[str], None]) -> int:
    """Say what is wrong with the models of the store, or with one; returns the exit code, 1 where something is."""
    store = open_store()
    known = {each.name for each in store.client.search_registered_models(max_results=1000)}
    known |= {line.name for line in read_history(store.place.root / HISTORY)}  # in a clone the store is empty
    if name and name not in known:
        open_registry(name, store)  # which says what there is
    registries = [Registry(store, each) for each in ([name] if name else sorted(filter(names.is_model, known)))]
    found = [(registry.name, finding) for registry in registries for finding in verify(registry)]
    if not name:
        found += [(shown(each), FOREIGN) for each in sorted(known) if not names.is_model(each)]
    if as_json:
        say(json.dumps([{"model": model, **asdict(finding)} for model, finding in found], indent=2))
    else:
        for model, finding in found:
            where = f"{model} version {finding.version}" if finding.version else model
            say(f"{'note' if finding.note else 'wrong'}: {where}: {finding.what}")
        numbers = ((registry.name, len(registry.versions())) for registry in registries)
        counts = (f"{name} has {number} version{'s' * (number != 1)}" for name, number in numbers)
        wrong = sum(not finding.note for _, finding in found)
        end = f"{wrong} problem{'s' * (wrong > 1)}" if wrong else "all is well"
        say(f"{', '.join(counts) or 'no model is registered'}: {end}")
    return int(any(not finding.note for _, finding in found))
