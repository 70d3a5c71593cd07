"""What the commands share: one job with live progress, its summary, the page that plays it, and one line for an error.

Heavy imports wait until a command needs them, so that `reelway --help` answers at once.
"""

from __future__ import annotations

import shutil
import signal
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

from rich.console import Console

from pipeline.errors import PipelineError
from pipeline.job import Job, Status

if TYPE_CHECKING:
    from pipeline.ports import Storage
    from pipeline.requests import JobRequest, ProcessRequest
    from workers.result import Result


OWN_FOLDER = ".reelway"
"""Where the folder storage keeps its lock and what is being written."""


def fail(error: PipelineError, *, where: str = "") -> NoReturn:
    """One coded line on stderr, and exit 1."""
    tell(error, where=where)
    sys.exit(1)


def usage(error: PipelineError, *, where: str = "") -> NoReturn:
    """A wrong call: one line, exit 2."""
    tell(error, where=where, hint=_help() if error.code.startswith("parameter_") else "")
    sys.exit(2)


def _help() -> str:
    """What to look at where the call was wrong: nobody sends a request again here."""
    words = [word for word in sys.argv[1:2] if not word.startswith("-")]
    return f"`{' '.join([command(), *words, '--help'])}` shows what is taken."


def tell(error: PipelineError, *, where: str = "", hint: str = "") -> None:
    """One coded line on stderr; `where` is the place in what was given, where that has many; `hint` what to do, where
    that is not what the catalogue says."""
    error = error if where else _as_typed(error)
    text = f"error: {error.code}: {where}{': ' if where else ''}{error.message} {hint or error.hint}"
    say().print(text, style="red", markup=False, highlight=False, soft_wrap=True)


_OPTIONS = {"start_time": "--start", "end_time": "--end"}
"""What has another name in a request than where it is typed."""


def _as_typed(error: PipelineError) -> PipelineError:
    """The error by the names of options, where it is of the times."""
    said = dict(error.params)
    if error.code == "trim_range_invalid":
        said["field"] = _OPTIONS.get(str(said.get("field")), said.get("field", ""))
    elif error.code == "parameter_not_provided" and said.get("parameter") == "start_time":
        said["parameter"] = "--start or --end"
    return PipelineError(error.code, log=error.log, **said)


def say() -> Console:
    return Console(stderr=True)


def run_local(request: ProcessRequest, out: Path, events: Path | None) -> Result:
    """One job on a private fleet, with live progress on stderr. A job that does not succeed leaves nothing in `out`.

    SIGTERM counts as an interrupt. Raises `KeyboardInterrupt` when there is no job to speak of yet.
    """
    from workers.private import private_fleet

    made = not out.exists()
    _check_doors(request, out)
    result = None
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        with _open_events(events) as file, private_fleet(out.absolute().as_uri()) as fleet:
            from workers.local import process as process_locally
            from workers.screen import Screen

            with Screen(say()) as screen:
                result = process_locally(request, fleet, look=screen, events=file)
    except PipelineError as error:
        if error.code in ("profile_unknown", "parameter_invalid", "trim_range_invalid"):
            usage(error)
        raise
    finally:
        _leave(result, request.asset_id, out)
        if made:
            _leave_no_folder(out)
    if result is None:
        raise KeyboardInterrupt
    return result


def change_local(request: JobRequest, out: Path, *, asset: str, new: str | None = None) -> Result:
    """One job for an asset that lies in `out`, in this process, with live progress on stderr; `new`: the id of the
    one that it makes of it.

    SIGTERM counts as an interrupt. Raises what the request is refused with, `asset_busy` where another command changes
    the asset, and `KeyboardInterrupt` when there is no job to speak of yet.
    """
    from workers.alone import alone

    if not out.is_dir():
        usage(PipelineError("parameter_invalid", detail=f"--out {out} is no folder"))
    if new is not None:
        _take(new, out)
    signal.signal(signal.SIGTERM, _interrupt)
    # Until its history is written: whoever comes next begins with that.
    with alone(out / OWN_FOLDER, new or asset):
        result = _changed(request, out, new)
    if result is None:
        raise KeyboardInterrupt
    return result


def _changed(request: JobRequest, out: Path, new: str | None) -> Result | None:
    from workers.screen import Screen
    from workers.solo import carry_out

    result = None
    try:
        with Screen(say()) as screen:
            result = carry_out(request, out.absolute().as_uri(), look=screen)
    finally:
        _leave(result, new, out)
    return result


