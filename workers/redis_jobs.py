"""The job store on Redis: a job is one hash, a commit is one script, and what the script says is what happened.

    <prefix>:job:<id>        hash: header (JSON without steps), status, revision, asset, rank, order,
                             and `step:<id>` = `<status>|<fence>|<stage>|<rest as JSON>`, so that Lua compares text
    <prefix>:asset:<id>      hash: document, version, epoch, sequence, open (its jobs that have not ended);
                             expires with the record of its last job, and what comes later has a new epoch
    <prefix>:due             sorted set of `<job>/<step>` by the time (Redis's clock, ms) to look at it again;
                             half a millisecond more marks what a sweeper has claimed
    <prefix>:ready:<stage>   sorted set of `<job>/<step>` by rank: what may begin
    <prefix>:events          stream: ce (the sealed event), type, subject, sequence
    <prefix>:commit:<token>  what became of a commit, for as long as its sender may ask again
    channels <prefix>:wake (stages with something ready, `@due`) and <prefix>:stop (the id of a job that ended)

Contention is on fields: a commit compares the steps that it was decided on, not the whole record. Python decides, the
script compares and applies (`workers/lua/commit.lua`; its readable form is `pipeline.memory.MemoryJobStore`).
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import redis
from pydantic import TypeAdapter

from pipeline.events import PREFIX, VERSION, envelope
from pipeline.job import (
    CONFLICT,
    READY_DUE_S,
    SCHEMA,
    AssetRecord,
    Commit,
    EventDraft,
    Job,
    JobStatus,
    Outcome,
    Ref,
    Status,
    Step,
)
from pipeline.memory import CLAIM_S, GRACE_S, OUTAGE_S, SystemClock
from pipeline.ports import Clock
from workers.redis_client import Client, answering

DUE = "@due"
"""Word on the wake channel: something is due now."""
TOKEN_S = 600
"""How long a commit is recognised when it is asked again."""

_JOB = TypeAdapter(Job)
_STEP = TypeAdapter(Step)
_STEP_FIELD = b"step:"


class RedisJobStore:
    """`JobStore` on Redis ≥ 6.2.

    `clock` tells the time that events show; everything that is judged goes by Redis's own. `keep_s`: seconds that the
    record of an ended job is kept. `max_events`: about how many events the stream holds.
    `patience_s`: how long a commit whose reply was lost is asked again before it raises `queue_unavailable`; it is
    recognised by its token, so that asking twice applies it once. Reads are not repeated.
    """

    def __init__(
        self,
        client: Client,
        *,
        prefix: str = "reelway",
        event_prefix: str = PREFIX,
        clock: Clock | None = None,
        keep_s: int = 7 * 86_400,
        max_events: int = 1_000_000,
        patience_s: float = 10.0,
    ) -> None:
        self.client = client
        self.prefix = prefix
        self.event_prefix = event_prefix
        self.clock = clock or SystemClock()
        self.keep_s = keep_s
        self.max_events = max_events
        self.patience_s = patience_s
        announce = self._lua("announce")
        self._commit = client.register_script(announce + self._lua("commit"))
        self._append = client.register_script(announce + self._lua("append"))
        self._renew = client.register_script(self._lua("renew"))
        self._due = client.register_script(self._lua("due"))

    @property
    def events(self) -> str:
        """Name of the event stream."""
        return f"{self.prefix}:events"

    def job(self, job_id: str) -> Job | None:
        with answering():
            record = cast(dict[bytes, bytes], self.client.hgetall(self._job_key(job_id)))
        return unpack_job(job_id, record) if record else None

    def asset(self, asset_id: str) -> AssetRecord | None:
        with answering():
            values = cast(
                list[bytes | None],
                self.client.hmget(self._asset_key(asset_id), ["document", "version", "epoch", "sequence"]),
            )
        document, version, epoch, sequence = values
        if epoch is None:
            return None
        return AssetRecord(
            id=asset_id,
            document=json.loads(document or b"{}"),
            version=int(version or 0),
            epoch=int(epoch),
            sequence=int(sequence or 0),
        )

    def commit(self, commit: Commit) -> Outcome:
        keys = [self._job_key(commit.job), self._asset_key(commit.asset), self._due_key, self.events, self._token_key()]
        answer = self._ask_again(self._commit, keys, self._pack(commit))
        return CONFLICT if answer == b"0" else Outcome(applied=True, settled=answer == b"2")

    def append(self, asset: str, draft: EventDraft, *, organization: str = "default", job: str | None = None) -> None:
        """Append an event that no commit brings: `request.refused` has no job."""
        body = self._body(draft, asset=asset, job=job, organization=organization)
        keys = [self._asset_key(asset), self.events, self._token_key()]
        numbers = map(str, (self.max_events, TOKEN_S, self.keep_s))
        self._ask_again(self._append, keys, [body, self._type(draft), asset, *numbers])

    def renew(self, ref: Ref, fence: str, lease_s: float) -> bool:
        args: list[str | int] = [f"step:{ref.step}", fence, str(ref), round(lease_s * 1000)]
        with answering():
            return bool(self._renew(keys=[self._job_key(ref.job), self._due_key], args=args))

    def due(self, limit: int) -> Sequence[Ref]:
        names = [self._job_key(""), f"{self.prefix}:ready:", f"{self.prefix}:wake"]
        times = map(_ms, (OUTAGE_S, GRACE_S, CLAIM_S, READY_DUE_S))
        with answering():
            keys = [self._due_key, f"{self.prefix}:pulse"]
            members = cast(list[bytes], self._due(keys=keys, args=[limit, *names, *times]))
        return [Ref.parse(member.decode()) for member in members]

    def take(self, stages: Mapping[str, int]) -> Sequence[Ref]:
        # A lost reply loses what was taken; the due index brings it back.
        with answering(), self.client.pipeline(transaction=False) as pipe:
            for stage, count in stages.items():
                pipe.zpopmin(f"{self.prefix}:ready:{stage}", count)
            popped = cast(list[list[tuple[bytes, float]]], pipe.execute() if stages else [])
        return [Ref.parse(member.decode()) for members in popped for member, _ in members]

    # -- one commit ---------------------------------------------------------------------------------------------------

    def _ask_again(self, script: Any, keys: list[str], args: list[str]) -> bytes:
        """Run a script that knows its token until it answers: the second time it only says what the first did."""
        deadline = time.monotonic() + self.patience_s
        wait = 0.02
        with answering():
            while True:
                try:
                    return cast(bytes, script(keys=keys, args=args))
                except (redis.ConnectionError, redis.TimeoutError):
                    if time.monotonic() + wait > deadline:
                        raise
                time.sleep(wait)
                wait = min(1.0, wait * 2)

    def _pack(self, commit: Commit) -> list[str]:
        """The script's arguments: the commit as small JSON, then what is long in the order that the script reads it."""
        steps = list(commit.steps.values())
        small: dict[str, Any] = {
            "job": commit.job,
            "asset": commit.asset,
            "subject": commit.asset,
            "new": commit.new,
            "job_in": {str(status): 1 for status in commit.job_in},
            "expect": {
                "steps": list(commit.expect),
                "standings": [_standing(*at) if at else "" for at in commit.expect.values()],
            },
            "all_settled": commit.all_settled,
            "document": commit.document is not None,
            "steps": [step.id for step in steps],
            "guards": [{"step": guard.step, "needs": guard.needs} for guard in commit.guards],
            "due": {"steps": list(commit.due), "ms": [_ms(seconds) for seconds in commit.due.values()]},
            "rank": commit.rank,
            "events": [self._type(draft) for draft in commit.events],
            "forget": commit.forget,
            "ready": f"{self.prefix}:ready:",
            "channels": {"wake": f"{self.prefix}:wake", "stop": f"{self.prefix}:stop"},
            "max_events": self.max_events,
            "keep_s": self.keep_s,
            "token_s": TOKEN_S,
            "ready_ms": _ms(READY_DUE_S),
            **_optional(revision=commit.revision, overdue=commit.overdue, asset_version=commit.asset_version),
            **_optional(status=commit.header and str(commit.header.status), order=_order(commit)),
        }
        return [json.dumps(small, separators=(",", ":")), *self._long(commit, steps)]

    def _long(self, commit: Commit, steps: list[Step]) -> Iterator[str]:
        if commit.header is not None:
            yield _JOB.dump_json(commit.header, exclude={"steps"}).decode()
        if commit.document is not None:
            yield json.dumps(commit.document, separators=(",", ":"), ensure_ascii=False)
        yield from map(pack_step, steps)
        for draft in commit.events:
            yield self._body(draft, asset=commit.asset, job=commit.job, organization=commit.organization)

    def _body(self, draft: EventDraft, *, asset: str, job: str | None, organization: str) -> str:
        now_ms = self.clock.now_ms()
        return envelope(draft, asset=asset, job=job, organization=organization, now_ms=now_ms, prefix=self.event_prefix)

    def _type(self, draft: EventDraft) -> str:
        return f"{self.event_prefix}.{draft.type}.{VERSION}"

    # -- names --------------------------------------------------------------------------------------------------------

    @property
    def _due_key(self) -> str:
        return f"{self.prefix}:due"

    def _job_key(self, job_id: str) -> str:
        return f"{self.prefix}:job:{job_id}"

    def _asset_key(self, asset_id: str) -> str:
        return f"{self.prefix}:asset:{asset_id}"

    def _token_key(self) -> str:
        return f"{self.prefix}:commit:{secrets.token_hex(8)}"

    def _lua(self, name: str) -> str:
        return (Path(__file__).parent / "lua" / f"{name}.lua").read_text()


