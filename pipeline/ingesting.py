"""The ingest step: bring the source in, let the stage look at it, and keep what was learned."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from pydantic import ValidationError

from pipeline import keys
from pipeline.answers import Answer
from pipeline.fetch import checksum_of, fetch, local_file
from pipeline.held import Held
from pipeline.presentation.publish import latest
from pipeline.ranges import Given
from pipeline.tasks import PROBE, IngestFacts, IngestTask, MediaInfo, from_json

_TEXT = re.compile(r"text-\d{1,3}\.vtt")
"""Outputs of ingest beside its facts."""


def ingest(held: Held[IngestTask]) -> Answer:
    """Do the step."""
    inputs = _inputs(held)

    def keep(name: str, path: Path) -> None:
        _keep(held, name, path)

    return _answer(held, held.run(inputs, keep))


def _keep(held: Held[IngestTask], name: str, path: Path) -> None:
    """`media.json`: the long form of what ingest learned; the others are the text that the source brought."""
    asset = held.task.asset
    assert name == "media.json" or _TEXT.fullmatch(name), name
    held.storage.put(keys.media(asset) if name == "media.json" else keys.text(asset, name), path)


def _answer(held: Held[IngestTask], facts: str) -> Answer:
    learned = from_json(IngestFacts, facts)
    if held.task.known:
        shown = latest(held.storage, held.task.asset)
        learned = replace(learned, present=tuple(track.id for track in shown.tracks) if shown else ())
    media = learned.media
    return Answer(
        facts={
            "media": keys.media(held.task.asset),
            "bytes": media.size,
            "duration_s": round(float(media.duration), 3),
            "cpu_s": held.cpu_s,
        },
        ingest=learned,
        source=held.task.source,
    )


# -- the source -------------------------------------------------------------------------------------------------------


def _inputs(held: Held[IngestTask]) -> Mapping[str, Given]:
    if held.task.known:
        return _known(held)
    task = replace(held.task, url=_url(held))
    checksum = _brought(held, task)
    # A URL may hold a secret, and the stage needs none.
    held.task = replace(task, sha256=checksum, url="")
    if held.limits.local_sources and not task.in_place and (at_hand := local_file(task.url)) is not None:
        # It was read just now, and need not come back from storage.
        return {"source": held.storage.local_path(task.source) or at_hand.absolute()}
    return {"source": held.source(task.source)}


def _url(held: Held[IngestTask]) -> str:
    """The source's whole URL: nobody but who fetches it opens what is sealed."""
    job = held.attempt.job
    return held.conductor.seal.open(job.sealed, job.asset) if job.sealed else held.task.url


def _brought(held: Held[IngestTask], task: IngestTask) -> str:
    """Bring it into storage, or remember where it lies. Returns its SHA-256."""
    limits = held.limits
    if task.in_place:
        return limits.places.register(held.storage, task, held.moved)
    return fetch(
        held.storage,
        task,
        local=limits.local_sources,
        moved=held.moved,
        web=limits.web,
        buckets=limits.buckets,
    )


def _known(held: Held[IngestTask]) -> Mapping[str, Given]:
    """What an earlier job learned of the source; else the source itself, to be learned again.

    That is where it is lost, and where an older release learned less than this one wants to know.
    """
    media = keys.media(held.task.asset)
    if held.storage.stat(media) is not None:
        copy = held.copy(media)
        if _learned_enough(copy):
            return {"media": copy}
    held.task = replace(held.task, sha256=_checksum(held))
    return {"source": held.source(held.task.source)}


def _checksum(held: Held[IngestTask]) -> str:
    key = held.task.source
    if keys.is_ours(key):
        return checksum_of(held.storage, key, held.moved)
    return held.limits.places.checksum(held.storage, held.task.asset, held.moved)


def _learned_enough(media: Path) -> bool:
    """Whether this release may believe it."""
    with suppress(ValidationError):
        return from_json(MediaInfo, media.read_bytes()).probe >= PROBE
    return False
