"""Who becomes champion: judged, written down, and taken back."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace

from segline.track import commits, lineage, versions
from segline.track.history import CHAMPION, MAX_REASON, Promotion, RegistryError, champions
from segline.track.registry import VERSION_TAG, Made, ModelVersion, Registry
from segline.track.trust import checked
from segline.track.verdict import Verdict, at_least

# Registry, challenger, champion.
Judge = Callable[[Registry, ModelVersion, ModelVersion | None], Verdict]


class PromotionError(RegistryError):
    """A promotion or rollback that cannot be; the message says what to do."""


@dataclass(frozen=True)
class Outcome:
    """What came of a promotion; ``notices`` are what the person should do next."""

    version: ModelVersion
    former: ModelVersion | None
    verdict: Verdict
    promoted: bool
    notices: tuple[str, ...] = ()


def promote(
    registry: Registry,
    which: str,
    judge: Judge,
    *,
    reason: str = "",
    force: bool = False,
    dry_run: bool = False,
    trust: bool = False,
) -> Outcome:
    """Make a version champion, if `judge` and its lineage say so or `force` does.

    The verdict is kept on the version whatever it is; a dry run changes nothing at all.

    Parameters
    ----------
    trust : the user vouches for a version of which registry.jsonl has no line; if it is promoted, it gets one.

    Raises
    ------
    PromotionError
        It is champion, or it is forced without a reason, or the reason is no text.
    RegistryError
        There is no such version, or it may not be trusted.
    """
    if force and not reason.strip():
        raise PromotionError("--force needs --reason TEXT: why a model that the gate does not pass shall be champion")
    _refuse_unfit(reason)
    while True:
        version, former = registry.version(which), registry.holder(CHAMPION)
        if former is not None and former.version == version.version:
            raise PromotionError(f"{registry.name} version {version.version} is champion already")
        content = checked(registry.store, version, trust=trust)
        made = Made(content.md5, content.model_md5)
        making = commits.find(version.tags, registry.store.place.root)
        verdict = judge(registry, version, former) + _lineage(making)
        promoted = verdict.passed or force
        if dry_run:
            return Outcome(version, former, verdict, promoted=False)
        if force and not verdict.passed:
            verdict = replace(verdict, facts={**verdict.facts, "forced": reason, "forced by": lineage.who()})
        with registry.store.place.lock("registry"):
            registry.settle()
            now = registry.holder(CHAMPION)
            if promoted and (now and now.version) != (former and former.version):
                continue  # another became champion meanwhile: it is the one to be judged against
            _keep(registry, version, verdict)
            if promoted:
                why = reason or "passed the gate"
                forced = not verdict.passed
                registry.record(made, "trusted with --trust")
                registry.set_champion(made, "promote", why, commit=making.commit or "", forced=forced)
        return Outcome(version, former, verdict, promoted, _notices(making) if promoted else ())


def rollback(registry: Registry, reason: str, to: str = "") -> tuple[ModelVersion, Promotion]:
    """Make the champion before this one champion again, or the one that `to` names.

    Returns
    -------
    The version, and the line of the history by which the champion that it replaces had become so.

    Raises
    ------
    PromotionError
        There is no champion to go back to, or the one named never was champion, or the reason is empty or no text.
    RegistryError
        It may not be trusted.
    """
    if not reason.strip():
        raise PromotionError("--reason is empty: say why, for those who read the history")
    _refuse_unfit(reason)
    with registry.store.place.lock("registry"):
        registry.settle()
        lines = [line for line in registry.history() if line.alias == CHAMPION]
        version = registry.version(to) if to else _before(registry, lines)
        md5 = version.tags.get(VERSION_TAG, "")
        if md5 not in {line.version_md5 for line in lines}:
            raise PromotionError(
                f"{registry.name} version {version.version} never was champion: `segline models promote "
                f"{version.version}` judges it"
            )
        former = registry.holder(CHAMPION)
        if former is not None and former.version == version.version and champions(lines)[-1] == md5:
            raise PromotionError(f"{registry.name} version {version.version} is champion already")
        content = checked(registry.store, version)
        made = Made(content.md5, content.model_md5)
        commit = next((line.commit for line in reversed(lines) if line.version_md5 == md5 and line.commit), "")
        registry.set_champion(made, "rollback", reason, commit=commit)
    return version, lines[-1]


def _refuse_unfit(reason: str) -> None:
    if len(reason) > MAX_REASON:
        raise PromotionError(f"--reason has {len(reason)} characters; give {MAX_REASON} at most")
    try:
        reason.encode()
    except UnicodeEncodeError:
        raise PromotionError(f"--reason {reason!r} is not written in UTF-8; set the terminal to it") from None


def _before(registry: Registry, lines: list[Promotion]) -> ModelVersion:
    """The champion before the present one."""
    held = champions(lines)
    if len(held) < 2:
        raise PromotionError(f"{registry.name} has no champion before this one; name one with --to VERSION")
    version = registry.find(held[-2])
    if version is None:
        raise PromotionError(
            f"{registry.name}: the champion before this one (md5 {held[-2]}) is not in this machine's store; "
            "`segline models sync` brings it back, `--to VERSION` names another"
        )
    return version


def _lineage(making: commits.Making) -> Verdict:
    detail = f"commit {making.commit[:12]}" if making.commit else f"{making.why}; commit, then promote"
    return Verdict((at_least("lineage", float(making.commit is not None), 1, detail),))


def _notices(making: commits.Making) -> tuple[str, ...]:
    found = ["commit registry.jsonl: it is the history that a clone gets"]
    if making.commit is not None and not making.locked:
        found.insert(0, "no commit has a dvc.lock with this model: commit dvc.lock, and `dvc push`")
    return tuple(found)


def _keep(registry: Registry, version: ModelVersion, verdict: Verdict) -> None:
    """Keep a verdict on its version: as JSON, and on MLflow's page below the model card."""
    client, (name, number) = registry.client, (registry.name, version.version)
    client.set_model_version_tag(name, number, "gate", json.dumps(verdict.as_dict()))
    card = (version.description or "").split("\n## Gate: ")[0]
    client.update_model_version(name, number, versions.described(card, verdict.markdown()))
