"""The export step: one MP4 file of what is played now, at a key that stays.

The law: the file there is of what was played when it came, whoever else exports or trims meanwhile. So it is put over
the very file that lay there before the last look at what is played; and where that is another part by now, the step
begins again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from pipeline import keys
from pipeline.acceptance import track_names
from pipeline.answers import Answer, Exported
from pipeline.errors import PipelineError
from pipeline.held import Held
from pipeline.ports import PreconditionFailed
from pipeline.presentation.caption_cutting import cut_captions
from pipeline.presentation.edits import Played, played
from pipeline.presentation.model import Track
from pipeline.publishing import edited, there
from pipeline.ranges import Given, Joined, joined_track
from pipeline.sandbox import ChildLimits
from pipeline.tasks import ExportFacts, ExportTask, ExportTrack, from_json
from pipeline.watch import Stopped, Verdict

_INDEX = 64 * 1024**2
"""Bytes for what a file says of its samples, and for captions; a twentieth more of a long one."""
_TRIES = 5


def export(held: Held[ExportTask]) -> Answer:
    """Do the step. A later export takes the place of an earlier one: nothing but the document leads to the file."""
    now = there(held)
    seen = played(now)
    tracks = _chosen(held.task, seen)
    facts = _exported(held, seen, tracks)
    return Answer(
        facts={"version": now.version, "bytes": facts.size, "cpu_s": held.cpu_s},
        exported=Exported(
            key=keys.mp4(held.task.asset),
            size=facts.size,
            duration_ms=round(facts.duration * 1000),
            version=now.version,
            edit=edited(now),
            rung=next((track.rung for track in tracks if track.kind == "video"), None),
            audio=tuple(track.id for track in tracks if track.kind == "audio"),
            captions=tuple(track.id for track in tracks if track.kind == "text"),
        ),
    )


def _exported(held: Held[ExportTask], seen: Played, tracks: Sequence[Track]) -> ExportFacts:
    joined = {track.id: _joined(held, seen, track) for track in tracks if track.kind != "text"}
    captions = {track.id: _captions(held, seen, track) for track in tracks if track.kind == "text"}
    served = {id_: each.served(held.watch.moved, name=f"{id_}.mp4") for id_, each in joined.items()}
    inputs: dict[str, Given] = {**served, **captions}
    task = replace(held.task, tracks=tuple(_told(seen, track) for track in tracks), start=seen.start, end=seen.end)
    limits = _limits(held.limits.child, joined.values())
    return from_json(ExportFacts, held.run(inputs, partial(_keep, held, seen), task=task, limits=limits))


def _joined(held: Held[ExportTask], seen: Played, track: Track) -> Joined:
    runs = [(stretch.init, stretch.segments) for stretch in seen.stretches(track)]
    return joined_track(held.storage, runs)


def _captions(held: Held[ExportTask], seen: Played, track: Track) -> Path:
    """What is said in the part that is played, from 0 on."""
    text = held.storage.get(track.segments[0].key)
    path = held.scratch / f"{track.id}.vtt"
    path.write_bytes(cut_captions(text, seen.start, seen.end) if seen.cut else text)
    return path


def _limits(usual: ChildLimits, joined: Iterable[Joined]) -> ChildLimits:
    """The file is about as large as what is copied into it, however large that is."""
    size = sum(each.size for each in joined)
    return replace(usual, file_bytes=max(usual.file_bytes, size + size // 20 + _INDEX))


def _keep(held: Held[ExportTask], seen: Played, name: str, path: Path) -> None:
    """The key stays the same, so only the attempt that holds the step may write there."""
    assert name == "video.mp4", name
    _check_played(held, seen)  # once more before it can no longer be cancelled
    if not held.conductor.publishing(held.attempt):
        raise Stopped(Verdict.LOST)
    key = keys.mp4(held.task.asset)
    for _ in range(_TRIES):
        there_now = held.storage.stat(key)
        _check_played(held, seen)
        with suppress(PreconditionFailed):  # another export came between; or our own, whose reply was lost
            match = there_now.etag if there_now else None
            held.storage.put(key, path, absent=there_now is None, match=match, moved=held.moved)
            return
    raise PipelineError("storage_unavailable", reason=f"too many exports of {held.task.asset} end at once")


def _check_played(held: Held[ExportTask], seen: Played) -> None:
    """Raises `edit_changed`, which is tried again, where another part is played by now."""
    now = played(there(held))
    if (now.start, now.end) != (seen.start, seen.end):
        raise PipelineError("edit_changed", asset=held.task.asset, track="video.mp4")


# -- which tracks -----------------------------------------------------------------------------------------------------


def _chosen(task: ExportTask, seen: Played) -> tuple[Track, ...]:
    """Picture, sounds, captions; what is asked for twice comes once. Raises `export_track_not_found`."""
    pictures = [_picture(task, seen)] if seen.video or task.rung else []
    sounds = [_found(task.asset, "audio", name, seen.audio) for name in task.audio]
    texts = [_found(task.asset, "captions", name, seen.text) for name in task.captions]
    usual = [track for track in seen.audio if track.default][:1] or list(seen.audio[:1])
    return tuple({track.id: track for track in (*pictures, *(sounds or usual), *texts)}.values())


def _picture(task: ExportTask, seen: Played) -> Track:
    if task.rung is None:
        return seen.video[0]
    fitting = (track for track in seen.video if task.rung in (track.rung, track.id))
    found = next(fitting, None)
    if found is None:
        raise _not_found(task.asset, "resolution", task.rung, [track.rung or track.id for track in seen.video])
    return found


def _found(asset: str, field: str, name: str, tracks: Sequence[Track]) -> Track:
    """The first track that may be called so."""
    found = next((track for track in tracks if name.lower() in track_names(track)), None)
    if found is None:  # it was there when it was asked for
        raise _not_found(asset, field, name, [track.id for track in tracks])
    return found


def _not_found(asset: str, field: str, current: str, available: Sequence[str]) -> PipelineError:
    return PipelineError(
        "export_track_not_found", asset=asset, field=field, current=current, available=", ".join(available) or "none"
    )


def _told(seen: Played, track: Track) -> ExportTrack:
    return ExportTrack(
        track=track.id,
        kind=track.kind,
        language=track.language,
        name=track.name,
        default=track.default,
        seamed=track.kind == "video" and bool(seen.seams.get(track.id)),
    )
