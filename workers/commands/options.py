"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.job import Priority
from workers.console import usage


def _asset_id(value: str) -> str:
    """What can be no asset is a wrong call, before anything is asked."""
    from pydantic import TypeAdapter, ValidationError

    from pipeline import requests
    from pipeline.conductor import refusal

    try:
        return TypeAdapter[str](requests.AssetId).validate_python(value)
    except ValidationError as error:
        usage(refusal(error))


OUT = Path("reelway-out")
PLAY_PORT = 8350

Out = Annotated[Path, typer.Option("--out", help="Folder that holds the assets.", show_default=True)]
Folder = Annotated[
    Path | None, typer.Option("--out", help="Folder of `reelway process` that holds the asset, instead of a fleet.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON alone on stdout.")]
AssetId = Annotated[str, typer.Argument(metavar="ID", help="The asset.", callback=_asset_id)]
Resolutions = Annotated[str, typer.Option(help="Rungs to make, e.g. 240p,720p.")]
Wait = Annotated[bool, typer.Option("--wait", help="Follow the job to its end; the exit code tells how it ended.")]
At = Annotated[Priority, typer.Option("--priority", help="How soon its steps begin, beside those of other jobs.")]
Organization = Annotated[str, typer.Option(help="Whose asset it is.")]
ProfileName = Annotated[str, typer.Option("--profile", help="Encoding profile.")]
Subtitles = Annotated[bool, typer.Option("--subtitles/--no-subtitles", help="Write captions of what is said.")]
Language = Annotated[
    str | None, typer.Option("--language", help="What is spoken, e.g. de; without it captions are in English.")
]
Title = Annotated[str | None, typer.Option("--title", help="Title of the asset.")]
