"""The commands about a file that nobody has processed yet; they need nothing that runs."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from pipeline.errors import PipelineError
from workers.commands.options import AsJson, ProfileName


def probe(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The video or audio.")],
    profile: ProfileName = "default",
    as_json: AsJson = False,
) -> None:
    """Say what ingest would learn of FILE: its streams, what is unusual, whether it would play as it is."""
    from pipeline.profile import load_profiles
    from pipeline.tasks import to_json
    from workers.commands.show import paper, refusals
    from workers.console import command, usage
    from workers.facts import made_of, show
    from workers.inspection import drawn, inspect
    from workers.settings import Settings
    from workers.wiring import child_limits

    settings = Settings.read()
    profiles = load_profiles(settings.profiles_dir)
    if (chosen := profiles.get(profile)) is None:
        usage(PipelineError("profile_unknown", profile=profile, available=", ".join(sorted(profiles))))
    with refusals(as_json=as_json):
        media = inspect(file, settings.source_limits, child_limits(settings))
    if as_json:
        sys.stdout.write(to_json(media) + "\n")
        return
    console = paper()
    show(console, file.name, media)
    made = made_of(drawn(media, chosen))
    line = f"{'makes':<9} {made}; what it costs: {command()} plan {shlex.quote(str(file))}"
    console.print(line, markup=False, highlight=False, soft_wrap=True)
