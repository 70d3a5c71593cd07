"""The command `reelway`: thin doors to what the other modules do.

Heavy imports wait until a command needs them, so that `--help` answers at once. Exit codes: 0 done, 1 failed with one
coded line on stderr, 2 usage, 130 interrupted.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from pipeline.errors import PipelineError
from workers.console import (
    command,
    fail,
    run_local,
    say,
    serve_until_interrupted,
    storage_of,
    summarize,
    usage,
    warn_of_missing,
)

app = typer.Typer(
    name="reelway",
    help="Turn a video into a streamable asset.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
events_app = typer.Typer(help="The stream of events.", no_args_is_help=True)
app.add_typer(events_app, name="events")

OUT = Path("reelway-out")
PLAY_PORT = 8350

Out = Annotated[Path, typer.Option("--out", help="Folder that holds the assets.", show_default=True)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON alone on stdout.")]


def main() -> None:
    """Every command: errors of the catalogue end as one line, never as a traceback."""
    try:
        app()
    except PipelineError as error:
        fail(error)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(141)


@app.command()
def process(
    source: Annotated[str, typer.Argument(help="The video or audio file.")],
    out: Out = OUT,
    resolutions: Annotated[str, typer.Option(help="Rungs to make, e.g. 240p,720p.")] = "",
    profile: Annotated[str, typer.Option(help="Encoding profile.")] = "default",
    subtitles: Annotated[
        bool, typer.Option("--subtitles/--no-subtitles", help="Write captions of what is said.")
    ] = False,
    language: Annotated[
        str | None, typer.Option(help="What is spoken, e.g. de; without it captions are in English.")
    ] = None,
    title: Annotated[str | None, typer.Option(help="Title of the asset.")] = None,
    asset_id: Annotated[str | None, typer.Option(help="Bring your own asset id.")] = None,
    events: Annotated[Path | None, typer.Option(help="Write every event to this file, a line of JSON each.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make an HLS and DASH asset of SOURCE, with nothing running beforehand."""
    from pydantic import ValidationError

    from pipeline.conductor import refusal
    from pipeline.fetch import local_file
    from pipeline.requests import ProcessRequest

    path = local_file(source)
    if path is None:
        usage(
            PipelineError("parameter_invalid", detail="SOURCE is a file of this machine; URLs cannot be processed yet")
        )
    wish: dict[str, Any] = {
        "url": str(path.absolute()),
        "orig_filename": path.name,
        "title": title,
        "resolutions": resolutions,
        "profile": profile,
        "generate_subtitle": subtitles,
        "language": language,
        **({"asset_id": asset_id} if asset_id else {}),
    }
    try:
        request = ProcessRequest.model_validate(wish)
    except ValidationError as error:
        usage(refusal(error))
    result = run_local(request, out, events)
    document = result.document
    if as_json:
        from workers.local import document_line

        sys.stdout.write(document_line(document) + "\n")
    if result.interrupted and result.job.error is not None:
        say().print("interrupted", style="yellow")
        sys.exit(130)
    if result.job.error is not None:
        fail(PipelineError.from_document(result.job.error))
    warn_of_missing(result.job)
    if not as_json:
        summarize(document, out, result.seconds)


@app.command()
def play(
    asset_id: Annotated[str | None, typer.Argument(help="The asset; the newest one if left out.")] = None,
    out: Out = OUT,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on 127.0.0.1; 0: any.")] = PLAY_PORT,
) -> None:
    """Serve an asset on this machine and play it in the browser."""
    from workers import library

    _folder(out)
    found = list(library.assets(storage_of(out)))
    if not found and asset_id is None:
        nothing_there(out)
        sys.exit(1)
    asset = library.asset(storage_of(out), asset_id or found[-1].id)
    serve_until_interrupted(out, asset.id, asset.title or asset.orig_filename or asset.id, port)


@app.command(name="ls")
def list_assets(out: Out = OUT, as_json: AsJson = False) -> None:
    """List the assets of a folder."""
    from workers import library
    from workers.screen import assets_table

    _folder(out)
    documents = list(library.assets(storage_of(out)))
    if as_json:
        for document in documents:
            sys.stdout.write(document.model_dump_json() + "\n")
    elif documents:
        Console().print(assets_table(documents))
    else:
        nothing_there(out)


def _folder(out: Path) -> None:
    if out.exists() and not out.is_dir():
        usage(PipelineError("parameter_invalid", detail=f"--out {out} is no folder"))


def nothing_there(out: Path) -> None:
    """Say how to make an asset."""
    text = f"no assets in {out}; make one with: {command()} process VIDEO --out {out}"
    say().print(text, highlight=False, markup=False, soft_wrap=True)


@app.command()
def demo(
    source: Annotated[Path | None, typer.Argument(help="A clip of yours; one is made if left out.")] = None,
    out: Out = Path("demo"),
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on 127.0.0.1; 0: any.")] = PLAY_PORT,
) -> None:
    """Make a short clip (or take yours), process it, and play it."""
    from workers import demo as demonstration

    demonstration.run(source, out, port)


@app.command()
def corpus(
    folder: Annotated[Path, typer.Argument(help="Folder with media files, however strange.")],
    report: Annotated[Path | None, typer.Option(help="Append the lines here, and skip what it has already.")] = None,
    profile: Annotated[str, typer.Option(help="Encoding profile.")] = "fast",
) -> None:
    """Process every file below FOLDER and print what became of each as a line of JSON; keeps no asset."""
    from workers import corpus as files

    files.run(folder, report, profile)


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Say what is missing here and how to mend it."""
    from workers import doctor as checks

    sys.exit(checks.run(as_json))


@app.command()
def version() -> None:
    """Print the version."""
    from importlib.metadata import version as installed

    typer.echo(f"reelway {installed('reelway')}")


@events_app.command("tail")
def events_tail(
    start: Annotated[str, typer.Option("--from", help="Begin after this stream id; 0: from the beginning.")] = "$",
    type_: Annotated[str | None, typer.Option("--type", help="Only this type, e.g. asset.ready or asset.*.")] = None,
    redis_url: Annotated[str | None, typer.Option(help="Redis; REELWAY_REDIS_URL if left out.")] = None,
    as_json: AsJson = False,
) -> None:
    """Follow the events of a fleet."""
    from workers.tail import tail

    try:
        tail(start, type_, redis_url, as_json)
    except PipelineError as error:
        if error.code == "parameter_invalid":
            usage(error)
        raise


if __name__ == "__main__":
    main()
