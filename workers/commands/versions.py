"""The commands that show what an asset was and is: its versions, and its trims."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.errors import PipelineError
from workers.commands import fleet
from workers.commands.moment import shown as moment
from workers.commands.options import AsJson, AssetId, Folder
from workers.commands.times import shown as clock
from workers.console import command, say, storage_of, tell, usage

if TYPE_CHECKING:
    from pipeline.events import TrimStatus
    from pipeline.ports import JobStore, Storage
    from pipeline.presentation.model import Presentation

NEWEST = 20
"""So many are shown where nobody asks for more: each costs a look into the storage."""


@dataclass(frozen=True, kw_only=True)
class Shelf:
    """Where an asset's past lies: in a fleet's storage and records, or in a folder alone."""

    storage: Storage
    store: JobStore


def shelf(out: Path | None) -> Shelf:
    """Of the folder, or of the fleet."""
    if out is None:
        with or_a_folder():
            control = fleet.fleet(stored=True)
        return Shelf(storage=control.storage, store=control.store)
    if not out.is_dir():
        usage(PipelineError("parameter_invalid", detail=f"--out {out} is no folder"))
    from pipeline.memory import MemoryJobStore, SystemClock

    return Shelf(storage=storage_of(out), store=MemoryJobStore(SystemClock()))


@contextmanager
def or_a_folder() -> Iterator[None]:
    """Where no fleet answers, an asset of a folder may have been meant."""
    try:
        yield
    except PipelineError as error:
        if error.code != "queue_unavailable":
            raise
        tell(error)
        text = "hint: an asset that `reelway process` made lies in a folder: name it with --out"
        say().print(text, highlight=False, markup=False, soft_wrap=True)
        sys.exit(1)


def versions(
    asset: AssetId,
    out: Folder = None,
    everything: Annotated[bool, typer.Option("--all", help=f"Also what is older than the newest {NEWEST}.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the versions of an asset, the newest first.

    The one with a star is shown; `reelway revert ID --to VERSION` goes back to any other.
    """
    from workers.commands import show

    found = shelf(out)
    newest = _check_there(found, asset)
    rows = list(islice(_told(found, asset, newest), None if everything else NEWEST))
    if as_json:
        show.print_json(rows)
        return
    show.paper().print(_versions_table(rows))
    if rows[-1]["version"] > 1 and not everything:
        where = f" --out {out}" if out else ""
        text = f"older ones: {command()} versions {asset}{where} --all"
        say().print(text, style="dim", highlight=False, markup=False, soft_wrap=True)


def _check_there(found: Shelf, asset: str) -> int:
    """The number of the version that is shown. Raises where there is none."""
    from pipeline.presentation.publish import latest
    from pipeline.standing import standing

    newest = latest(found.storage, asset)
    if newest is not None:
        return newest.version
    stands, record = standing(found.storage, asset), found.store.asset(asset)
    document = (stands.document if stands else None) or (record.document if record else None)
    if (stands and stands.deleted is not None) or (document and document.get("deleted")):
        raise PipelineError("asset_deleted", asset=asset)
    if document:
        raise PipelineError("asset_not_ready", asset=asset, detail="nothing of it is published")
    raise PipelineError("asset_not_found", asset=asset)


def _told(found: Shelf, asset: str, newest: int) -> Iterator[dict[str, Any]]:
    from pipeline.presentation import publish

    for number, published_ms in publish.versions(found.storage, asset):
        version = publish.version(found.storage, asset, number)
        if version is not None:
            yield _row(found, version, published_ms, newest)


def _row(found: Shelf, version: Presentation, published_ms: int, newest: int) -> dict[str, Any]:
    part = part_of(version)
    length = length_of(version) if part is None else part[1] - part[0]
    brought = version.effects[-1] if version.effects else None
    return {
        "version": version.version,
        "shown": version.version == newest,
        "published_ms": published_ms,
        "duration": round(float(length), 3),
        "start_time": None if part is None else round(float(part[0]), 3),
        "end_time": None if part is None else round(float(part[1]), 3),
        "tracks": [track.id for track in version.tracks],
        "job": brought.job if brought else None,
        "brought_by": _brought_by(found, version.asset, brought.job) if brought else None,
    }


def part_of(version: Presentation) -> tuple[Fraction, Fraction] | None:
    """Seconds of the asset's own timeline between which it is played; None: all of it is. A clip's begins with it."""
    if version.edit is None:
        return None
    offset = version.base.start if version.base else Fraction(0)
    return version.edit.start - offset, version.edit.end - offset


def length_of(version: Presentation) -> Fraction:
    """Seconds of the asset's own timeline."""
    return version.base.end - version.base.start if version.base else version.duration


def _brought_by(found: Shelf, asset: str, job_id: str) -> str | None:
    """What the job was asked for, as far as anybody knows it still."""
    from pipeline import keys
    from pipeline.ports import ObjectNotFound
    from workers.commands.show import asked

    job = found.store.job(job_id)
    if job is not None:
        return asked(job.kind, job.number, job.request)
    with suppress(ObjectNotFound):
        told = json.loads(found.storage.get(keys.history(asset, job_id)))["job"]
        return asked(told["kind"], told.get("number"), told["request"])
    return None


def _versions_table(rows: list[dict[str, Any]]) -> Any:
    from workers.commands import show

    made = show.table("", ">version", "published", ">plays", "range", "brought by", "tracks")
    for row in rows:
        whole = row["start_time"] is None
        made.add_row(
            "*" if row["shown"] else "",
            str(row["version"]),
            moment(row["published_ms"]),
            clock(row["duration"]),
            "all" if whole else f"{clock(row['start_time'])} – {clock(row['end_time'])}",
            row["brought_by"] or "",
            " ".join(row["tracks"]),
        )
    return made


# -- trims ------------------------------------------------------------------------------------------------------------


def trims(asset: AssetId, out: Folder = None, as_json: AsJson = False) -> None:
    """List the trims of an asset and what became of each."""
    from pipeline.trims import trims_of
    from workers.commands import show

    found = shelf(out)
    listed = list(trims_of(found.store, found.storage, asset))
    if not listed:
        _check_there(found, asset)
    if as_json:
        show.print_json([each.model_dump(mode="json") for each in listed])
    elif listed:
        show.paper().print(_trims_table(listed))
    else:
        say().print(_untrimmed(found, asset), highlight=False, markup=False, soft_wrap=True)


def _untrimmed(found: Shelf, asset: str) -> str:
    """Of what was asked for as a part at once there is no trim with a number."""
    from pipeline.presentation import publish

    first = publish.version(found.storage, asset, 1)
    part = part_of(first) if first is not None else None
    if part is None:
        return f"{asset} was never trimmed"
    return f"{asset} was trimmed when it came ({clock(part[0])} to {clock(part[1])}), and never since"


def _trims_table(listed: list[TrimStatus]) -> Any:
    from workers.commands import show

    made = show.table(">trim", "from", "to", "status", "created", "job", "error")
    for each in listed:
        made.add_row(
            str(each.id),
            "" if each.start_time is None else clock(each.start_time),
            "" if each.end_time is None else clock(each.end_time),
            each.status_display,
            each.created.strftime("%Y-%m-%d %H:%M:%S"),
            each.background_task_id,
            each.error.code if each.error else "",
        )
    return made
