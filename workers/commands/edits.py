"""The commands that change what is played of an asset, or make something of it: of a fleet's asset, or a folder's.

Nothing that is stored goes away by any of them. In a folder (`--out`) the job is carried out here and now, with nothing
running beforehand; a fleet is asked for it, and with `--wait` followed to the end.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from pipeline.errors import PipelineError
from pipeline.job import Priority
from workers.commands import fleet
from workers.commands.options import AsJson, AssetId, At, Folder, Title, Wait
from workers.commands.times import End, Start, asked, shown
from workers.commands.versions import length_of, or_a_folder, part_of
from workers.console import change_local, command, fail, say, storage_of

if TYPE_CHECKING:
    from pipeline.events import Event
    from pipeline.job import Job
    from pipeline.requests import Request

NewId = Annotated[str | None, typer.Option("--id", help="Id of the new asset; one is made if left out.")]
ExternalId = Annotated[str | None, typer.Option("--external-id", help="What your system calls the new asset.")]
Names = Annotated[list[str] | None, typer.Option(metavar="LANGUAGE|TRACK", help="May be given more than once.")]


@dataclass(frozen=True, kw_only=True)
class Done:
    """What became of a request."""

    job: Job
    document: Mapping[str, Any]
    ended: bool
    event: Callable[[str], Event]
    """The newest event of that name that came from the job."""
    took_s: float | None = None


def trim(
    asset: AssetId,
    start: Start = None,
    end: End = None,
    preview: Annotated[
        bool, typer.Option("--preview", help="Change nothing: only show about this part, at once.")
    ] = False,
    out: Folder = None,
    priority: At = Priority.STANDARD,
    wait: Wait = False,
    as_json: AsJson = False,
) -> None:
    """Show only a part of an asset, exact to the frame.

    Everything stays stored, and `reelway revert` brings it back. Times count on the whole asset, also when it is
    trimmed already. Prints the trim's number; with --preview where manifests are that play about this part, cut where
    segments begin.
    """
    done = _ask(
        "asset.trim",
        asset,
        out,
        wait=wait or preview,
        as_json=as_json and not preview,
        preview=preview or None,
        priority=priority,
        **asked(start, end),
    )
    if preview:
        _show_preview(done, out, as_json=as_json)
    elif as_json:
        _print(_said(done.job, done.document))
    elif out is None:
        sys.stdout.write(f"{done.job.number}\n")
        _hint_at_fleet(done, f"trim {done.job.number} is done", undo=True)
    else:
        _summarize(done, out, f"trim {done.job.number} is done", undo=True)


def revert(
    asset: AssetId,
    to: Annotated[
        int | None, typer.Option("--to", metavar="VERSION", help="Go back to this version (see `reelway versions`).")
    ] = None,
    out: Folder = None,
    priority: At = Priority.STANDARD,
    wait: Wait = False,
    as_json: AsJson = False,
) -> None:
    """Show all of an asset again, or an earlier version.

    It takes a moment, whatever the length: no media is touched.
    """
    type_ = "asset.revert_trim" if to is None else "asset.roll_back"
    done = _ask(type_, asset, out, wait=wait, as_json=as_json, version=to, priority=priority)
    _answer(done, out, "reverted" if to is None else f"back at version {to}", as_json=as_json)


def clip(
    asset: AssetId,
    start: Start = None,
    end: End = None,
    new_id: NewId = None,
    title: Title = None,
    external_id: ExternalId = None,
    out: Folder = None,
    priority: At = Priority.STANDARD,
    wait: Wait = False,
    as_json: AsJson = False,
) -> None:
    """Make a new asset of a part of this one.

    It plays the segments that are there, so it costs next to nothing, and lives on when the other is deleted. Prints
    the new asset's id.
    """
    new = {"new_id": new_id, "title": title, "external_id": external_id, "priority": priority}
    done = _ask("asset.clip", asset, out, wait=wait, as_json=as_json, **asked(start, end), **new)
    _answer(done, out, f"{done.job.asset} is a clip of {asset}", as_json=as_json)


def duplicate(
    asset: AssetId,
    new_id: NewId = None,
    title: Title = None,
    external_id: ExternalId = None,
    out: Folder = None,
    priority: At = Priority.STANDARD,
    wait: Wait = False,
    as_json: AsJson = False,
) -> None:
    """Make a new asset of all of this one.

    It plays the segments that are there. Prints the new asset's id.
    """
    new = {"new_id": new_id, "title": title, "external_id": external_id, "priority": priority}
    done = _ask("asset.duplicate", asset, out, wait=wait, as_json=as_json, **new)
    _answer(done, out, f"{done.job.asset} is a copy of {asset}", as_json=as_json)


def export(
    asset: AssetId,
    resolution: Annotated[str | None, typer.Option(help="The rung, e.g. 720p; the best one if left out.")] = None,
    audio: Names = None,
    captions: Names = None,
    out: Folder = None,
    priority: At = Priority.STANDARD,
    wait: Wait = False,
    as_json: AsJson = False,
) -> None:
    """Make one MP4 file of what an asset plays now.

    Nothing is encoded: the segments are copied. Prints where the file is.
    """
    chosen = {"resolution": resolution, "audio": audio or None, "captions": captions or None}
    done = _ask("asset.export", asset, out, wait=wait, as_json=as_json, priority=priority, **chosen)
    if as_json:
        _print(done.document)
    elif done.ended:
        sys.stdout.write(f"{_where(done.document['video']['mp4_url'], out)}\n")
    else:
        _answer(done, out, "", as_json=as_json)


# -- asking -----------------------------------------------------------------------------------------------------------


def _ask(type_: str, asset: str, out: Path | None, *, wait: bool, as_json: bool, **fields: Any) -> Done:
    """Carry a request out in the folder, or send it to the fleet. Ends the command where it is refused or fails.

    `as_json`: of a job that fails the same is printed as of one that succeeds; a script reads in it why.
    """
    wish = fleet.request(type_, asset_id=asset, **fields)
    try:
        if out is not None:
            return _here(wish, out, as_json=as_json)
        with or_a_folder():
            return _there(wish, wait=wait, as_json=as_json)
    except PipelineError as error:
        fleet.refused(error)


def _here(wish: Any, out: Path, *, as_json: bool) -> Done:
    result = change_local(wish, out, asset=wish.asset_id, new=getattr(wish, "new_id", None))
    if result.job.error is not None:
        if as_json:
            _print(_said(result.job, result.document))
        if result.interrupted:
            say().print("interrupted", style="yellow")
            sys.exit(130)
        fail(PipelineError.from_document(result.job.error))
    return Done(
        job=result.job,
        document=result.document,
        ended=True,
        took_s=result.seconds,
        event=lambda name: next(event for event in result.told if event.name == name),
    )


def _there(wish: Request, *, wait: bool, as_json: bool) -> Done:
    control = fleet.fleet()
    (job_id,) = fleet.client().submit(wish).jobs
    ended = fleet.followed(control, job_id) if wait else None
    job: Job | None = ended or control.store.job(job_id)
    if job is None:
        raise PipelineError("job_not_found", job=job_id)
    document = fleet.known_document(control, job.asset)
    if ended is not None:
        if ended.error is not None and as_json:
            _print(_said(ended, document))
        fleet.conclude(ended)
    return Done(
        job=job,
        document=document,
        ended=ended is not None,
        event=partial(fleet.client().told, job_id),
    )


# -- answering --------------------------------------------------------------------------------------------------------


def _answer(done: Done, out: Path | None, what: str, *, as_json: bool) -> None:
    """What `submit` would answer of a fleet's job; a few lines of a folder's."""
    if as_json:
        _print(done.document)
    elif out is None:
        sys.stdout.write(f"{done.job.asset}\n")
        _hint_at_fleet(done, what, undo=False)
    else:
        _summarize(done, out, what, undo=False)


def _hint_at_fleet(done: Done, what: str, *, undo: bool) -> None:
    """Beside what a script reads: of what has ended the same lines as of a folder's."""
    if done.ended:
        video = done.document["video"]
        edit, seconds = video.get("edit"), (video["duration_ms"] or 0) / 1000
        _aside(what)
        _aside(_plays(seconds, (edit["start_time"], edit["end_time"]) if edit else None))
        _aside(f"HLS     {video['playback_url']}")
        if video.get("dash_url"):
            _aside(f"DASH    {video['dash_url']}")
        if undo:
            _aside(f"undo    {command()} revert {done.job.asset}")
    elif sys.stdout.isatty():
        _aside(f"follow it: {command()} watch {done.job.asset}")


