"""The job store on Redis: a job is one hash, a commit is one script, and what the script says is what happened.

    <prefix>:job:<id>        hash: header (JSON without steps), status, revision, asset, organization, priority, held,
                             rank, order, unsettled (how many steps are), and `step:<id>` =
                             `<status>|<fence>|<stage>|<rest as JSON>`, so that Lua compares text
    <prefix>:asset:<id>      hash: document, version, epoch, sequence, closed (the job that removes it), open (its jobs
                             that have not ended); expires with the record of its last job, and what comes later has a
                             new epoch
    <prefix>:asset:<id>:jobs sorted set of its jobs by rank; expires with the asset
    <prefix>:asset:<id>:open … of those that have not ended
    <prefix>:due             sorted set of `<job>/<step>` by the time (Redis's clock, ms) to look at it again;
                             half a millisecond more marks what a sweeper has claimed
    <prefix>:events          stream: ce (the sealed event), type, subject, sequence
    <prefix>:open            hash: open jobs by organization
    <prefix>:failed          sorted set of failed jobs by the time (ms) of their ends, as long as their records are kept
    <prefix>:expiries        sorted set of assets by the time (ms) at which they are to be deleted
    <prefix>:pulse           hash: when somebody last asked what is due, until when no lease is judged
    <prefix>:commit:<token>  what became of a commit, for as long as its sender may ask again
    <prefix>:append:<id>     an event without a job was appended

The ready index (`workers/lua/agenda.lua`; a *spot* is `<stage>|<priority>|<organization>`):

    <prefix>:places          hash: where a step stands: `ready|<spot>`, or `out|<spot>` once it was taken
    <prefix>:ready:<spot>    sorted set of `<job>/<step>` by rank: what may begin
    <prefix>:turns:<stage>|<priority>  sorted set of the organizations that have something there, by whose turn it is
    <prefix>:turn            the last turn that was given
    <prefix>:ready           hash: `<stage>|<priority>`: how many are ready
    <prefix>:out             hash: `stage|<stage>` and `organization|<organization>`: how many are taken
    <prefix>:paused          set of stages

    channels <prefix>:wake (stages with something ready, `@due`) and <prefix>:stop (the id of a job that ended)

Contention is on fields: a commit compares the steps that it was decided on, not the whole record. Python decides, the
script compares and applies (`workers/lua/commit.lua`; its readable form is `pipeline.memory.MemoryJobStore`).
"""

from __future__ import annotations

import itertools
import json
import secrets
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import redis
from pydantic import TypeAdapter

from pipeline.events import PREFIX, VERSION, envelope
from pipeline.job import (
    READY_DUE_S,
    SCHEMA,
    AssetRecord,
    Commit,
    EventDraft,
    Job,
    JobStatus,
    Outcome,
    Priority,
    Ref,
    Refusal,
    Status,
    Step,
    StepTable,
)
from pipeline.memory import AGAIN_S, CLAIM_S, GRACE_S, OUTAGE_S, SystemClock
from pipeline.ports import NO_QUOTAS, Clock, QueueFigures, Quotas
from workers.redis_client import Client, answering

DUE = "@due"
"""Word on the wake channel: something is due now."""
TOKEN_S = round(AGAIN_S)
"""How long a commit is recognised when it is asked again."""
NO_QUOTA = -1
PAGE = 50
"""So many of an asset's jobs are looked at in one go."""

_JOB = TypeAdapter(Job)
_STEP = TypeAdapter(Step)
_STEP_FIELD = b"step:"
_STATUS = {str(status).encode(): status for status in Status}