def _check_doors(request: ProcessRequest, out: Path) -> None:
    """What can be refused before anything is started."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        usage(PipelineError("parameter_invalid", detail=f"--out {out} is no folder: {error.strerror}"))
    _take(request.asset_id, out)


def _take(asset_id: str, out: Path) -> None:
    """Take the id of an asset that is to be made; a taken one ends the command."""
    from pipeline.presentation.publish import latest
    from workers.library import claim, taken

    if taken(storage_of(out), asset_id) or not claim(storage_of(out), asset_id):
        if latest(storage_of(out), asset_id) is not None:
            usage(PipelineError("asset_exists", asset=asset_id))
        detail = f"the asset id {asset_id} is taken in {out} (a command that was killed may have left it: "
        detail += f"then delete private/{asset_id}* and transcoded/{asset_id} there)"
        usage(PipelineError("parameter_invalid", detail=detail))


def _open_events(events: Path | None) -> AbstractContextManager[TextIO | None]:
    if events is None:
        return nullcontext()
    try:
        return events.open("w", encoding="utf-8")
    except OSError as error:
        usage(PipelineError("parameter_invalid", detail=f"--events {events} cannot be written: {error.strerror}"))


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


def _leave(result: Result | None, new: str | None, out: Path) -> None:
    """Put the folder in order when every process is gone: what is removed now stays removed.

    `new`: the asset that the job was to make. An asset that was there before stays, whatever became of the job.
    """
    from pipeline.tidy import remove_asset, tidy

    if result is not None:
        # Nobody asks this fleet again: of a source without its URL nothing is kept either.
        tidy(storage_of(out), replace(result.job, sealed=None), result.document, heard=result.heard)
    elif new is not None:
        remove_asset(storage_of(out), new)  # the id was free when we came


def _leave_no_folder(out: Path) -> None:
    """Remove the folder that the command made, if nothing lies in it."""
    if out.exists() and {path.name for path in out.iterdir()} <= {OWN_FOLDER}:
        shutil.rmtree(out / OWN_FOLDER, ignore_errors=True)
        with suppress(OSError):  # another command has begun to use it
            out.rmdir()


def storage_of(out: Path) -> Storage:
    """The storage that is a folder of this machine."""
    from pipeline.storage import open_storage

    return open_storage(out.absolute().as_uri())


def warn_of_missing(job: Job) -> None:
    """A line on stderr for every optional part that there will not be: the asset is ready without."""
    for step in job.steps.values():
        if step.status is Status.FAILED and step.error is not None:
            error = PipelineError.from_document(step.error)
            text = f"warning: no {step.stage}: {error.code}: {error.message} {error.hint}"
            say().print(text, style="yellow", markup=False, highlight=False, soft_wrap=True)


def summarize(document: Mapping[str, Any], out: Path, seconds: float) -> None:
    """What was made, where, and how to play it."""
    from pipeline.document import load
    from workers.screen import length, made_table

    asset = load(document)
    console = Console()
    console.print()
    console.print(made_table(asset))
    console.print()
    duration = (asset.video.duration_ms or 0) / 1000
    speed = f" ({duration / seconds:.1f}× realtime)" if seconds else ""
    console.print(f"asset   {asset.id}  {length(duration)} made in {seconds:.1f} s{speed}", highlight=False)
    if asset.video.generate_subtitle:
        names = ", ".join(track.name for track in asset.video.tracks)
        console.print(f"text    {names or 'none'}", highlight=False)
    console.print(f"HLS     {out}/transcoded/{asset.id}/video.m3u8", highlight=False, soft_wrap=True)
    console.print(f"DASH    {out}/transcoded/{asset.id}/video.mpd", highlight=False, soft_wrap=True)
    console.print(f"play    {command()} play {asset.id} --out {out}", highlight=False, soft_wrap=True)


def command() -> str:
    """How this command was called: what is printed can be typed."""
    found = shutil.which("reelway")
    called = Path(sys.argv[0])
    if found is not None and Path(found).resolve() == called.resolve():
        return "reelway"
    return str(called) if called.name == "reelway" else f"{sys.executable} -m workers"


def serve_until_interrupted(out: Path, asset_id: str, title: str, port: int, *, preview: str | None = None) -> None:
    """Serve the page of an asset (or of a preview of it), open it in the browser, and wait for Ctrl-C."""
    import webbrowser

    from workers.serve import serve

    try:
        server = serve(out, asset_id, title=title, port=port)
        page = server.page(preview)
    except OSError as error:
        detail = f"port {port} cannot be served ({error.strerror}); choose another with --port"
        usage(PipelineError("parameter_invalid", detail=detail))
    with server:
        Console().print(f"playing {asset_id} at {page}  (Ctrl-C stops)", highlight=False)
        webbrowser.open(page)
        server.wait()