def pack_step(step: Step) -> str:
    """A step as its field holds it: what Lua looks at in front, the rest as JSON."""
    rest = _STEP.dump_json(step, exclude={"status", "fence", "stage"}).decode()
    return f"{_standing(step.status, step.fence)}|{step.stage}|{rest}"


def unpack_step(value: bytes) -> Step:
    """The step that `pack_step` wrote, with the status that Lua may have changed since."""
    status, fence, stage, rest = value.decode().split("|", 3)
    return _STEP.validate_python({**json.loads(rest), "status": Status(status), "fence": fence, "stage": stage})


def unpack_job(job_id: str, record: Mapping[bytes, bytes]) -> Job:
    """The job of its hash's fields, its steps in the order of the plan. Of a newer record: what it is called."""
    schema = int(json.loads(record[b"header"]).get("schema", SCHEMA))
    if schema > SCHEMA:
        status = record[b"status"].decode()
        known = JobStatus(status) if status in list(JobStatus) else JobStatus.ACTIVE
        return Job(id=job_id, asset=record[b"asset"].decode(), status=known, schema=schema)
    steps = {
        field.removeprefix(_STEP_FIELD).decode(): unpack_step(value)
        for field, value in record.items()
        if field.startswith(_STEP_FIELD)
    }
    planned = {step_id: index for index, step_id in enumerate(json.loads(record.get(b"order", b"[]")))}

    def place(step_id: str) -> tuple[int, str]:
        return planned.get(step_id, len(planned)), step_id

    return replace(
        _JOB.validate_json(record[b"header"]),
        status=JobStatus(record[b"status"].decode()),
        revision=int(record[b"revision"]),
        steps={step_id: steps[step_id] for step_id in sorted(steps, key=place)},
    )


def _order(commit: Commit) -> str | None:
    """The plan's order, written whenever the plan grows; a hash keeps none."""
    if commit.header is None or not (commit.new or None in commit.expect.values()):
        return None
    return json.dumps(list({**commit.header.steps, **commit.steps}))


def _standing(status: Status, fence: str) -> str:
    return f"{status}|{fence}"


def _ms(seconds: float | None) -> int:
    return -1 if seconds is None else max(0, round(seconds * 1000))


def _optional(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