class RedisJobStore:
    """`JobStore` and `Agenda` on Redis ≥ 6.2.

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
        self._commit = self._script("announce", "agenda", "commit")
        self._append = self._script("announce", "append")
        self._restore = self._script("announce", "restore")
        self._renew = self._script("renew")
        self._due = self._script("agenda", "due")
        self._take = self._script("agenda", "take")
        self._expired = self._script("expired")
        self._unexpire = self._script("unexpire")

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

    def jobs(self, asset_id: str, *, open_only: bool = False) -> Iterator[str]:
        if open_only:
            yield from self._open_jobs(asset_id)
            return
        for first in itertools.count(0, PAGE):
            with answering():
                key = f"{self._asset_key(asset_id)}:jobs"
                found = cast(list[bytes], self.client.zrevrange(key, first, first + PAGE - 1))
            yield from self._known(found)
            if len(found) < PAGE:
                return

    def _open_jobs(self, asset_id: str) -> list[str]:
        key = self._asset_key(asset_id)
        with answering(), self.client.pipeline() as pipe:
            pipe.hget(key, "open")
            pipe.zrevrange(f"{key}:open", 0, -1)
            count, found = cast(tuple[bytes | None, list[bytes]], pipe.execute())
        if len(found) == int(count or 0):
            return [job.decode() for job in found]
        # An older worker, which keeps no such list, let some in or ended some.
        every = ((id_, self.job(id_)) for id_ in self.jobs(asset_id))
        return [id_ for id_, job in every if job is not None and not job.status.ended]

    def commit(self, commit: Commit, *more: Commit) -> Outcome:
        commits = (commit, *more)
        keys = [self._key("due"), self.events, self._key("commit", secrets.token_hex(8))]
        for each in commits:
            keys += [self._job_key(each.job), self._asset_key(each.asset)]
        word, _, index = self._ask_again(self._commit, keys, self._pack(commits)).decode().partition(" ")
        if word in ("applied", "settled"):
            return Outcome(applied=True, settled=word == "settled")
        return Outcome(applied=False, refusal=Refusal(word), index=int(index))

    def append(self, asset: str, draft: EventDraft, *, organization: str = "default", job: str | None = None) -> None:
        """Append an event that no commit brings: `request.refused` has no job."""
        body = self._body(draft, asset=asset, job=job, organization=organization)
        keys = [self._asset_key(asset), self.events, self._key("append", draft.id)]
        numbers = map(str, (self.max_events, TOKEN_S, self.keep_s))
        self._ask_again(self._append, keys, [body, self._type(draft), asset, *numbers])

    def renew(self, ref: Ref, fence: str, lease_s: float) -> bool:
        args: list[str | int] = [f"step:{ref.step}", fence, str(ref), round(lease_s * 1000)]
        with answering():
            return bool(self._renew(keys=[self._job_key(ref.job), self._key("due")], args=args))

    def restore(self, record: AssetRecord) -> bool:
        args = [_json(record.document), record.version, record.sequence, self.keep_s]
        with answering():
            return bool(self._restore(keys=[self._asset_key(record.id)], args=args))

    # -- the agenda ---------------------------------------------------------------------------------------------------

    def due(self, limit: int) -> Sequence[Ref]:
        times = map(_ms, (OUTAGE_S, GRACE_S, CLAIM_S, READY_DUE_S))
        with answering():
            keys = [self._key("due"), self._key("pulse")]
            members = cast(list[bytes], self._due(keys=keys, args=[limit, self.prefix, *times]))
        return [Ref.parse(member.decode()) for member in members]

    def scheduled(self, limit: int) -> Sequence[Ref]:
        """What stands in the due index, soonest first, whether or not its time has come; nothing is claimed."""
        with answering():
            members = cast(list[bytes], self.client.zrange(self._key("due"), 0, limit - 1))
        return [Ref.parse(member.decode()) for member in members]

    def take(self, stages: Mapping[str, int], quotas: Quotas = NO_QUOTAS) -> Sequence[Ref]:
        # A lost reply loses what was taken; the due index brings it back.
        wish = {
            "stages": list(stages),
            "rooms": list(stages.values()),
            "priorities": [str(priority) for priority in Priority],
            "quotas": {name: _quota(each) for name, each in quotas.by_organization.items()},
            "default": _quota(quotas.default),
        }
        with answering():
            found = cast(list[bytes], self._take(keys=[], args=[self.prefix, json.dumps(wish)]))
        pairs = zip(found[::2], found[1::2], strict=True)
        return [replace(Ref.parse(member.decode()), stage=stage.decode()) for member, stage in pairs]

    def pause(self, stage: str, paused: bool) -> None:
        with answering():
            if paused:
                self.client.sadd(self._key("paused"), stage)
            else:
                self.client.srem(self._key("paused"), stage)
                self.client.publish(self._key("wake"), stage)

    def queues(self) -> Sequence[QueueFigures]:
        with answering(), self.client.pipeline(transaction=False) as pipe:
            pipe.hgetall(self._key("ready"))
            pipe.hgetall(self._key("out"))
            pipe.smembers(self._key("paused"))
            ready, out, paused = cast(tuple[dict[bytes, bytes], dict[bytes, bytes], set[bytes]], pipe.execute())
        counts: defaultdict[str, dict[Priority, int]] = defaultdict(dict)
        for spot, count in ready.items():
            stage, priority = spot.decode().split("|")
            counts[stage][Priority(priority)] = int(count)
        taken = {kind: int(count) for kind, count in out.items() if kind.startswith(b"stage|")}
        halted = {stage.decode() for stage in paused}
        names = {*counts, *halted, *(kind.decode().partition("|")[2] for kind in taken)}
        return [
            QueueFigures(
                stage=name,
                ready=counts[name],
                taken=taken.get(f"stage|{name}".encode(), 0),
                organizations=self._organizations(name, counts[name]),
                paused=name in halted,
            )
            for name in sorted(names)
        ]

    def _organizations(self, stage: str, priorities: Mapping[Priority, int]) -> Mapping[str, int]:
        """Ready steps of a stage by organization."""
        counts: defaultdict[str, int] = defaultdict(int)
        with answering():
            for priority in priorities:
                turns = cast(list[bytes], self.client.zrange(self._key("turns", f"{stage}|{priority}"), 0, -1))
                names = [name.decode() for name in turns]
                with self.client.pipeline(transaction=False) as pipe:
                    for name in names:
                        pipe.zcard(self._key("ready", f"{stage}|{priority}|{name}"))
                    for name, count in zip(names, cast(list[int], pipe.execute()), strict=True):
                        counts[name] += count
        return {name: count for name, count in counts.items() if count}

    def failed(self, limit: int) -> Sequence[str]:
        with answering():
            found = cast(list[bytes], self.client.zrevrange(self._key("failed"), 0, limit - 1)) if limit > 0 else []
        return self._known(found)

    def expired(self, limit: int) -> Sequence[tuple[str, int]]:
        with answering():
            found = cast(list[bytes], self._expired(keys=[self._key("expiries")], args=[limit]))
        return [(asset.decode(), int(at)) for asset, at in zip(found[::2], found[1::2], strict=True)]

    def unexpire(self, asset: str, at_ms: int) -> None:
        with answering():
            self._unexpire(keys=[self._key("expiries")], args=[asset, at_ms])

    def pressure(self) -> float:
        with answering():
            try:
                memory: dict[str, Any] = self.client.info("memory")
            except redis.ResponseError as error:
                if "unknown command" not in str(error):
                    raise
                return 0.0  # fakeredis, which has no limit
        limit = int(memory.get("maxmemory", 0))
        return min(1.0, int(memory["used_memory"]) / limit) if limit else 0.0

    def _known(self, jobs: Sequence[bytes]) -> list[str]:
        """Those whose records have not expired."""
        with answering(), self.client.pipeline(transaction=False) as pipe:
            for job in jobs:
                pipe.exists(self._job_key(job.decode()))
            known = cast(list[int], pipe.execute())
        return [job.decode() for job, there in zip(jobs, known, strict=True) if there]

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

    def _pack(self, commits: Sequence[Commit]) -> list[str]:
        """The script's arguments: the commits as small JSON, then what is long, in the order in which it is read."""
        call = {
            "prefix": self.prefix,
            "max_events": self.max_events,
            "keep_s": self.keep_s,
            "token_s": TOKEN_S,
            "ready_ms": _ms(READY_DUE_S),
            "commits": [self._small(commit) for commit in commits],
        }
        return [_json(call), *(text for commit in commits for text in self._long(commit))]

    def _small(self, commit: Commit) -> dict[str, Any]:
        return {
            "job": commit.job,
            "asset": commit.asset,
            "new": commit.new,
            "job_in": {str(status): 1 for status in commit.job_in},
            "expect": {
                "steps": list(commit.expect),
                "standings": [_standing(*at) if at else "" for at in commit.expect.values()],
            },
            "all_settled": commit.all_settled,
            "closes": commit.closes,
            "document": commit.document is not None,
            "steps": list(commit.steps),
            "guards": [{"step": guard.step, "needs": guard.needs} for guard in commit.guards],
            "due": {"steps": list(commit.due), "ms": [_ms(seconds) for seconds in commit.due.values()]},
            "rank": commit.rank,
            "events": [self._type(draft) for draft in commit.events],
            "forget": commit.forget,
            **_optional(revision=commit.revision, overdue=commit.overdue, asset_version=commit.asset_version),
            **_optional(max_open=commit.max_open, expire_at_ms=commit.expire_at_ms),
            **_optional(header=commit.header and _told(commit.header), order=_order(commit)),
        }

    def _long(self, commit: Commit) -> Iterator[str]:
        if commit.header is not None:
            yield _JOB.dump_json(commit.header, exclude={"steps"}).decode()
        if commit.document is not None:
            yield _json(commit.document)
        yield from map(pack_step, commit.steps.values())
        for draft in commit.events:
            yield self._body(draft, asset=commit.asset, job=commit.job, organization=commit.organization)

    def _body(self, draft: EventDraft, *, asset: str, job: str | None, organization: str) -> str:
        now_ms = self.clock.now_ms()
        return envelope(draft, asset=asset, job=job, organization=organization, now_ms=now_ms, prefix=self.event_prefix)

    def _type(self, draft: EventDraft) -> str:
        return f"{self.event_prefix}.{draft.type}.{VERSION}"

    # -- names --------------------------------------------------------------------------------------------------------

    def _key(self, *names: str) -> str:
        return ":".join((self.prefix, *names))

    def _job_key(self, job_id: str) -> str:
        return self._key("job", job_id)

    def _asset_key(self, asset_id: str) -> str:
        return self._key("asset", asset_id)

    def _script(self, *names: str) -> Any:
        """A script of these files, one after the other: the first ones hold what others share."""
        return self.client.register_script("\n".join(map(self._lua, names)))

    def _lua(self, name: str) -> str:
        return (Path(__file__).parent / "lua" / f"{name}.lua").read_text()


