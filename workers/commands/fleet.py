"""What the commands for a fleet share: how they reach it, ask it, and follow a job to its end."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

from pipeline.errors import PipelineError
from workers.console import command, fail, say, tell, usage, warn_of_missing

if TYPE_CHECKING:
    from pipeline.doorman import Doorman
    from pipeline.job import Job
    from pipeline.requests import Request
    from workers.client import Accepted, Client
    from workers.wiring import Control

LOOK_S = 0.25
"""Between two looks at a job that is followed."""
WRONG_CALLS = frozenset({"parameter_invalid", "parameter_not_provided", "profile_unknown", "trim_range_invalid"})
"""Codes that say that the call was wrong: exit 2."""
UNREAD = frozenset({"media_url_not_accessible", "source_forbidden", "source_unavailable"})
"""Codes that say that the workers could not read the source."""


def fleet(*, stored: bool = False) -> Control:
    """The control side of the fleet that the settings name. `stored`: see `workers.wiring.fleet_settings`."""
    from workers.wiring import control, fleet_settings

    with _a_url():
        return control(fleet_settings(stored=stored))


def client() -> Client:
    from workers.client import Client
    from workers.settings import Settings

    with _a_url():
        return Client(Settings.read().redis_url)


@contextmanager
def _a_url() -> Iterator[None]:
    try:
        yield
    except ValueError as error:  # its text may hold a piece of a password
        detail = "it is not a URL of Redis"
        raise PipelineError("setting_invalid", name="REELWAY_REDIS_URL", detail=detail) from error


def doorman(control: Control) -> Doorman:
    """Who decides about requests, for those that are not sent but done at once."""
    from pipeline.doorman import Doorman

    return Doorman(
        control.conductor,
        control.storage,
        control.organizations,
        fleet_size=control.fleet_size,
        limits=control.settings.source_limits,
    )


def request(type_: str, **fields: Any) -> Request:
    """A request of what was typed; fields that are None were not. A wrong one ends the command (exit 2)."""
    from pydantic import TypeAdapter, ValidationError

    from pipeline.conductor import refusal
    from pipeline.requests import Request

    said = {name: value for name, value in fields.items() if value is not None}
    try:
        return TypeAdapter[Request](Request).validate_python({"type": type_, **said})
    except ValidationError as error:
        usage(refusal(error))


def submitted(wish: Request) -> Accepted:
    """Send a request and wait for its acceptance. A refusal ends the command: 2 where the call was wrong, else 1."""
    try:
        return client().submit(wish)
    except PipelineError as error:
        refused(error)


def refused(error: PipelineError, *, where: str = "") -> NoReturn:
    (usage if error.code in WRONG_CALLS else fail)(error, where=where)


def answer(asset: str, accepted: Accepted, *, wait: bool, as_json: bool, if_unread: str = "") -> None:
    """What became of an accepted request: the asset's id, or its document; with `wait` when the job has ended.

    The document is printed however the job ended: a script reads in it why. `if_unread`: see `conclude`.
    """
    control = fleet()
    ended = [followed(control, job) for job in accepted.jobs] if wait else []
    document = known_document(control, asset)
    if as_json:
        sys.stdout.write(json.dumps(document, ensure_ascii=False) + "\n")
    for job in ended:
        conclude(job, if_unread=if_unread)
    if as_json:
        return
    sys.stdout.write(f"{asset}\n")
    if sys.stdout.isatty():
        _hint(f"plays at {document['video']['playback_url']}" if wait else f"follow it: {command()} watch {asset}")


def _hint(text: str) -> None:
    say().print(text, style="dim", highlight=False, markup=False, soft_wrap=True)


def followed(control: Control, job_id: str) -> Job:
    """Show a job until it has ended. Its workers and its life are not ours: an interrupt changes nothing for it."""
    from workers.screen import Screen

    with Screen(say()) as screen:
        while True:
            job = control.store.job(job_id)
            if job is None:
                raise PipelineError("job_not_found", job=job_id)
            screen(job, control.progress.fractions(job_id))
            if job.status.ended:
                return job
            time.sleep(LOOK_S)


def conclude(job: Job, *, if_unread: str = "") -> None:
    """Say how an ended job ended; one that did not end well ends the command. `if_unread`: what else may help where
    the workers could not read the source."""
    if job.error is not None:
        error = PipelineError.from_document(job.error)
        tell(error)
        if if_unread and error.code in UNREAD:
            say().print(f"hint: {if_unread}", highlight=False, soft_wrap=True)
        sys.exit(1)
    warn_of_missing(job)


def known_document(control: Control, asset: str) -> Mapping[str, Any]:
    """The asset's document as Redis has it, else as storage does. Raises `asset_not_found` or `asset_deleted`."""
    from pipeline.standing import standing

    record = control.store.asset(asset)
    if record is not None and record.document:
        return record.document
    stands = standing(control.storage, asset)
    if stands is not None and stands.document is not None:
        return stands.document
    gone = stands is not None and stands.deleted is not None
    raise PipelineError("asset_deleted" if gone else "asset_not_found", asset=asset)
