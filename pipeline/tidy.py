"""What is left to do when a job has ended: write its history, and remove what never became an asset.

Idempotent: any worker may do it, twice or after a crash. Whoever learns that the step it worked on was lost does it as
well, because it may have stored its last object after somebody else had tidied.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pipeline import keys
from pipeline.document import public_url
from pipeline.job import Job, JobStatus
from pipeline.ports import Storage
from pipeline.presentation.publish import latest, mend
from pipeline.tasks import as_data, to_json

SCHEMA = 1


def tidy(storage: Storage, job: Job, document: Mapping[str, Any]) -> None:
    """Put an ended job's storage in order: its history, and doors at the latest version.

    Where a job that did not succeed was the first, nothing is left of the asset: neither what was never published, nor
    the half of a publication that broke off.
    """
    if job.status is not JobStatus.SUCCEEDED and _found_another(job):
        return
    if job.status is not JobStatus.SUCCEEDED and _all_its_own(storage, job):
        remove_asset(storage, job.asset)
    else:
        mend(storage, job.asset)
        storage.put(keys.history(job.asset, job.id), history(job, document).encode())


def _all_its_own(storage: Storage, job: Job) -> bool:
    """Nobody but this job brought anything: later versions keep the effects of earlier ones, so the latest knows."""
    presentation = latest(storage, job.asset)
    return presentation is None or all(effect.job == job.id for effect in presentation.effects)


def _found_another(job: Job) -> bool:
    """It ended because another file lies where its own belongs: what is there is somebody else's."""
    return job.error is not None and job.error["code"] == "source_differs"


def history(job: Job, document: Mapping[str, Any]) -> str:
    """The job's history as JSON: what was asked, what each step did, and the document at its end.

    No secret is in it: of the source's URL it shows what may be shown.
    """
    request = {**job.request, "url": public_url(str(job.request.get("url", "")))}
    return to_json(
        {
            "schema": SCHEMA,
            "job": as_data(replace(job, steps={}, blueprint=None, request=request)),
            "steps": [as_data(step) for step in job.steps.values()],
            "document": dict(document),
        }
    )


def remove_asset(storage: Storage, asset: str) -> None:
    """Delete everything of an asset, the public side first, and of that the doors: none leads to what is gone."""
    storage.delete(keys.hls_door(asset))
    storage.delete(keys.dash_door(asset))
    storage.delete(keys.public(asset))
    storage.delete(f"{keys.PRIVATE}/{asset}/")
    storage.delete(f"{keys.PRIVATE}/{asset}.")
