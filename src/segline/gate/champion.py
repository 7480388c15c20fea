"""Change the champion by a first registration, a promotion or a rollback, and record each change in the history."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace

from segline.gate.heldout import judge
from segline.track import commits, history, lineage, versions
from segline.track.history import CHAMPION, MAX_REASON, Promotion, RegistryError, champions
from segline.track.packaging import Parts
from segline.track.recording import Run
from segline.track.registry import VERSION_TAG, Md5s, ModelVersion, Registered, Registry
from segline.track.trust import checked
from segline.track.verdict import Verdict, at_least


class PromotionError(RegistryError):
    """Raised if a promotion or rollback is impossible; the message says what to do."""


@dataclass(frozen=True)
class Outcome:
    """Result of `promote`; ``notices`` tell the user what to do next."""

    version: ModelVersion
    former: ModelVersion | None
    verdict: Verdict
    promoted: bool
    notices: tuple[str, ...] = ()


def register(
    registry: Registry,
    parts: Parts,
    run: Run,
    verdict: Verdict,
    tags: Mapping[str, str],
    *,
    description: str = "",
    records: Mapping[str, bytes] | None = None,
    metrics: Mapping[str, float] | None = None,
) -> Registered:
    """Register a version as challenger; the first version that reaches the minimum metrics also becomes champion.

    The parameters are the same as in `Registry.register`. `verdict` says whether the version reaches the minimum
    metrics. If the version reaches them, and the model never had a champion, the version becomes champion. If the
    history names this version as champion and only the alias is missing, the alias is set again.
    """
    registered = registry.register(parts, run, verdict, tags, description, records=records, metrics=metrics)
    with registry.store.place.lock("registry"):
        registry.settle()
        if registry.holder(CHAMPION) is None:
            md5s, held = registered.md5s, champions(registry.history())
            if held and held[-1] == md5s.version:
                registry.set_aliases()
            elif not held and verdict.passed:
                registry.set_champion(md5s, "promote", "first to meet the minimum metrics")
    return replace(registered, aliases=registry.aliases(registered.version))


def promote(
    registry: Registry,
    which: str,
    *,
    reason: str = "",
    force: bool = False,
    dry_run: bool = False,
    trust: bool = False,
) -> Outcome:
    """Judge a version. If it passes the gate and its commit is known, make it champion; `force` skips both conditions.

    The verdict is stored with the version even if the version fails. A dry run stores nothing.

    Parameters
    ----------
    which : the version's number, an alias, or the start of its md5.
    trust : accept a version without a line in registry.jsonl, on the user's responsibility; a promotion adds the line.

    Raises
    ------
    PromotionError
        The version is already the champion, `force` has no reason, or the reason is not valid text.
    RegistryError
        There is no such version, or the version may not be trusted.
    """
    if force and not reason.strip():
        raise PromotionError(
            "--force needs --reason TEXT; give the reason for promoting a version that may fail the gate"
        )
    _check_reason(reason)
    while True:
        version, former = registry.version(which), registry.holder(CHAMPION)
        if former is not None and former.version == version.version:
            raise PromotionError(f"{registry.name} version {version.version} is champion already")
        content = checked(registry.store, version, trust=trust)
        md5s = Md5s(content.md5, content.model_md5)
        origin = commits.find(version.tags, registry.store.place.root)
        verdict = judge(registry, version, former, trust=trust) + _lineage(origin)
        promoted = verdict.passed or force
        if dry_run:
            return Outcome(version, former, verdict, promoted=False)
        if force and not verdict.passed:
            verdict = replace(verdict, facts={**verdict.facts, "forced": reason, "forced by": lineage.who()})
        with registry.store.place.lock("registry"):
            registry.settle()
            current = registry.holder(CHAMPION)
            if promoted and (current and current.version) != (former and former.version):
                continue  # another version became champion meanwhile, so compare with that version
            _keep(registry, version, verdict)
            if promoted:
                why = reason or "passed the gate"
                forced = not verdict.passed
                registry.record(md5s, "trusted with --trust")
                registry.set_champion(md5s, "promote", why, commit=origin.commit or "", forced=forced)
        return Outcome(version, former, verdict, promoted, _notices(origin) if promoted else ())


def rollback(registry: Registry, reason: str, to: str = "") -> tuple[ModelVersion, Promotion]:
    """Make version `to`, a former champion, the champion again; by default, use the previous champion.

    Returns
    -------
    Two values: the new champion, and the line of registry.jsonl about the champion that was replaced.

    Raises
    ------
    PromotionError
        There is no former champion, the named version was never champion, or the reason is empty or not valid text.
    RegistryError
        The version may not be trusted.
    """
    if not reason.strip():
        raise PromotionError("--reason is empty; give a reason, which is recorded in the history")
    _check_reason(reason)
    with registry.store.place.lock("registry"):
        registry.settle()
        lines = [line for line in registry.history() if line.alias == CHAMPION]
        version = registry.version(to) if to else _previous(registry, lines)
        md5 = version.tags.get(VERSION_TAG, "")
        if md5 not in {line.version_md5 for line in lines}:
            raise PromotionError(
                f"{registry.name} version {version.version} was never champion; promote it with `segline models "
                f"promote {version.version}`"
            )
        former = registry.holder(CHAMPION)
        if former is not None and former.version == version.version and champions(lines)[-1] == md5:
            raise PromotionError(f"{registry.name} version {version.version} is champion already")
        content = checked(registry.store, version)
        md5s = Md5s(content.md5, content.model_md5)
        commit = next((line.commit for line in reversed(lines) if line.version_md5 == md5 and line.commit), "")
        registry.set_champion(md5s, "rollback", reason, commit=commit)
    return version, lines[-1]


def _check_reason(reason: str) -> None:
    if len(reason) > MAX_REASON:
        raise PromotionError(f"--reason has {len(reason)} characters; the maximum is {MAX_REASON}")
    try:
        reason.encode()
    except UnicodeEncodeError:
        raise PromotionError(f"--reason {reason!r} is not valid UTF-8; set the terminal's encoding to UTF-8") from None


def _previous(registry: Registry, lines: list[Promotion]) -> ModelVersion:
    """Return the version that was champion before the current champion."""
    held = champions(lines)
    if len(held) < 2:
        raise PromotionError(
            f"{registry.name} has no champion before the current one; promote another version with `segline models "
            "promote`; to return to a champion that was rolled back, run `segline models rollback --to VERSION "
            "--reason TEXT`"
        )
    version = registry.find(held[-2])
    if version is None:
        raise PromotionError(
            f"{registry.name}: the previous champion (md5 {held[-2]}) is not in this machine's store; restore this "
            "version with `segline models sync`, or name another former champion with --to VERSION"
        )
    return version


def _lineage(origin: commits.Origin) -> Verdict:
    detail = (
        f"commit {origin.commit[:12]}"
        if origin.commit
        else f"{origin.why}; commit the version's code and settings, then promote the version"
    )
    return Verdict((at_least("lineage", float(origin.commit is not None), 1, detail),))


def _notices(origin: commits.Origin) -> tuple[str, ...]:
    notices = [f"commit {history.HISTORY}, because a clone gets its history from this file"]
    if origin.commit is not None and not origin.locked:
        notices.insert(0, "no commit has a dvc.lock with this model; commit dvc.lock, and run `dvc push`")
    return tuple(notices)


def _keep(registry: Registry, version: ModelVersion, verdict: Verdict) -> None:
    """Store a verdict as JSON in a tag of the version, and as text below the version's model card on MLflow's page."""
    client, (name, number) = registry.client, (registry.name, version.version)
    client.set_model_version_tag(name, number, "gate", json.dumps(verdict.as_dict()))
    card = (version.description or "").split("\n## Gate: ")[0]
    client.update_model_version(name, number, versions.described(card, verdict.markdown()))
