"""The commands about events."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.errors import PipelineError
from workers.commands.options import AsJson
from workers.console import usage


def tail(
    start: Annotated[str, typer.Option("--from", help="Begin after this stream id; 0: from the beginning.")] = "$",
    since: Annotated[
        int | None,
        typer.Option(min=0, help="Begin at this moment (ms since 1970), also where the stream has dropped it."),
    ] = None,
    type_: Annotated[str | None, typer.Option("--type", help="Only this type, e.g. asset.ready or asset.*.")] = None,
    redis_url: Annotated[str | None, typer.Option(help="Redis; REELWAY_REDIS_URL if left out.")] = None,
    as_json: AsJson = False,
) -> None:
    """Follow the events of a fleet."""
    from workers import tail as reader

    if since is not None and start != "$":
        usage(PipelineError("parameter_invalid", detail="--from and --since are two beginnings: give one"))
    try:
        reader.tail(start, type_, redis_url, as_json, since=since)
    except PipelineError as error:
        if error.code == "parameter_invalid":
            usage(error)
        raise
