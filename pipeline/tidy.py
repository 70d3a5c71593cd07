"""What is left to do when a job has ended: write its history, and remove what never became an asset.

Idempotent: any worker may do it, twice or after a crash.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pipeline import keys
from pipeline.job import Job, JobStatus
from pipeline.ports import Storage
from pipeline.presentation.publish import latest
from pipeline.tasks import as_data, to_json

SCHEMA = 1


def tidy(storage: Storage, job: Job, document: Mapping[str, Any]) -> None:
    """Put an ended job's storage in order. An asset that was never published leaves nothing behind."""
    if job.status is not JobStatus.SUCCEEDED and latest(storage, job.asset) is None:
        remove_asset(storage, job.asset)
    else:
        storage.put(keys.history(job.asset, job.id), history(job, document).encode())


def history(job: Job, document: Mapping[str, Any]) -> str:
    """The job's history as JSON: what was asked, what each step did, and the document at its end."""
    return to_json(
        {
            "schema": SCHEMA,
            "job": as_data(replace(job, steps={}, blueprint=None)),
            "steps": [as_data(step) for step in job.steps.values()],
            "document": dict(document),
        }
    )


def remove_asset(storage: Storage, asset: str) -> None:
    """Delete everything of an asset, the public side first."""
    storage.delete(keys.public(asset))
    storage.delete(f"{keys.PRIVATE}/{asset}/")
    storage.delete(f"{keys.PRIVATE}/{asset}.")
