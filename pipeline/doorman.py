"""The doorman decides what becomes of a request: let in as jobs, carried out at once, or refused with a coded error.

In this order: what was let in before is let in; a store that is nearly full takes nothing new; an organization may do
what its file says; what is deleted stays deleted; and what a request needs of its asset must be there. All doors lead
to him, so the same request gets the same answer wherever it is made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import chain, islice

from pipeline import keys, upload_record
from pipeline.acceptance import DELETE, Wanted, blaming, is_there, wanted
from pipeline.conductor import Conductor
from pipeline.errors import PipelineError
from pipeline.job import Job, JobStatus, Priority
from pipeline.numbers import TRIM, Numbers
from pipeline.organizations import Organizations
from pipeline.past import END_OF_LIFE, is_told
from pipeline.ports import Storage
from pipeline.requests import (
    BatchRequest,
    CancelRequest,
    DeleteRequest,
    DuplicateRequest,
    ExpireRequest,
    ExportRequest,
    HoldRequest,
    JobRequest,
    PrioritizeRequest,
    ProcessRequest,
    ReleaseRequest,
    ReprocessRequest,
    Request,
    RetryRequest,
    RevertTrimRequest,
    RollBackRequest,
    TrimRequest,
    request_of,
)
from pipeline.standing import Past, Standing, standing, untouched
from pipeline.tasks import USUAL_LIMITS, Limits
from pipeline.upload_record import State

FULL = 0.9
"""A store that uses more of its memory than this takes no new jobs: what is under way needs the rest."""
FULL_RETRY_S = 60
"""Who is refused for that is told to come back after so long."""

_EDITS = (TrimRequest, RevertTrimRequest, RollBackRequest, ExportRequest)
"""What may be asked for as soon as an asset plays, whatever its first job still adds to it."""


class Doorman:
    """Lets requests in. `fleet_size` answers how many steps the fleet can do at once; `limits` hold where an
    organization has none of its own."""

    def __init__(
        self,
        conductor: Conductor,
        storage: Storage,
        organizations: Organizations,
        *,
        fleet_size: Callable[[], int] = lambda: 1,
        limits: Limits = USUAL_LIMITS,
    ) -> None:
        self.conductor = conductor
        self.store = conductor.store
        self.storage = storage
        self.organizations = organizations
        self.fleet_size = fleet_size
        self.limits = limits
        self.numbers = Numbers(storage)

    def handle(self, request: Request) -> tuple[str, ...]:
        """Ids of the jobs that the request became or touched. The same request again gives the same jobs.

        Raises `PipelineError` where it is refused. Nothing of it happens then, but that a cancel stops what it can.
        """
        match request:
            case BatchRequest():
                return self._batch(request)
            case RetryRequest():
                return self._retry(request)
            case DeleteRequest():
                return self._delete(request)
            case CancelRequest() | HoldRequest() | ReleaseRequest() | PrioritizeRequest():
                return self._control(request)
        return self._job(request)

    def foresee(self, request: ProcessRequest) -> Limits:
        """Raise what the request would be refused with if it came now; nothing is let in. Returns what its source may
        be."""
        self.check_room()
        self._check_priority(request)
        (asked,) = self._on_terms(wanted(request))
        if self._was_accepted(request):
            raise PipelineError("asset_exists", asset=request.asset_id)
        self.conductor.foresee(asked)
        return asked.limits

    def expire(self, asset: str, at_ms: int) -> tuple[str, ...]:
        """Delete an asset whose time has come. Asked again, it is the same job."""
        organization = next((job.organization for job in self._jobs(asset)), "default")
        return self.handle(DeleteRequest(id=f"expired-{asset}-{at_ms}", ids=(asset,), organization=organization))

    # -- jobs ---------------------------------------------------------------------------------------------------------

    def _job(self, request: JobRequest, *, retried: bool = False, sealed: str | None = None) -> tuple[str, ...]:
        """One request, one job. `sealed`: what the job before knew of its URL, where it is retried."""
        (asked,) = (replace(each, sealed=sealed) for each in wanted(request, retried=retried))
        if self._known(request.id):
            return self._accept([asked])
        self.check_room()
        self._check_priority(request)
        if isinstance(request, ProcessRequest | DuplicateRequest) and not retried:
            return (request.id,) if self._was_accepted(request) else self._new_asset(asked, request)
        if isinstance(request, ProcessRequest):
            self._check_uploaded(request, brought=sealed == "")
        self.check_present(asked.asset)
        if is_told(self.storage, asked.asset, request.id):  # so long ago that the store has forgotten it
            return (request.id,)
        if isinstance(request, DuplicateRequest):
            return self._new_asset(asked, request)
        if not isinstance(request, ExpireRequest):
            asked = replace(asked, standing=self._standing_now(asked.asset, still_made=isinstance(request, _EDITS)))
        return self._accept([self._numbered(each) for each in self._on_terms([asked])])

    def _new_asset(self, asked: Wanted, request: ProcessRequest | DuplicateRequest) -> tuple[str, ...]:
        """A job that begins the life of an asset; of a clip or a duplicate the other one must be there."""
        if isinstance(request, DuplicateRequest):
            self.check_present(request.asset_id)
            found = self._standing_now(request.asset_id, still_made=True)
            asked = replace(asked, standing=found, of=self.store.asset(request.asset_id))
        else:
            self._check_uploaded(request)
        return self._accept(self._on_terms([asked]))

    def _numbered(self, asked: Wanted) -> Wanted:
        """Of a trim: with its number. What is refused now uses none up."""
        if not isinstance(asked.request, TrimRequest) or asked.request.preview:
            return asked
        self.conductor.foresee(asked)
        # By both: where the store was lost, another asset may bring the request's id again.
        return replace(asked, number=self.numbers.claim(TRIM, f"{asked.asset}/{asked.id}"))

    def _batch(self, request: BatchRequest) -> tuple[str, ...]:
        if not all(self._known(member.id) for member in request.requests):
            self.check_room()
        asked: list[Wanted] = []
        for index, member in enumerate(request.requests):
            with blaming(index):
                if not self._known(member.id):
                    self._check_priority(member)
                    if self._was_accepted(member):
                        continue
                    self._check_uploaded(member)
                asked += wanted(member)
        self._accept(self._on_terms(asked))
        return tuple(member.id for member in request.requests)

    def _delete(self, request: DeleteRequest) -> tuple[str, ...]:
        """All of them or none. A deletion makes room, so it is let in however full everything is."""
        asked = wanted(request)
        for index, each in enumerate(asked):
            if not self._known(each.id):
                with blaming(index if len(asked) > 1 else None):
                    self.check_present(each.asset)
        return self._accept(asked)

    def _retry(self, request: RetryRequest) -> tuple[str, ...]:
        """The same again, under a new id."""
        known = self.store.job(request.id)
        if known is not None and known.asset == request.asset_id:
            return (request.id,)
        self.check_present(request.asset_id)
        last = self._last(request.asset_id)
        if last.status not in (JobStatus.FAILED, JobStatus.CANCELLED):
            raise PipelineError("nothing_to_retry", asset=request.asset_id, status=last.status.value)
        body = {**last.request, "id": request.id, "meta": request.meta or last.request.get("meta", {})}
        return self._job(request_of(body), retried=True, sealed=last.sealed)

    def _accept(self, asked: Sequence[Wanted]) -> tuple[str, ...]:
        return tuple(job.id for job in self.conductor.accept_all(asked))

    def _on_terms(self, asked: Sequence[Wanted]) -> list[Wanted]:
        """With what the fleet and their organizations mean for them."""
        workers = self.fleet_size()
        return [self._with_limits(replace(each, workers=workers)) for each in asked]

    def _with_limits(self, asked: Wanted) -> Wanted:
        organization = self.organizations.of(asked.request.organization)
        if isinstance(asked.request, ProcessRequest):
            asked = replace(asked, limits=organization.limits(self.limits))
        if isinstance(asked.request, ReprocessRequest):  # what was let in stays in
            asked = replace(asked, limits=replace(USUAL_LIMITS, max_bytes=None, max_duration_s=None))
        if isinstance(asked.request, ExpireRequest):  # it has ended as soon as it is accepted
            return asked
        return replace(asked, max_open=organization.max_open_jobs)

    def _last(self, asset: str) -> Job | Past:
        """The newest job that made something of the asset, or was to; before it, one that has not ended."""
        jobs: Iterator[Job | Past] = chain(self._open(asset), self._jobs(asset), self._told(asset))
        for job in jobs:
            if job.kind not in END_OF_LIFE:
                return job
        raise PipelineError("asset_not_found", asset=asset)

    def _told(self, asset: str) -> Iterator[Past]:
        """What storage knows of its jobs, asked when the store knows none."""
        found = self._standing(asset)
        yield from found.past if found else ()

    # -- what is carried out at once ----------------------------------------------------------------------------------

    def _control(self, request: CancelRequest | HoldRequest | ReleaseRequest | PrioritizeRequest) -> tuple[str, ...]:
        """Change the open jobs of an asset. What can be cancelled is; then it is said that something cannot."""
        self._check_priority(request)
        self.check_present(request.asset_id)
        changed, refused = [], None
        for job in self._open(request.asset_id):
            try:
                changed += [job.id] if self._change(request, job.id) else []
            except PipelineError as error:
                if error.code != "asset_busy":
                    raise
                refused = error
        if refused is not None:
            raise refused
        return tuple(changed)

    def _change(self, request: CancelRequest | HoldRequest | ReleaseRequest | PrioritizeRequest, job: str) -> bool:
        """False: there is nothing to change."""
        match request:
            case CancelRequest():
                return request.job in (None, job) and self.conductor.cancel(job)
            case HoldRequest():
                return self.conductor.hold(job)
            case ReleaseRequest():
                return self.conductor.release(job)
            case PrioritizeRequest():
                return self.conductor.prioritize(job, request.priority)

    def _open(self, asset: str) -> Sequence[Job]:
        jobs = self._jobs(asset, open_only=True)
        return [job for job in jobs if not job.status.ended and job.kind != DELETE]

    def _jobs(self, asset: str, *, open_only: bool = False) -> Iterator[Job]:
        """Those that the store still knows, newest first: there may be thousands, so take no more than you need."""
        jobs = (self.store.job(id_) for id_ in self.store.jobs(asset, open_only=open_only))
        return (job for job in jobs if job is not None)

    # -- what is known ------------------------------------------------------------------------------------------------

    def _known(self, job_id: str) -> bool:
        return self.store.job(job_id) is not None

    def _was_accepted(self, request: ProcessRequest | DuplicateRequest) -> bool:
        """So long ago that the store has forgotten it. Raises where the asset id that it brings was used before."""
        name = "new_id" if isinstance(request, DuplicateRequest) else "asset_id"
        asset: str = getattr(request, name)
        if name not in request.model_fields_set or is_there(self.store.asset(asset)):
            return False
        found = None if untouched(self.storage, asset) else standing(self.storage, asset)
        if found is None or (found.document is None and found.presentation is None):
            return False
        if found.deleted is not None:
            raise PipelineError("asset_deleted", asset=asset)
        if is_told(self.storage, asset, request.id):
            return True
        raise PipelineError("asset_exists", asset=asset)

    def _check_uploaded(self, request: ProcessRequest, *, brought: bool = False) -> None:
        """What was uploaded is complete, belongs to who asks, and lies where its job will look for it.

        `brought`: an earlier job was let in with it. The record of an upload does not last as long as what came of it.
        """
        if request.upload is None:
            return
        key = keys.source(request.asset_id, request.orig_filename or "")
        if self.storage.stat(key) is None or not (brought or self._is_theirs(request.upload, request, key)):
            raise PipelineError("upload_not_found", upload=request.upload)

    def _is_theirs(self, upload: str, request: ProcessRequest, key: str) -> bool:
        record, _ = upload_record.load(self.storage, upload)
        mine = record.state is State.COMPLETED and record.organization == request.organization
        return mine and record.key == key

    def check_present(self, asset: str) -> None:
        """The store knows the asset; where it has forgotten it, it is brought back first."""
        record = self.store.asset(asset)
        if not is_there(record):
            found = self._standing(asset)
            if found is None or found.document is None:
                raise PipelineError("asset_not_found", asset=asset)
        elif record.document.get("deleted") is not None:
            raise PipelineError("asset_deleted", asset=asset)

    def _standing(self, asset: str) -> Standing | None:
        """What storage says of the asset; where the store knows less, it learns it."""
        found = standing(self.storage, asset)
        if found is not None and found.deleted is not None:
            raise PipelineError("asset_deleted", asset=asset)
        if found is not None and found.record is not None:
            self.store.restore(found.record)
        return found

    def _standing_now(self, asset: str, *, still_made: bool) -> Standing | None:
        """… and where no history tells how it was made, what the job knows that did it: it has just ended, or
        (`still_made`) what is left of it is optional."""
        found = self._standing(asset)
        if found is None or found.presentation is None or found.blueprint is not None:
            return found
        made_it = (job for job in self._jobs(asset) if _made_it(job, still_made=still_made))
        return replace(found, under_way=tuple(islice(made_it, 1)))

    # -- what an organization may do ----------------------------------------------------------------------------------

    def check_room(self) -> None:
        """Raises `queue_full` where the store takes nothing new."""
        pressure = self.store.pressure()
        if pressure > FULL:
            raise PipelineError("queue_full", percent=round(pressure * 100), retry_after_s=FULL_RETRY_S)

    def _check_priority(self, request: Request) -> None:
        allowed = self.organizations.of(request.organization).priorities
        priority: Priority = getattr(request, "priority", allowed[0])
        if priority not in allowed:
            raise PipelineError(
                "priority_not_allowed",
                organization=request.organization,
                priority=priority.value,
                allowed=", ".join(allowed),
            )


def _made_it(job: Job, *, still_made: bool) -> bool:
    if job.blueprint is None:
        return False
    return job.status is JobStatus.SUCCEEDED if job.status.ended else still_made and job.delivered
