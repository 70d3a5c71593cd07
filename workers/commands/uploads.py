"""The commands that bring a file of this machine to a fleet, and those that let a program do the same step by step.

They need what the fleet needs: its Redis, and the storage with its credentials. Whoever PUTs the parts needs neither.
"""

from __future__ import annotations

import json
import mimetypes
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.errors import PipelineError
from pipeline.job import Priority
from workers.commands import fleet
from workers.commands.moment import milliseconds
from workers.commands.options import (
    AsJson,
    At,
    Language,
    Organization,
    ProfileName,
    Resolutions,
    Subtitles,
    Title,
    Wait,
)
from workers.console import command, say, usage

if TYPE_CHECKING:
    from pipeline.upload_wire import UploadSaid
    from pipeline.uploads import Uploads
    from workers.wiring import Control

UploadId = Annotated[str, typer.Argument(metavar="ID", help="The upload.")]


def upload(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The video or audio, on this machine.")],
    wait: Wait = False,
    priority: At = Priority.STANDARD,
    organization: Organization = "default",
    resolutions: Resolutions = "",
    profile: ProfileName = "default",
    subtitles: Subtitles = False,
    language: Language = None,
    title: Title = None,
    asset_id: Annotated[str | None, typer.Option("--id", help="Bring your own asset id.")] = None,
    expire_at: Annotated[
        str | None, typer.Option("--expire-at", help="When to delete it: 2027-01-31, 7d, 12h or never.")
    ] = None,
    parent: Annotated[str | None, typer.Option(help="The asset that FILE belongs to; needs --relationship.")] = None,
    relationship: Annotated[str | None, typer.Option(help="What FILE is to it: subtitle or thumbnail.")] = None,
    resume: Annotated[
        str | None,
        typer.Option(help="Go on with this upload, e.g. from another machine; the other options are as then."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Upload FILE and have the fleet make an asset of it; prints the asset's id.

    Interrupted, the same command goes on where it was.
    """
    if not file.is_file():
        usage(PipelineError("parameter_invalid", detail=f"there is no file {file}"))
    wish: dict[str, Any] = {
        "fileName": file.name,
        "fileSize": file.stat().st_size,
        "contentType": mimetypes.guess_type(file.name)[0] or "application/octet-stream",
        "organization": organization,
        "parentAssetId": parent,
        "relationship": relationship,
    }
    if relationship is None:
        wish |= {
            "title": title,
            "priority": priority,
            "resolutions": resolutions,
            "profile": profile,
            "generate_subtitle": subtitles,
            "language": language,
            "asset_id": asset_id,
            "expire_at": expire_at,
        }
    _dated(wish)  # refuses a moment that is none before anybody is asked
    control = fleet.fleet(stored=True)
    with _refusals():
        _bring(control, file, {name: value for name, value in wish.items() if value is not None}, resume, wait, as_json)


def _bring(control: Control, file: Path, wish: dict[str, Any], resume: str | None, wait: bool, as_json: bool) -> None:
    from workers.client import Accepted
    from workers.uploading import Line, Remembered, Sender

    uploads = _uploads(control)
    remembered = Remembered(file, control.settings.storage_url, wish)
    before = _resumed(uploads, file, resume) if resume else _recalled(uploads, remembered)
    begun = before or uploads.start(_dated(wish))
    remembered.keep(begun.id)
    _note(_goes_on(before) if before else f"upload {begun.id} begins: {begun.file_size / 1e6:,.1f} MB")
    line = Line(sys.stderr.write if sys.stderr.isatty() else _unseen, begun.file_size, _there(begun))
    with _told_how_to_go_on(file, begun):
        etags = Sender(file, lambda: uploads.parts(begun.id), line).send(begun) if begun.state == "open" else {}
        if sys.stderr.isatty():
            sys.stderr.write("\n")
    came = uploads.complete(begun.id, etags)
    remembered.forget()
    if came.job is None:
        sys.stdout.write((came.model_dump_json(exclude_none=True) if as_json else str(came.key)) + "\n")
        return
    fleet.answer(came.asset_id, Accepted(request=came.job, jobs=(came.job,)), wait=wait, as_json=as_json)


def _goes_on(upload: UploadSaid) -> str:
    if upload.state != "open":
        return f"upload {upload.id} is complete: nothing is left to send"
    return f"upload {upload.id} goes on: {_there(upload) / 1e6:,.1f} of {upload.file_size / 1e6:,.1f} MB are there"


def _there(upload: UploadSaid) -> int:
    """Bytes that need not be sent again."""
    return sum(part.size for part in upload.parts if part.etag is not None)


@contextmanager
def _told_how_to_go_on(file: Path, begun: UploadSaid) -> Iterator[None]:
    """Whoever stops it hears how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        again = f"{command()} upload {shlex.quote(str(file))} --resume {begun.id}"
        _note(f"interrupted; the same command goes on where it was, or from elsewhere: {again}")
        raise


def _note(text: str) -> None:
    say().print(text, style="dim", highlight=False, markup=False, soft_wrap=True)


def _dated(wish: dict[str, Any]) -> dict[str, Any]:
    """With a moment in place of the words for one, which mean another the next time."""
    words = wish.get("expire_at")
    return wish if words is None else {**wish, "expire_at": _moment(words)}


def _unseen(_text: str) -> None:
    pass


def _recalled(uploads: Uploads, remembered: Any) -> UploadSaid | None:
    """The upload of this file that was interrupted, if it is still there."""
    known = remembered.recall()
    try:
        return uploads.parts(known) if known else None
    except PipelineError as error:
        if error.code != "upload_not_found":
            raise
        return None


def _resumed(uploads: Uploads, file: Path, upload_id: str) -> UploadSaid:
    begun = uploads.parts(upload_id)
    size = file.stat().st_size
    if begun.file_size != size:
        detail = f"the upload {upload_id} is of {begun.file_size} bytes, {file.name} has {size}"
        raise PipelineError("parameter_invalid", detail=detail)
    return begun


# -- step by step -----------------------------------------------------------------------------------------------------


def start(
    request: Annotated[
        str, typer.Argument(metavar="JSON|-", help='{"fileName": …, "fileSize": …, "title": …}; -: from stdin.')
    ],
    as_json: AsJson = False,
) -> None:
    """Begin an upload; prints its id and a URL for each part.

    Besides fileName, fileSize and contentType it takes every field of asset.process but url, or parentAssetId and
    relationship. The URLs are secrets until they expire.
    """
    with _refusals():
        _show(_here().start(_object(request)), as_json)


def parts(upload_id: UploadId, as_json: AsJson = False) -> None:
    """Show which parts of an upload are there; each missing one comes with a fresh URL."""
    with _refusals():
        _show(_here().parts(upload_id), as_json)


def confirm(
    upload_id: UploadId,
    number: Annotated[int, typer.Argument(metavar="PART", help="Number of the part, from 1.")],
    etag: Annotated[str, typer.Argument(help="What its PUT was answered.")],
    as_json: AsJson = False,
) -> None:
    """See that a part is there as it was sent. In any order, and again."""
    with _refusals():
        part = _here().confirm(upload_id, number, etag)
    sys.stdout.write(
        (part.model_dump_json(exclude_none=True) if as_json else f"{part.part_number}  {part.etag}") + "\n"
    )


def complete(
    upload_id: UploadId,
    etags: Annotated[
        str, typer.Option(help='ETags of the parts as JSON: {"1": "…"}; a part without one is taken as it lies there.')
    ] = "{}",
    as_json: AsJson = False,
) -> None:
    """Put the parts together and start the job. Again, it answers the same."""
    meant = _meant(_object(etags))
    with _refusals():
        came = _here().complete(upload_id, meant)
    sys.stdout.write((came.model_dump_json(exclude_none=True) if as_json else came.key or came.asset_id) + "\n")


def cancel(upload_id: UploadId) -> None:
    """Give an upload up, with all of its parts."""
    with _refusals():
        _here().cancel(upload_id)


def ls(as_json: AsJson = False) -> None:
    """Show the uploads that are neither complete nor given up."""
    with _refusals():
        for each in _here().under_way():
            if as_json:
                sys.stdout.write(each.model_dump_json(exclude={"parts"}, exclude_none=True) + "\n")
            else:
                sys.stdout.write(f"{each.id}  {each.file_size:>14,}  {each.file_name}\n")


def _show(said: UploadSaid, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(said.model_dump_json(exclude_none=True) + "\n")
        return
    sys.stdout.write(f"{said.id}\n")
    for part in said.parts:
        sys.stdout.write(f"{part.part_number}  {part.size}  {part.etag or part.upload_url}\n")


def _here() -> Uploads:
    return _uploads(fleet.fleet(stored=True))


def _uploads(control: Control) -> Uploads:
    from pipeline.memory import SystemClock
    from pipeline.upload_start import Terms
    from pipeline.uploads import Uploads

    settings = control.settings
    terms = Terms(keep_s=settings.upload_days * 86_400, url_s=settings.upload_url_s)
    return Uploads(fleet.doorman(control), SystemClock(), terms)


def _object(text: str) -> dict[str, Any]:
    said = sys.stdin.read() if text == "-" else text
    try:
        found = json.loads(said)
    except (ValueError, RecursionError) as error:
        usage(PipelineError("parameter_invalid", detail=f"no JSON: {str(error)[:200]}"))
    if not isinstance(found, dict):
        usage(PipelineError("parameter_invalid", detail="it is no JSON object"))
    return found


def _meant(etags: dict[str, Any]) -> dict[int, str]:
    for number, etag in etags.items():
        if not (number.isascii() and number.isdecimal() and len(number) <= 5 and isinstance(etag, str)):
            detail = f'--etags is {{"1": "…"}}: the ETag of each part by its number, not {str(number)[:80]!r}'
            usage(PipelineError("parameter_invalid", detail=detail))
    return {int(number): etag for number, etag in etags.items()}


def _moment(text: str) -> int:
    try:
        return milliseconds(text, time.time_ns() // 1_000_000)
    except PipelineError as error:
        usage(error)


@contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except PipelineError as error:
        fleet.refused(error)
