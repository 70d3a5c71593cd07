"""By which recipe a stored picture was made: read back from the name of its folder, which follows from the recipe.

Frames that an edit cuts are encoded again as they were at first, so that they fit to what stands beside them. Who made
a track, and when, nobody wrote down: but whoever knows what was drawn for the asset can say what each rung's folder
would be called.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice

from pipeline import keys, plan
from pipeline.job import Job
from pipeline.past import past_of
from pipeline.ports import JobStore, Storage
from pipeline.presentation.model import Track
from pipeline.profile import Profile
from pipeline.tasks import Blueprint, Rung, TranscodeTask

_JOBS = 100
"""So many jobs that the store knows are looked at, and so many histories: what made the pictures stands in the oldest
of these."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a picture was made, as far as anybody knows."""

    rung: Rung
    drawn: Blueprint
    """What was drawn for the job that made it."""
    known: bool
    """False: nobody knows, and this is how it would be made today. The pieces may need an init segment of their own."""


def recipes(pictures: Iterable[Track], job: Job, store: JobStore, storage: Storage) -> dict[str, Recipe]:
    """The recipe of every picture, by track."""
    found: dict[str, Recipe] = {}
    wanted = {track.id: track for track in pictures}
    for drawn in _blueprints(job, store, storage, {owner for track in wanted.values() if (owner := _maker(track))}):
        for rung in drawn.rungs:
            if rung.track in wanted and rung.track not in found and _folder(rung, drawn) == _name(wanted[rung.track]):
                found[rung.track] = Recipe(rung=rung, drawn=drawn, known=True)
        if len(found) == len(wanted):
            break
    return {id_: found.get(id_) or _todays(track, job) for id_, track in wanted.items()}


def _blueprints(job: Job, store: JobStore, storage: Storage, makers: Iterable[str]) -> Iterator[Blueprint]:
    """Whatever was drawn, as far as it is known: of the job itself, of others of the asset, of the asset that a clip
    was cut from."""
    if job.blueprint is not None:
        yield job.blueprint
    for asset in dict.fromkeys((job.asset, *makers)):
        for id_ in islice(store.jobs(asset), _JOBS):
            other = store.job(id_)
            if other is not None and other.blueprint is not None:
                yield other.blueprint
    for asset in dict.fromkeys((*makers, job.asset)):
        for past in islice(past_of(storage, asset), _JOBS):
            if past.blueprint is not None:
                yield past.blueprint


def _maker(track: Track) -> str | None:
    """The asset that it was made for."""
    return keys.owner(track.init)


def _name(track: Track) -> str:
    return track.init.split("/")[-2]


def _folder(rung: Rung, drawn: Blueprint) -> str:
    """What the folder of this rung is called."""
    if drawn.media.video is None:
        return ""
    asked = TranscodeTask(
        asset="",
        source="",
        video=drawn.media.video,
        timeline=drawn.timeline,
        rungs=(),
        first_segment=0,
        last_segment=0,
        encoder=drawn.encoder,
        source_sha256=drawn.media.sha256,
    )
    return keys.recipe(rung, asked)


def _todays(track: Track, job: Job) -> Recipe:
    """The rung of its name, as the job has it or its profile would draw it now; in the size that the track has."""
    assert job.blueprint is not None, "a job that cuts knows the media"
    drawn, name = job.blueprint, track.rung or track.name
    choices = (*drawn.rungs, *plan.rungs(drawn.media, Profile.model_validate(job.profile), (name,)))
    rung = next((rung for rung in choices if rung.name == name), choices[0])
    same = replace(rung, name=name, width=track.width or rung.width, height=track.height or rung.height)
    return Recipe(rung=same, drawn=drawn, known=False)
