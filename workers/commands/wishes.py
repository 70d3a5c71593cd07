"""The commands that ask a fleet for something: each sends one request and waits until it is accepted."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.errors import PipelineError
from pipeline.job import Priority
from workers.commands import fleet
from workers.commands.moment import milliseconds
from workers.commands.options import (
    AsJson,
    AssetId,
    At,
    Language,
    Organization,
    ProfileName,
    Resolutions,
    Subtitles,
    Title,
    Wait,
)
from workers.commands.times import End, Start, asked
from workers.console import say, usage

if TYPE_CHECKING:
    from pipeline.requests import ProcessRequest

OtherPriority = Annotated[Priority, typer.Option("--priority", help="How soon its steps begin.")]


def submit(
    source: Annotated[str | None, typer.Argument(metavar="SOURCE|URL|s3://…", help="The video or audio.")] = None,
    batch: Annotated[
        Path | None, typer.Option(help="File of many requests, a line of JSON each or one array: all or none.")
    ] = None,
    notification: Annotated[
        Path | None, typer.Option(help="File with a storage's notification of new objects (-: stdin).", allow_dash=True)
    ] = None,
    in_place: Annotated[bool, typer.Option("--in-place", help="Make no copy: read it where it lies.")] = False,
    wait: Wait = False,
    priority: At = Priority.STANDARD,
    organization: Organization = "default",
    resolutions: Resolutions = "",
    profile: ProfileName = "default",
    subtitles: Subtitles = False,
    language: Language = None,
    title: Title = None,
    asset_id: Annotated[str | None, typer.Option("--id", help="Bring your own asset id.")] = None,
    start: Start = None,
    end: End = None,
    expire_at: Annotated[
        str | None, typer.Option("--expire-at", help="When to delete it: 2027-01-31, 7d, 12h or never.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Ask the fleet to make an asset of a source; prints the asset's id.

    A path works only where the workers may read files of their machine (REELWAY_LOCAL_SOURCES) and see this one.
    """
    if sum(each is not None for each in (source, batch, notification)) != 1:
        usage(PipelineError("parameter_invalid", detail="give one SOURCE, or --batch FILE, or --notification FILE"))
    if notification is not None:
        _pass_on(notification, wait=wait, as_json=as_json)
        return
    if batch is not None:
        _submit_batch(batch, organization=organization, priority=priority, wait=wait, as_json=as_json)
        return
    url, name = _place(str(source))
    wish: Any = fleet.request(
        "asset.process",
        url=url,
        in_place=in_place or None,
        orig_filename=name,
        title=title,
        resolutions=resolutions,
        profile=profile,
        generate_subtitle=subtitles,
        language=language,
        asset_id=asset_id,
        **asked(start, end),
        priority=priority,
        organization=organization,
        expire_at=None if expire_at is None else _moment(expire_at),
    )
    accepted = fleet.submitted(wish)
    fleet.answer(wish.asset_id, accepted, wait=wait, as_json=as_json, if_unread=PATHS if name is not None else "")


PATHS = "a path works only where the workers have REELWAY_LOCAL_SOURCES=true and see the same file; else send a URL"


def _place(source: str) -> tuple[str, str | None]:
    """The source as the fleet is told, and its name where it is a file of this machine."""
    from pipeline.fetch import local_file

    path = local_file(source)
    if path is None:
        return source, None
    if not path.is_file():
        usage(PipelineError("parameter_invalid", detail=f"there is no file {source} here ({PATHS})"))
    return str(path.absolute()), path.name