def pack_step(step: Step) -> str:
    """A step as its field holds it: what Lua looks at in front, of the rest as JSON what is not as usual."""
    rest = _STEP.dump_json(step, exclude={"status", "fence", "stage"}, exclude_defaults=True).decode()
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
    return replace(
        _unpack_header(record[b"header"]),
        status=JobStatus(record[b"status"].decode()),
        revision=int(record[b"revision"]),
        steps=_unpack_steps(record),
    )


@lru_cache(maxsize=64)
def _unpack_header(header: bytes) -> Job:
    """A job without its steps. Those who work on one job read the same header again and again."""
    return _JOB.validate_json(header)


def _unpack_steps(record: Mapping[bytes, bytes]) -> StepTable:
    """The steps of a job's hash: only their statuses are read before somebody asks for more."""
    planned = _planned(record.get(b"order", b"[]"))
    unplanned = sorted(field for field in record.keys() - planned if field.startswith(_STEP_FIELD))
    named = {**planned, **{field: field[len(_STEP_FIELD) :].decode() for field in unplanned}}
    statuses = {name: _STATUS[record[field].partition(b"|")[0]] for field, name in named.items() if field in record}
    return StepTable(statuses, lambda name: unpack_step(record[_STEP_FIELD + name.encode()]))


@lru_cache(maxsize=64)
def _planned(order: bytes) -> Mapping[bytes, str]:
    """The steps' ids by their fields, in the order of the plan."""
    return {_STEP_FIELD + step_id.encode(): step_id for step_id in json.loads(order)}


def _order(commit: Commit) -> str | None:
    """The plan's order, written whenever the plan grows; a hash keeps none."""
    if commit.header is None or not (commit.new or None in commit.expect.values()):
        return None
    return json.dumps(list(dict.fromkeys((*commit.header.steps, *commit.steps))))


def _told(header: Job) -> dict[str, Any]:
    """What Lua looks at in a job."""
    return {
        "status": str(header.status),
        "priority": str(header.priority),
        "organization": header.organization,
        "held": header.held,
    }


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _quota(quota: int | None) -> int:
    return NO_QUOTA if quota is None else quota


def _standing(status: Status, fence: str) -> str:
    return f"{status}|{fence}"


def _ms(seconds: float | None) -> int:
    return -1 if seconds is None else max(0, round(seconds * 1000))


def _optional(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
