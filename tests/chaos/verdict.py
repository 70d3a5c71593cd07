"""What must be true when the dust has settled, told from the event log and the bucket alone (DESIGN §6).

Each rule is a pure function that yields what it finds wrong; `judge` asks all of them. Nothing here looks into a store
or knows how the fleet works: it reads the events as an API layer would, and the objects as a player would. A checker
that finds nothing may check nothing: `test_verdict.py` gives it logs and buckets with one thing wrong in each.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bucket import Belongings, assets
from history import TERMINAL, check_asset, check_envelopes
from landing import leads_nowhere

from pipeline import keys
from pipeline.conductor import MAX_LOSSES
from pipeline.events import Event
from pipeline.ports import Storage
from pipeline.presentation.hls import render_playlists
from pipeline.presentation.model import Effect, Presentation
from pipeline.presentation.publish import render_doors

PARTS = ("transcode", "audio")
"""Stages that make what `package` needs."""


_RECEIPT = re.compile(r"\.(\d+)-\w+\.json$")
"""A receipt's key ends with the fence of the attempt that wrote it: its number and its nonce."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that must not be."""

    rule: str
    subject: str
    """The asset, or the job."""
    detail: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.subject}: {self.detail}"


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What is judged."""

    told: Sequence[Event]
    """Every event, in the order of the stream."""
    found: Mapping[str, Belongings]
    """Every asset that has an object."""
    promised: Collection[str]
    """Ids of the requests whose acceptance was confirmed to the caller."""

    def of_job(self) -> dict[str, list[Event]]:
        jobs: dict[str, list[Event]] = defaultdict(list)
        for event in self.told:
            if event.correlationid is not None:
                jobs[event.correlationid].append(event)
        return jobs

    def of_asset(self) -> dict[str, list[Event]]:
        subjects: dict[str, list[Event]] = defaultdict(list)
        for event in self.told:
            subjects[event.subject].append(event)
        return subjects


Rule = Callable[[Evidence], Iterable[Finding]]


def gather(events: Iterable[Mapping[str, Any]], storage: Storage, promised: Collection[str]) -> Evidence:
    """What is judged: the log, and a look into the bucket."""
    return Evidence(told=[Event.model_validate(event) for event in events], found=assets(storage), promised=promised)


def judge(evidence: Evidence) -> list[Finding]:
    """Everything that is wrong; empty is good."""
    return [finding for rule in RULES for finding in rule(evidence)]


# -- the log ----------------------------------------------------------------------------------------------------------


def envelopes(evidence: Evidence) -> Iterator[Finding]:
    """Ids are deterministic and never said twice; every event is what its model says."""
    for event in evidence.told:
        expected = f"{event.correlationid}." if event.correlationid else ""
        if not event.id.startswith(expected) or not event.id.rpartition(".")[0]:
            yield Finding(rule="id", subject=event.subject, detail=f"{event.id} does not follow from its move")
    yield from _complaint("envelope", "all", lambda: check_envelopes(list(evidence.told)))


def sequences(evidence: Evidence) -> Iterator[Finding]:
    """Per asset and epoch 1..n in the order of the stream; a document with each of its changes, version by version."""
    for asset, told in evidence.of_asset().items():
        epochs = list(dict.fromkeys(event.epoch for event in told))
        if epochs != sorted(epochs):
            yield Finding(rule="epoch", subject=asset, detail=f"epochs come as {epochs}")
        for epoch in epochs:
            own = [event for event in told if event.epoch == epoch]
            numbers = [int(event.sequence) for event in own]
            if numbers != list(range(1, len(own) + 1)):
                yield Finding(rule="gap", subject=asset, detail=f"sequences {numbers} in epoch {epoch}")
            else:
                yield from _complaint("document", asset, lambda own=own: check_asset(own))  # type: ignore[misc]


def endings(evidence: Evidence) -> Iterator[Finding]:
    """No accepted request is lost: each was accepted once, ended once, and nothing of it was said afterwards."""
    jobs = evidence.of_job()
    for job in sorted(set(evidence.promised) - set(jobs)):
        yield Finding(rule="lost", subject=job, detail="accepted, and never heard of")
    for job, told in jobs.items():
        names = [event.name for event in told]
        ends = [name for name in names if name in TERMINAL]
        if names.count("asset.accepted") != 1 or names[0] != "asset.accepted":
            yield Finding(rule="accepted", subject=job, detail=f"accepted {names.count('asset.accepted')} times")
        if not ends:
            yield Finding(rule="lost", subject=job, detail=f"never ended; its last event is {names[-1]}")
        elif len(ends) > 1:
            yield Finding(rule="ended twice", subject=job, detail=", ".join(ends))
        elif any(name != "asset.updated" for name in names[names.index(ends[0]) + 1 :]):
            yield Finding(rule="after the end", subject=job, detail=f"{names[names.index(ends[0]) + 1 :]}")


# -- steps ------------------------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class _Tale:
    """The steps of one job, as its events tell them."""

    needs: Mapping[str, Collection[str]]
    optional: Collection[str]
    attempts: Counter[str] = field(default_factory=Counter)
    losses: Counter[str] = field(default_factory=Counter)
    holder: dict[str, tuple[int, str | None]] = field(default_factory=dict)
    settled: dict[str, str] = field(default_factory=dict)

    def hear(self, event: Event) -> Iterator[str]:
        """What is wrong with this event, after those before it."""
        data, step, name = event.data, str(event.data["step"]), event.name
        attempt = (int(data["attempt"]), data["worker"])
        if step in self.settled:
            yield f"{name} of {step}, which is settled"
        if name == "step.started":
            yield from self._begin(step, attempt)
            return
        code = (data.get("error") or {}).get("code")
        if code == "cancelled":
            self.holder.pop(step, None)
        elif self.holder.pop(step, None) != attempt:
            yield f"{name} of {step} by {attempt}, who did not hold it"
        if code == "worker_lost":
            self.losses[step] += 1
        receipt = _RECEIPT.search((data.get("facts") or {}).get("receipt", ""))
        if receipt and int(receipt[1]) != attempt[0]:
            yield f"{step}: attempt {attempt[0]} ended with the receipt of attempt {receipt[1]}"
        if name == "step.retrying" and self.losses[step] >= MAX_LOSSES:
            yield f"{step} is tried again after {self.losses[step]} lost workers"
        if name in ("step.finished", "step.failed"):
            self.settled[step] = name

    def _begin(self, step: str, attempt: tuple[int, str | None]) -> Iterator[str]:
        missing = sorted(set(self.needs.get(step, ())) - set(self.settled))
        if missing:
            yield f"{step} began before {missing} were settled"
        if attempt[0] != self.attempts[step] + 1:
            yield f"{step}: attempt {attempt[0]} after {self.attempts[step]}"
        self.attempts[step] = max(self.attempts[step], attempt[0])
        self.holder[step] = attempt

    def end(self, event: Event) -> Iterator[str]:
        failed = {step for step, how in self.settled.items() if how == "step.failed"}
        broken = sorted(failed - set(self.optional))
        if bool(broken) != (event.name == "asset.failed"):
            yield f"{event.name}, while {broken} failed"
        if event.name == "asset.ready" and set(self.needs) - set(self.settled):
            yield f"ready without {sorted(set(self.needs) - set(self.settled))}"
        if event.name == "asset.ready" and sorted(failed) != sorted(event.data.get("missing", [])):
            yield f"{sorted(failed)} failed, and {event.data.get('missing')} are said to be missing"


def steps(evidence: Evidence) -> Iterator[Finding]:
    """A step begins when its needs are settled, fences grow, and only its holder ends it."""
    for job, told in evidence.of_job().items():
        tale = _Tale(needs=_needs(evidence, job, told), optional=_optional(evidence, job, told))
        for event in told:
            if event.name.startswith("step."):
                wrong = tale.hear(event)
            elif event.name in TERMINAL:
                wrong = tale.end(event)
            else:
                continue
            yield from (Finding(rule="step", subject=job, detail=detail) for detail in wrong)


def _history(evidence: Evidence, job: str, told: Sequence[Event]) -> Mapping[str, Any] | None:
    belongings = evidence.found.get(told[0].subject)
    return belongings.histories.get(job) if belongings else None


def _needs(evidence: Evidence, job: str, told: Sequence[Event]) -> dict[str, list[str]]:
    """Step → its needs: from the history that lies in the bucket; of a job that left nothing, as every plan has it."""
    history = _history(evidence, job, told)
    if history is not None:
        return {step["id"]: list(step["needs"]) for step in history["steps"]}
    stages = _stages(told)
    parts = [step for step, stage in stages.items() if stage in PARTS]
    before = {"ingest": [], "package": parts, "subtitle": ["package"]}
    return {step: before.get(stage, ["ingest"]) for step, stage in stages.items()}


def _optional(evidence: Evidence, job: str, told: Sequence[Event]) -> set[str]:
    history = _history(evidence, job, told)
    if history is not None:
        return {step["id"] for step in history["steps"] if step["optional"]}
    return {step for step, stage in _stages(told).items() if stage == "subtitle"}


def _stages(told: Iterable[Event]) -> dict[str, str]:
    return {str(event.data["step"]): str(event.data["stage"]) for event in told if event.name.startswith("step.")}


def effects(evidence: Evidence) -> Iterator[Finding]:
    """No effect is told twice: one `track.ready` a track and job, one `asset.playable`, one `subtitle.completed`."""
    for job, told in evidence.of_job().items():
        said: Counter[str] = Counter()
        for event in told:
            if event.name == "track.ready":
                said[f"track.ready of {event.data['track']}"] += 1
            elif event.name in ("asset.playable", "asset.ingested", "subtitle.completed", "subtitle.failed"):
                said[event.name] += 1
        for what, times in said.items():
            if times > 1:
                yield Finding(rule="told twice", subject=job, detail=f"{what}, {times} times")


# -- the bucket -------------------------------------------------------------------------------------------------------


def versions(evidence: Evidence) -> Iterator[Finding]:
    """Versions are 1..n, each brings exactly one effect, and no effect is brought twice."""
    for asset, belongings in evidence.found.items():
        numbers = sorted(belongings.versions)
        if numbers != list(range(1, len(numbers) + 1)):
            yield Finding(rule="versions", subject=asset, detail=f"{numbers}")
        before: tuple[Effect, ...] = ()
        for number in numbers:
            version = belongings.versions[number]
            if (version.asset, version.version) != (asset, number):
                yield Finding(rule="versions", subject=asset, detail=f"{number} says {version.asset} {version.version}")
            brought = [effect for effect in version.effects if effect not in before]
            if len(brought) != 1 or len(version.effects) != len(before) + 1:
                detail = f"version {number} has {len(version.effects)} effects after {len(before)}, {len(brought)} new"
                yield Finding(rule="published twice", subject=asset, detail=detail)
            before = version.effects


def published(evidence: Evidence) -> Iterator[Finding]:
    """What the events say was published is what the bucket holds, and the other way round."""
    jobs = evidence.of_job()
    for asset, belongings in evidence.found.items():
        first = _first_versions(belongings)
        told = {
            Effect(job=job, step=str(event.data["step"])): int(event.data["facts"]["version"])
            for job, of_job in jobs.items()
            for event in of_job
            if event.subject == asset and event.name == "step.finished" and "version" in event.data.get("facts", {})
        }
        for effect, version in told.items():
            if first.get(effect) != version:
                detail = f"{effect} is told as version {version}, and first stands in {first.get(effect)}"
                yield Finding(rule="published", subject=asset, detail=detail)
        for effect in set(first) - set(told):
            if not _gave_up(jobs.get(effect.job, []), effect.step):
                yield Finding(rule="published", subject=asset, detail=f"{effect} is public, and nobody said so")


def _first_versions(belongings: Belongings) -> dict[Effect, int]:
    first: dict[Effect, int] = {}
    for number in sorted(belongings.versions):
        for effect in belongings.versions[number].effects:
            first.setdefault(effect, number)
    return first


def _gave_up(told: Iterable[Event], step: str) -> bool:
    """Its last worker was lost between publishing and saying so, and it was given up: what is public stays."""
    return any(event.name == "step.failed" and event.data["step"] == step for event in told)


def whole(evidence: Evidence) -> Iterator[Finding]:
    """Every object that a version names is there, as long as it says; its playlists say what the version says."""
    for asset, belongings in evidence.found.items():
        for number, version in belongings.versions.items():
            for key, size in named(version).items():
                holder = evidence.found.get(keys.owner(key) or "")  # of a clip's tracks: another asset
                stored = holder.objects.get(key) if holder else None
                if stored is None:
                    yield Finding(rule="missing", subject=asset, detail=f"version {number} names {key}")
                elif size is not None and stored.size != size:
                    detail = f"{key} has {stored.size} bytes, version {number} says {size}"
                    yield Finding(rule="size", subject=asset, detail=detail)
            for key, text in render_playlists(version).items():
                if key in belongings.objects and belongings.read(key) != text.encode():
                    yield Finding(rule="playlist", subject=asset, detail=f"{key} is not that of version {number}")
            for marker in sorted(markers(version)):
                holder = evidence.found.get(keys.owner(marker) or "")
                if holder is None or marker not in holder.objects:
                    yield Finding(rule="missing", subject=asset, detail=f"version {number} needs {marker}")


def named(version: Presentation) -> dict[str, int | None]:
    """Every object that must be there for this version, with its size where that is told."""
    objects: dict[str, int | None] = dict.fromkeys(render_playlists(version))
    objects |= {version.captions(track): None for track in version.text}
    for track in version.tracks:
        objects |= {track.init: None} if track.init else {}
        objects |= {segment.key: segment.size for segment in track.segments}
    for edit in filter(None, (version.edit, version.base)):
        for patch in edit.patches:
            objects |= {piece.key: piece.size for piece in (*patch.head, *patch.tail)}
            objects |= {piece.init: None for piece in (*patch.head, *patch.tail) if piece.init}
    return objects


def markers(version: Presentation) -> set[str]:
    """Those that keep what a clip plays of other assets."""
    owners = {keys.owner(key) for key in named(version)} - {version.asset, None}
    return {keys.reference(owner, version.asset) for owner in owners if owner}


def doors(evidence: Evidence) -> Iterator[Finding]:
    """Doors lead to the latest version, can be parsed, and every address in them is an object; none without one."""
    everything = {key for belongings in evidence.found.values() for key in belongings.objects}
    for asset, belongings in evidence.found.items():
        latest = belongings.latest
        expected = render_doors(latest) if latest else {}
        for key in (keys.hls_door(asset), keys.dash_door(asset)):
            if (key in belongings.objects) != (key in expected):
                detail = f"{key} is {'there' if key in belongings.objects else 'missing'}"
                yield Finding(rule="door", subject=asset, detail=f"{detail}, and there are {len(belongings.versions)}")
            elif key in expected:
                text = belongings.read(key).decode()
                if text != expected[key]:
                    yield Finding(rule="door", subject=asset, detail=f"{key} is not that of version {latest}"[:300])
                for detail in leads_nowhere(key, text, everything):
                    yield Finding(rule="door", subject=asset, detail=detail)


def halves(evidence: Evidence) -> Iterator[Finding]:
    """Of an asset none of whose jobs succeeded nothing is left; one that is ready has its doors and its histories."""
    ended: dict[str, dict[str, str]] = defaultdict(dict)
    for job, told in evidence.of_job().items():
        ended[told[0].subject][job] = next((event.name for event in told if event.name in TERMINAL), "")
    for asset, jobs in ended.items():
        belongings = evidence.found.get(asset)
        if "asset.ready" not in jobs.values():
            left = list(belongings.objects) if belongings else []
            if left and all(jobs.values()):
                yield Finding(rule="half", subject=asset, detail=f"{set(jobs.values())}, and it has {left[:5]}")
            continue
        if belongings is None or belongings.latest is None:
            yield Finding(rule="half", subject=asset, detail="ready, and nothing is public")
            continue
        for job in (job for job, end in jobs.items() if end == "asset.ready" and job not in belongings.histories):
            yield Finding(rule="history", subject=asset, detail=f"{job} has none")


def alike(evidence: Evidence) -> Iterator[Finding]:
    """The same recipe made the same bytes, whoever was killed on the way."""
    seen: dict[str, Belongings] = {}
    for asset, belongings in evidence.found.items():
        for key in belongings.public:
            name = key.removeprefix(keys.public(asset))
            if name.count("/") != 2 or name.startswith(("presentations/", "subtitles/")):
                continue
            first = seen.setdefault(name, belongings)
            if not _same(first, keys.public(first.asset) + name, belongings, key):
                yield Finding(rule="bytes", subject=asset, detail=f"{name} differs from that of {first.asset}")


def _same(one: Belongings, key: str, other: Belongings, its_key: str) -> bool:
    """Equal etags save the reading, where they are made of the bytes."""
    same_etag = one.objects[key].etag == other.objects[its_key].etag
    return same_etag or one.read(key) == other.read(its_key)


def orphans(evidence: Evidence) -> Iterator[Finding]:
    """Every object has an owner: a version, a door, a receipt of a step that finished, or the asset itself."""
    jobs = evidence.of_job()
    receipts = {
        str(event.data["facts"]["receipt"])
        for told in jobs.values()
        for event in told
        if event.name == "step.finished" and "receipt" in event.data.get("facts", {})
    }
    subjects = {told[0].subject for told in jobs.values()}
    for asset, belongings in evidence.found.items():
        owned = _owned(belongings) | receipts
        for key in sorted(set(belongings.objects) - owned):
            if asset not in subjects or not key.startswith((f"{keys.PRIVATE}/{asset}.", keys.media(asset))):
                yield Finding(rule="orphan", subject=asset, detail=key)


def _owned(belongings: Belongings) -> set[str]:
    asset = belongings.asset
    owned = {keys.hls_door(asset), keys.dash_door(asset), keys.claim(asset), keys.digest(asset)}
    owned |= {key for key in belongings.objects if key.startswith(keys.references(asset))}
    owned |= {keys.history(asset, job) for job in belongings.histories}
    for number, version in belongings.versions.items():
        owned |= {f"{keys.version(asset, number)}presentation.json", *named(version)}
        # Beside its captions each revision of a text keeps the words that they were made of.
        owned |= {
            segment.key.removesuffix(".vtt") + ".words.json" for track in version.text for segment in track.segments
        }
    return owned


RULES: tuple[Rule, ...] = (
    envelopes,
    sequences,
    endings,
    steps,
    effects,
    versions,
    published,
    whole,
    doors,
    halves,
    alike,
)
"""All but `orphans`, which holds once the janitor has been."""


def _complaint(rule: str, subject: str, check: Callable[[], None]) -> Iterator[Finding]:
    """What an assertion of the story checks says, as a finding."""
    try:
        check()
    except AssertionError as wrong:
        yield Finding(rule=rule, subject=subject, detail=str(wrong).splitlines()[0])
