"""What the commands share: one job with live progress, its summary, the page that plays it, and one line for an error.

Heavy imports wait until a command needs them, so that `reelway --help` answers at once.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from rich.console import Console

from pipeline.errors import PipelineError
from pipeline.job import Job, Status

if TYPE_CHECKING:
    from pipeline.ports import Storage
    from pipeline.requests import ProcessRequest
    from workers.local import Result


def fail(error: PipelineError) -> NoReturn:
    """One coded line on stderr, and exit 1."""
    say().print(
        f"error: {error.code}: {error.message} {error.hint}", style="red", markup=False, highlight=False, soft_wrap=True
    )
    sys.exit(1)


def say() -> Console:
    return Console(stderr=True)


def usage(error: PipelineError) -> NoReturn:
    """A wrong call: one line, exit 2."""
    say().print(
        f"error: {error.code}: {error.message} {error.hint}", style="red", markup=False, highlight=False, soft_wrap=True
    )
    sys.exit(2)


def run_local(request: ProcessRequest, out: Path, events: Path | None) -> Result:
    """One job on a private fleet, with live progress on stderr. A job that fails leaves nothing in `out`."""
    from workers.private import private_fleet

    to_be_made = not out.exists()
    with private_fleet(out.absolute().as_uri()) as fleet:
        from workers.local import leave
        from workers.local import process as process_locally
        from workers.screen import Screen

        with (
            events.open("w", encoding="utf-8") if events else nullcontext() as file,
            Screen(say()) as screen,
        ):
            try:
                result = process_locally(request, fleet, look=screen, events=file)
            except PipelineError as error:
                if error.code in ("profile_unknown", "parameter_invalid"):
                    usage(error)
                raise
    leave(result, storage_of(out))
    if to_be_made and result.job.error is not None:
        shutil.rmtree(out, ignore_errors=True)
    return result


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
    from workers.screen import clock, made_table

    asset = load(document)
    console = Console()
    console.print()
    console.print(made_table(asset))
    console.print()
    duration = (asset.video.duration_ms or 0) / 1000
    speed = f" ({duration / seconds:.1f}× realtime)" if seconds else ""
    console.print(f"asset   {asset.id}  {clock(duration)} made in {seconds:.1f} s{speed}", highlight=False)
    if asset.video.generate_subtitle:
        names = ", ".join(track.name for track in asset.video.tracks)
        console.print(f"text    {names or 'none'}", highlight=False)
    console.print(f"HLS     {out}/transcoded/{asset.id}/video.m3u8", highlight=False, soft_wrap=True)
    console.print(f"DASH    {out}/transcoded/{asset.id}/video.mpd", highlight=False, soft_wrap=True)
    console.print(f"play    reelway play {asset.id} --out {out}", highlight=False, soft_wrap=True)


def serve_until_interrupted(out: Path, asset_id: str, title: str, port: int) -> None:
    """Serve the page of an asset, open it in the browser, and wait for Ctrl-C."""
    import webbrowser

    from workers.serve import serve

    with serve(out, asset_id, title=title, port=port) as server:
        Console().print(f"playing {asset_id} at {server.url}  (Ctrl-C stops)", highlight=False)
        webbrowser.open(server.url)
        server.wait()
