"""Find problems in a registry: damaged files, edited tags, and aliases that contradict the history."""

from dataclasses import dataclass

from segline.text import shown, visible
from segline.track import commits, intact, lineage, trust
from segline.track.history import CHAMPION, HISTORY, PREVIOUS, Promotion, RegistryError, champions
from segline.track.registry import CHALLENGER, VERSION_TAG, ModelVersion, Registry
from segline.track.tags import unreadable, verdict

ALIASES = (CHALLENGER, CHAMPION, PREVIOUS)


@dataclass(frozen=True)
class Finding:
    """A finding of the audit: a recommendation if `note` is True, otherwise a problem and its fix."""

    version: str
    """Version number; empty if the finding does not concern a single version."""
    what: str
    note: bool = False


def verify(registry: Registry) -> list[Finding]:
    """Check all versions of a model; return first the problems, then the recommendations."""
    versions, lines = registry.versions(), registry.history()
    findings = [finding for version in versions for finding in _files(registry, version)]
    findings += [finding for version in versions for finding in (*_tags(version), *_alias_names(version))]
    findings += _duplicates(versions)
    findings += _champions(registry, versions, lines)
    return sorted(findings + _notes(registry, versions), key=lambda finding: finding.note)


def _files(registry: Registry, version: ModelVersion) -> list[Finding]:
    """Check the files of a version by the rules that `segline predict` and `segline serve` apply."""
    number = str(version.version)
    try:
        content = trust.read(intact.files(registry.store, version))
    except RegistryError as error:
        return [Finding(number, str(error))]
    except OSError as error:
        return [Finding(number, f"the version's files cannot be read: {visible(str(error))}")]
    damage = intact.damage(content.md5s, content.others, version)
    problems = [text if text.endswith("delete it") else f"{text}; {intact.way_out(version)}" for text in damage]
    history = registry.history_file
    # An altered or missing file also changes the version's md5, so do not report the md5 as a second problem.
    if problem := trust.contradiction(version, content, history):
        problems += [] if damage else [problem]
    elif problem := trust.unrecorded(version, content, history):
        problems.append(f"predict, serve and promote refuse this version: {problem}")
    problems += intact.caches(content.others)
    return [Finding(number, text) for text in problems]


def _tags(version: ModelVersion) -> list[Finding]:
    """Check the tags of a version, since anybody can edit them on MLflow's page."""
    number, own_tags = str(version.version), version.tags
    edited = [
        Finding(number, f"the tag {name} has the invalid value {shown(own_tags.get(name, ''))}; somebody edited it")
        for name in unreadable(own_tags)
    ]
    missing = [
        Finding(number, f"the tag {name} is missing, so only files that affect predictions are checked", note=True)
        for name in (intact.FILES_TAG,)
        if name not in own_tags
    ]
    return edited + missing


def _duplicates(versions: list[ModelVersion]) -> list[Finding]:
    """Report versions that have the same md5 in the tag `version.md5`."""
    numbers: dict[str, list[str]] = {}
    for version in versions:
        numbers.setdefault(version.tags.get(VERSION_TAG, ""), []).append(str(version.version))
    return [
        Finding(
            same[0],
            f"the tag {VERSION_TAG} has the same value in other versions ({', '.join(same[1:])}); somebody edited one "
            "of these tags",
        )
        for md5, same in numbers.items()
        if md5 and len(same) > 1
    ]


def _alias_names(version: ModelVersion) -> list[Finding]:
    """Find aliases that differ from segline's aliases only in letter case, such as @Champion."""
    wrong = [alias for alias in version.aliases if alias.lower() in ALIASES and alias not in ALIASES]
    return [
        Finding(
            str(version.version),
            f"the alias @{alias} differs from @{alias.lower()}, because MLflow distinguishes case; delete @{alias}",
        )
        for alias in wrong
    ]


def _champions(registry: Registry, versions: list[ModelVersion], lines: list[Promotion]) -> list[Finding]:
    """Check that @champion and @previous point to the versions that registry.jsonl names.

    Also check that the champion passed the gate or was promoted with --force.
    """
    held = champions(lines)
    findings = []
    for alias, place in ((CHAMPION, -1), (PREVIOUS, -2)):
        holder = next((version for version in versions if alias in version.aliases), None)
        expected = held[place] if len(held) >= -place else None
        actual = holder.tags.get(VERSION_TAG) if holder else None
        if actual != expected:
            findings.append(_misplaced(registry, alias, holder, expected))
        elif holder and alias == CHAMPION and not _judged(holder, lines):
            findings.append(
                Finding(
                    str(holder.version),
                    f"@{alias} has neither a passed verdict nor a promotion with --force; promote the version again",
                )
            )
    return findings


def _misplaced(registry: Registry, alias: str, holder: ModelVersion | None, md5: str | None) -> Finding:
    """Report that an alias does not point to the version that registry.jsonl names."""
    expected = registry.find(md5) if md5 else None
    if md5 and expected is None:
        return Finding(
            "",
            f"{HISTORY} names md5 {md5} for @{alias}, but this store has no version with this md5; run "
            "`segline models sync`",
        )
    command = f"rollback --to {expected.version} --reason TEXT" if expected else "promote VERSION"
    where = f"version {expected.version}" if expected else "no version"
    how = "set" if holder else "deleted"
    return Finding(
        str(holder.version) if holder else "",
        f"@{alias} was {how} by hand, but {HISTORY} names {where}; set the alias with `segline models {command}`",
    )


def _judged(version: ModelVersion, lines: list[Promotion]) -> bool:
    """Return whether a version passed the gate or was promoted with --force."""
    judged = verdict(version.tags)
    forced = any(line.forced for line in lines if line.version_md5 == version.tags.get(VERSION_TAG))
    return forced or (judged is not None and judged.passed)


def _notes(registry: Registry, versions: list[ModelVersion]) -> list[Finding]:
    """Report uncommitted lines of registry.jsonl, and problems with the commits of @champion and @previous.

    Either version is reported if no commit holds its code and settings, or if no commit holds its dvc.lock.
    """
    root = registry.store.place.root
    notes = []
    for version in versions:
        if not {CHAMPION, PREVIOUS} & {*version.aliases}:
            continue
        origin, number = commits.find(version.tags, root), str(version.version)
        if origin.commit is None:
            notes.append(
                Finding(
                    number,
                    f"{origin.why}; commit the version's code and settings, so that the version can be rebuilt",
                    note=True,
                )
            )
        elif not origin.locked:
            notes.append(Finding(number, "no commit has the dvc.lock of this version yet; commit dvc.lock", note=True))
    if lineage.uncommitted(registry.history_file):
        notes.append(Finding("", f"{HISTORY} has lines that are not committed; commit the file", note=True))
    return notes