def _summarize(done: Done, out: Path, what: str, *, undo: bool) -> None:
    """What is played now, where it is, and what to type next."""
    from pipeline.presentation.publish import latest

    version = latest(storage_of(out), done.job.asset)
    assert version is not None, "what was changed is published"
    part, whole = part_of(version), length_of(version)
    _line(f"{what} (version {version.version}, {done.took_s or 0:.1f} s)")
    _line(_plays(whole if part is None else part[1] - part[0], part, f" of {shown(whole)}"))
    _line(f"HLS     {out}/transcoded/{done.job.asset}/video.m3u8")
    _line(f"DASH    {out}/transcoded/{done.job.asset}/video.mpd")
    _line(f"play    {command()} play {done.job.asset} --out {out}")
    if undo:
        _line(f"undo    {command()} revert {done.job.asset} --out {out}")


def _plays(seconds: float | Fraction, part: tuple[float | Fraction, float | Fraction] | None, of: str = "") -> str:
    said = "all of it" if part is None else f"from {shown(part[0])} to {shown(part[1])}{of}"
    return f"plays   {shown(seconds)} ({said})"


def _show_preview(done: Done, out: Path | None, *, as_json: bool) -> None:
    said = done.event("trim.previewed").data
    if as_json:
        _print(said)
        return
    _line(_plays(said["seconds"], (said["start_time"], said["end_time"])))
    for name, key in (("HLS", "hls_url"), ("DASH", "dash_url")):
        _line(f"{name:<8}{_where(said[key], out)}")
    if out is not None:
        name = str(said["hls_url"]).split("/")[-2]
        _line(f"play    {command()} play {done.job.asset} --out {out} --preview {name}")


def _where(url: str, out: Path | None) -> str:
    """Of a folder's asset where the file lies, of a fleet's its URL."""
    return url if out is None else f"{out}/transcoded/{url.rpartition('/transcoded/')[2]}"


def _said(job: Job, document: Mapping[str, Any]) -> Mapping[str, Any]:
    """A trim as the reference tells it; of any other job the asset's document."""
    from pipeline.trims import status_of

    trim = status_of(job)
    return document if trim is None else trim.model_dump(mode="json")


def _aside(text: str) -> None:
    say().print(text, style="dim", highlight=False, markup=False, soft_wrap=True)


def _line(text: str) -> None:
    Console().print(text, highlight=False, markup=False, soft_wrap=True)


def _print(data: object) -> None:
    from workers.commands.show import print_json

    print_json(data)
