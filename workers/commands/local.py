"""The commands for one machine: they need nothing that runs beforehand, and know no fleet."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from pipeline.errors import PipelineError
from workers.commands.options import (
    OUT,
    PLAY_PORT,
    AsJson,
    Language,
    Out,
    ProfileName,
    Resolutions,
    Subtitles,
    Title,
)
from workers.commands.times import End, Start, asked
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


def process(
    source: Annotated[str, typer.Argument(metavar="FILE|URL|s3://…", help="The video or audio.")],
    out: Out = OUT,
    resolutions: Resolutions = "",
    profile: ProfileName = "default",
    subtitles: Subtitles = False,
    language: Language = None,
    title: Title = None,
    asset_id: Annotated[str | None, typer.Option("--id", "--asset-id", help="Bring your own asset id.")] = None,
    start: Start = None,
    end: End = None,
    events: Annotated[Path | None, typer.Option(help="Write every event to this file, a line of JSON each.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make an HLS and DASH asset of SOURCE, with nothing running beforehand."""
    from pydantic import ValidationError

    from pipeline.conductor import refusal
    from pipeline.fetch import local_file
    from pipeline.guard import parse
    from pipeline.requests import ProcessRequest

    path = local_file(source)
    if path is None and not source.lower().startswith("s3:"):
        try:
            parse(source)
        except PipelineError as error:
            usage(error)
    wish: dict[str, Any] = {
        "url": source if path is None else str(path.absolute()),
        "orig_filename": None if path is None else path.name,
        "title": title,
        "resolutions": resolutions,
        "profile": profile,
        "generate_subtitle": subtitles,
        "language": language,
        **asked(start, end),
        **({"asset_id": asset_id} if asset_id else {}),
    }
    try:
        request = ProcessRequest.model_validate(wish)
    except ValidationError as error:
        usage(refusal(error))
    result = run_local(request, out, events)
    document = result.document
    if as_json:
        from workers.result import document_line

        sys.stdout.write(document_line(document) + "\n")
    if result.interrupted and result.job.error is not None:
        say().print("interrupted", style="yellow")
        sys.exit(130)
    if result.job.error is not None:
        fail(PipelineError.from_document(result.job.error))
    warn_of_missing(result.job)
    if not as_json:
        summarize(document, out, result.seconds)


def play(
    asset_id: Annotated[str | None, typer.Argument(help="The asset; the newest one if left out.")] = None,
    out: Out = OUT,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on 127.0.0.1; 0: any.")] = PLAY_PORT,
    preview: Annotated[
        str | None, typer.Option(metavar="NAME", help="Play what `reelway trim --preview` made instead.")
    ] = None,
) -> None:
    """Serve an asset on this machine and play it in the browser."""
    from workers import library

    _folder(out)
    found = list(library.assets(storage_of(out)))
    if not found and asset_id is None:
        nothing_there(out)
        sys.exit(1)
    asset = library.asset(storage_of(out), asset_id or found[-1].id)
    if preview is not None:
        _check_preview(out, asset.id, preview)
    title = asset.title or asset.orig_filename or asset.id
    serve_until_interrupted(out, asset.id, title, port, preview=preview)


def _check_preview(out: Path, asset: str, name: str) -> None:
    from pipeline import keys

    if not name.isalnum() or storage_of(out).stat(f"{keys.preview(asset, name)}video.m3u8") is None:
        detail = f"{asset} has no preview {name} in {out}; `{command()} trim {asset} … --preview --out {out}` makes one"
        usage(PipelineError("parameter_invalid", detail=detail))


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


def demo(
    source: Annotated[Path | None, typer.Argument(help="A clip of yours; one is made if left out.")] = None,
    out: Out = Path("demo"),
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on 127.0.0.1; 0: any.")] = PLAY_PORT,
) -> None:
    """Make a short clip (or take yours), process it, and play it."""
    from workers import demo as demonstration

    demonstration.run(source, out, port)


def corpus(
    folder: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="Media files, however strange.")],
    report: Annotated[Path | None, typer.Option(help="Append a line of JSON a file, and skip what is there.")] = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="Files at once; two for each worker if left out.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write all outcomes there as a page.")] = None,
    profile: ProfileName = "fast",
    as_json: AsJson = False,
) -> None:
    """Process every file below FOLDER and say what became of each: a line a file, and the sums at the end.

    Keeps no asset. Exit code 1: a worker was lost, an error has no code of its own, or something was left behind.
    """
    from workers import corpus as files

    try:
        summary = files.run(folder, report, profile, as_json=as_json, jobs=jobs)
    except PipelineError as error:
        fail(error)
    for line in summary.lines():
        say().print(line, highlight=False, markup=False, soft_wrap=True)
    if markdown is not None:
        markdown.write_text(files.markdown(summary.outcomes, folder.name), encoding="utf-8")
    sys.exit(0 if summary.clean else 1)
