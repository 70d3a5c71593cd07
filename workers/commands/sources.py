"""The commands about a file that nobody has processed yet; they need nothing that runs."""

from __future__ import annotations

import json
import shlex
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
    """Say what ingest would learn of FILE: its streams, what is unusual, whether it would play as it is.

    What the limits refuse is shown all the same, with the refusal; the exit code is 1 then.
    """
    from pipeline.profile import load_profiles
    from pipeline.tasks import to_json
    from workers.commands.show import paper, print_json, refusals
    from workers.console import command, fail, usage
    from workers.facts import made_of, show
    from workers.inspection import drawn, inspect, refused, unlimited
    from workers.settings import Settings
    from workers.wiring import child_limits

    settings = Settings.read()
    profiles = load_profiles(settings.profiles_dir)
    if (chosen := profiles.get(profile)) is None:
        usage(PipelineError("profile_unknown", profile=profile, available=", ".join(sorted(profiles))))
    with refusals(as_json=as_json):
        media = inspect(file, unlimited(settings.source_limits), child_limits(settings))
    refusal = refused(media, settings.source_limits)
    if as_json:
        told = json.loads(to_json(media))
        print_json(told | {"error": refusal.document()} if refusal else told)
    else:
        console = paper()
        show(console, file.name, media)
        made = f"{made_of(drawn(media, chosen))}; what it costs: {command()} plan {shlex.quote(str(file))}"
        line = f"{'makes':<9} {made}" if refusal is None else f"{'refused':<9} {refusal.code}: nothing is made of it"
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    if refusal is not None:
        fail(refusal)