def _moment(text: str) -> int:
    try:
        return milliseconds(text, time.time_ns() // 1_000_000)
    except PipelineError as error:
        usage(error)


# -- what a storage tells ---------------------------------------------------------------------------------------------


def _pass_on(file: Path, *, wait: bool, as_json: bool) -> None:
    """Send a notification as it is: which of its objects are wished for, the workers' rules say."""
    if wait:
        usage(PipelineError("parameter_invalid", detail="--wait needs a source: of a notification the rules decide"))
    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        usage(PipelineError("parameter_invalid", detail=f"--notification {file} cannot be read: {reason}"))
    said = _json(text, str(file))
    try:
        found = fleet.client().pass_on(said)
    except PipelineError as error:
        fleet.refused(error)
    for arrival in found:
        line = {"url": arrival.url, "asset_id": arrival.asset, "request": arrival.request}
        sys.stdout.write((json.dumps(line) if as_json else arrival.asset) + "\n")


# -- many at once -----------------------------------------------------------------------------------------------------


def _submit_batch(file: Path, *, organization: str, priority: Priority, wait: bool, as_json: bool) -> None:

    usual = {"type": "asset.process", "organization": organization, "priority": priority}
    members: list[ProcessRequest] = []
    places: list[str] = []
    for place, said in _members(file):
        where = f"{place} (index {len(members)})"
        members.append(_member({**usual, **said} if isinstance(said, dict) else said, where))
        places.append(where)
    bodies = [member.model_dump(mode="json") for member in members]
    wish = fleet.request("asset.batch", requests=bodies, organization=organization)
    try:
        accepted = fleet.client().submit(wish)
    except PipelineError as error:
        index = error.params.get("index")
        fleet.refused(error, where=places[index] if isinstance(index, int) and index < len(places) else "")
    for index, (member, job) in enumerate(zip(members, accepted.jobs, strict=True)):
        line = {"index": index, "asset_id": member.asset_id, "job": job}
        sys.stdout.write((json.dumps(line) if as_json else member.asset_id) + "\n")
    if wait:
        _wait_for_all(accepted.jobs)


def _members(file: Path) -> Iterator[tuple[str, Any]]:
    """Every request of the file with its place in words."""
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        usage(PipelineError("parameter_invalid", detail=f"--batch {file} cannot be read: {reason}"))
    if text.lstrip().startswith("["):
        many = _json(text, str(file))
        yield from ((f"request {number}", said) for number, said in enumerate(many, start=1))
        return
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            yield f"line {number}", _json(line, f"line {number}")


def _json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        usage(PipelineError("parameter_invalid", detail=f"no JSON: {str(error)[:200]}"), where=where)


def _member(said: object, where: str) -> ProcessRequest:
    from pydantic import ValidationError

    from pipeline.conductor import refusal
    from pipeline.requests import ProcessRequest

    try:
        return ProcessRequest.model_validate(said)
    except ValidationError as error:
        usage(refusal(error), where=where)


def _wait_for_all(jobs: tuple[str, ...]) -> None:
    """Follow each to its end; one that did not end well is told, and the command fails when all have ended."""
    control, failed = fleet.fleet(), False
    for job in jobs:
        try:
            fleet.conclude(fleet.followed(control, job))
        except SystemExit:
            failed = True
    if failed:
        sys.exit(1)


# -- assets that are there --------------------------------------------------------------------------------------------


def retry(asset: AssetId, wait: Wait = False, as_json: AsJson = False) -> None:
    """Ask again for what failed or was cancelled last, as a new job."""
    _ask(asset, "asset.retry", wait=wait, as_json=as_json)


def reprocess(
    asset: AssetId,
    resolutions: Annotated[
        str | None, typer.Option(help="Rungs that it shall have; what is there is not made again.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Make all of it again, with today's profile.")] = False,
    stages: Annotated[
        str | None, typer.Option(help="Make again only what these stages make: transcode, audio.")
    ] = None,
    profile: Annotated[str | None, typer.Option(help="Another profile from now on; needs --all.")] = None,
    priority: OtherPriority = Priority.STANDARD,
    wait: Wait = False,
    as_json: AsJson = False,
) -> None:
    """Make what is missing of a ready asset, or make it again; a new version takes over when it is complete."""
    _ask(
        asset,
        "asset.reprocess",
        resolutions=resolutions,
        everything=everything,
        stages=None if stages is None else [name.strip() for name in stages.split(",") if name.strip()],
        profile=profile,
        priority=priority,
        wait=wait,
        as_json=as_json,
    )


def repackage(
    asset: AssetId, priority: OtherPriority = Priority.STANDARD, wait: Wait = False, as_json: AsJson = False
) -> None:
    """Render the manifests of a ready asset again, as a new version; no media is touched."""
    _ask(asset, "asset.repackage", priority=priority, wait=wait, as_json=as_json)


def subtitle(
    asset: AssetId,
    language: Language = None,
    priority: OtherPriority = Priority.STANDARD,
    wait: Wait = False,
    as_json: AsJson = False,
) -> None:
    """Write captions of what is said in a ready asset."""
    _ask(asset, "asset.make_subtitles", language=language, priority=priority, wait=wait, as_json=as_json)


def expire(
    asset: AssetId,
    when: Annotated[str, typer.Argument(metavar="WHEN", help="2027-01-31, 2027-01-31T12:00, 7d, 12h or never.")],
    as_json: AsJson = False,
) -> None:
    """Say when an asset is to be deleted."""
    _ask(asset, "asset.expire", expire_at=_moment(when), wait=False, as_json=as_json)


def delete(
    assets: Annotated[list[str], typer.Argument(metavar="ID…", help="The assets.")],
    force: Annotated[bool, typer.Option("--force", help="Also what clips of it play: they stop.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Return when nothing of them is left.")] = False,
) -> None:
    """Stop what runs and remove everything of these assets for good: all of them or none."""
    wish = fleet.request("asset.delete", ids=assets, force=force)
    if not yes and not _sure(f"delete {', '.join(assets)} for good?"):
        usage(PipelineError("parameter_invalid", detail="nothing was deleted: say --yes, or answer y"))
    accepted = fleet.submitted(wish)
    for job in accepted.jobs if wait else ():
        fleet.client().wait(job)


def _sure(question: str) -> bool:
    if not sys.stdin.isatty():
        return False
    say().print(question, end=" [y/N] ", highlight=False, markup=False)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _ask(asset: str, type_: str, *, wait: bool, as_json: bool, **fields: Any) -> None:
    accepted = fleet.submitted(fleet.request(type_, asset_id=asset, **fields))
    fleet.answer(asset, accepted, wait=wait, as_json=as_json)
