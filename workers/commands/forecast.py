"""The command that says what would be made of a file, and makes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.errors import PipelineError
from workers.commands.options import AsJson, ProfileName, Resolutions, Subtitles


def plan(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The video or audio.")],
    resolutions: Resolutions = "",
    profile: ProfileName = "default",
    subtitles: Subtitles = False,
    workers: Annotated[
        int | None, typer.Option(min=1, max=10_000, help="Steps that the fleet does at once; a core each if left out.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say what would be made of FILE, and estimate its CPU seconds and bytes; nothing is made."""
    from pydantic import ValidationError

    from pipeline.conductor import refusal
    from pipeline.profile import load_profiles
    from pipeline.requests import ProcessRequest
    from workers.commands.show import paper, print_json, refusals
    from workers.console import usage
    from workers.forecast import document, forecast, show
    from workers.inspection import inspect
    from workers.settings import Settings
    from workers.wiring import child_limits

    settings = Settings.read()
    profiles = load_profiles(settings.profiles_dir)
    if (chosen := profiles.get(profile)) is None:
        usage(PipelineError("profile_unknown", profile=profile, available=", ".join(sorted(profiles))))
    wish = {"url": str(file.absolute()), "resolutions": resolutions, "profile": profile, "generate_subtitle": subtitles}
    try:
        request = ProcessRequest.model_validate(wish)
    except ValidationError as error:
        usage(refusal(error))
    with refusals(as_json=as_json):
        media = inspect(file, settings.source_limits, child_limits(settings))
    said = forecast(file, request, media, chosen, workers=workers or settings.workers_hint)
    if as_json:
        print_json(document(said))
    else:
        show(paper(), said)
