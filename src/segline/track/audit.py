"""What is wrong with a registry: files, aliases, and the history beside them."""

from dataclasses import dataclass

from segline.text import shown, visible
from segline.track import commits, intact, lineage, trust
from segline.track.history import CHAMPION, HISTORY, PREVIOUS, Promotion, RegistryError, champions
from segline.track.registry import CHALLENGER, VERSION_TAG, ModelVersion, Registry
from segline.track.tags import unreadable, verdict

ALIASES = (CHALLENGER, CHAMPION, PREVIOUS)


@dataclass(frozen=True)
class Finding:
    """What is wrong and what to do; a note is nothing wrong."""

    version: str
    """Its number; empty where no version is meant."""
    what: str
    note: bool = False


def verify(registry: Registry) -> list[Finding]:
    """All that is wrong with the versions of a model, notes last."""
    versions, lines = registry.versions(), registry.history()
    found = [finding for version in versions for finding in _files(registry, version)]
    found += [finding for version in versions for finding in (*_tags(version), *_alias_names(version))]
    found += _twice(versions)
    found += _champions(registry, versions, lines)
    return sorted(found + _notes(registry, versions), key=lambda finding: finding.note)


def _files(registry: Registry, version: ModelVersion) -> list[Finding]:
    """What is wrong with the files of a version, by the rule by which predict and serve refuse it."""
    number = str(version.version)
    try:
        content = trust.read(intact.files(registry.store, version))
    except RegistryError as error:
        return [Finding(number, str(error))]
    except OSError as error:
        return [Finding(number, f"its files cannot be read: {visible(str(error))}")]
    damage = intact.damage(content.md5s, content.others, version)
    wrong = [each if each.endswith("delete it") else f"{each}; {intact.way_out(version)}" for each in damage]
    history = registry.history_file
    # A file that was altered or is missing makes another md5; that is said above.
    if problem := trust.contradiction(version, content, history):
        wrong += [] if damage else [problem]
    elif problem := trust.unrecorded(version, content, history):
        wrong.append(f"predict, serve and promote refuse it: {problem}")
    wrong += intact.caches(content.others)
    return [Finding(number, each) for each in wrong]


def _tags(version: ModelVersion) -> list[Finding]:
    """Tags that are not as segline wrote them; all may be edited on MLflow's page."""
    number, ours = str(version.version), version.tags
    edited = [
        Finding(number, f"tag {name} is {shown(ours.get(name, ''))}, not as segline writes it: somebody edited it")
        for name in unreadable(ours)
    ]
    missing = [
        Finding(number, f"has no tag {name}, so that nothing can be said of the files that decide no answer", note=True)
        for name in (intact.FILES_TAG,)
        if name not in ours
    ]
    return edited + missing


def _twice(versions: list[ModelVersion]) -> list[Finding]:
    """Versions that claim the md5 of another."""
    numbers: dict[str, list[str]] = {}
    for version in versions:
        numbers.setdefault(version.tags.get(VERSION_TAG, ""), []).append(str(version.version))
    return [
        Finding(held[0], f"tag {VERSION_TAG} is that of versions {', '.join(held[1:])} too: somebody edited a tag")
        for md5, held in numbers.items()
        if md5 and len(held) > 1
    ]


def _alias_names(version: ModelVersion) -> list[Finding]:
    """Aliases that are meant as one of ours and are not."""
    wrong = [alias for alias in version.aliases if alias.lower() in ALIASES and alias not in ALIASES]
    return [
        Finding(str(version.version), f"@{alias} is not @{alias.lower()}: MLflow tells them apart; delete it")
        for alias in wrong
    ]


def _champions(registry: Registry, versions: list[ModelVersion], lines: list[Promotion]) -> list[Finding]:
    """Where @champion and @previous are not as the history has them, or have no verdict."""
    held = champions(lines)
    found = []
    for alias, place in ((CHAMPION, -1), (PREVIOUS, -2)):
        version = next((each for each in versions if alias in each.aliases), None)
        wanted = held[place] if len(held) >= -place else None
        there = version.tags.get(VERSION_TAG) if version else None
        if there != wanted:
            found.append(_against(registry, alias, version, wanted))
        elif version and alias == CHAMPION and not _judged(version, lines):
            found.append(Finding(str(version.version), f"@{alias} without a verdict that passes; promote it again"))
    return found


def _against(registry: Registry, alias: str, version: ModelVersion | None, wanted: str | None) -> Finding:
    """An alias that is not where the history has it."""
    expected = registry.find(wanted) if wanted else None
    if wanted and expected is None:
        return Finding("", f"{HISTORY}: @{alias} is md5 {wanted}, which is not in this store; `segline models sync`")
    back = f"rollback --to {expected.version} --reason TEXT" if expected else "promote VERSION"
    where = f"version {expected.version}" if expected else "none"
    how = "set" if version else "deleted"
    return Finding(
        str(version.version) if version else "",
        f"@{alias} was {how} by hand: {HISTORY} has {where}; `segline models {back}` sets it",
    )


def _judged(version: ModelVersion, lines: list[Promotion]) -> bool:
    """Whether the gate passed a version, or someone said why it need not."""
    found = verdict(version.tags)
    forced = any(line.forced for line in lines if line.version_md5 == version.tags.get(VERSION_TAG))
    return forced or (found is not None and found.passed)


def _notes(registry: Registry, versions: list[ModelVersion]) -> list[Finding]:
    """What is to be committed."""
    root = registry.store.place.root
    found = []
    for version in versions:
        if not {CHAMPION, PREVIOUS} & {*version.aliases}:
            continue
        making, number = commits.find(version.tags, root), str(version.version)
        if making.commit is None:
            found.append(Finding(number, f"{making.why}; commit it, so that it can be rebuilt", note=True))
        elif not making.locked:
            found.append(Finding(number, "no commit has its dvc.lock yet; commit dvc.lock", note=True))
    if lineage.uncommitted(registry.history_file):
        found.append(Finding("", f"{HISTORY} has lines that are not committed; commit it", note=True))
    return found
