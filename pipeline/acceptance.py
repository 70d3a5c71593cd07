"""From a request to the commit that saves its job: what is frozen into it, and what the document says of it.

Everything that decides how a job begins lives here. Nothing is read and nothing is saved: the conductor brings what is
known of the asset, and commits. Raises `PipelineError` where the request cannot be accepted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TypeGuard

from pipeline import document as documents
from pipeline import keys
from pipeline.document import AssetDocument
from pipeline.errors import PipelineError
from pipeline.events import asset_facts
from pipeline.job import JOB_LEVEL, READY_DUE_S, AssetRecord, Commit, Job, JobStatus, Priority, Status, Step
from pipeline.profile import Profile
from pipeline.requests import (
    RESOLUTIONS,
    DeleteRequest,
    ExpireRequest,
    JobRequest,
    ProcessRequest,
    RepackageRequest,
    ReprocessRequest,
    SubtitleRequest,
)
from pipeline.standing import Standing
from pipeline.tasks import USUAL_LIMITS, Blueprint, Limits

DELETE = "delete"
"""Kind of a job that is nothing but the removal of its asset."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """One job that somebody asks for, and what whoever lets it in knows besides."""

    id: str
    asset: str
    request: JobRequest
    workers: int = 1
    """The fleet's size as far as it is known."""
    standing: Standing | None = None
    """What storage says of the asset."""
    limits: Limits = USUAL_LIMITS
    max_open: int | None = None
    """Jobs of the organization that may be open with it; None: any number."""
    retried: bool = False
    """It was asked for before, and came to nothing."""
    sealed: str | None = field(default=None, repr=False)
    """What the job before knew of the source's URL: `Job.sealed`."""


@dataclass(frozen=True, kw_only=True)
class Office:
    """What every acceptance needs: the plan's beginning, the profiles of today, where the public reads, the seal."""

    first_steps: Callable[[JobRequest], tuple[Step, ...]]
    profiles: Mapping[str, Profile]
    base_url: str
    close: Callable[[str, str], str]
    """Seals a URL for an asset: `pipeline.seal.Seal.close`."""

    def accept(self, wanted: Wanted, record: AssetRecord | None, now_ms: int) -> Commit:
        """The commit that saves the job, with its first events."""
        job = self._job(wanted, now_ms)
        draft = self._document(wanted, job, record, now_ms)
        document = documents.stamped(draft, version=(record.version if record else 0) + 1, now_ms=now_ms)
        events = asset_facts(job, "asset.accepted", document, key="accept")
        return Commit(
            job=job.id,
            asset=job.asset,
            new=True,
            asset_version=record.version if record else 0,
            max_open=wanted.max_open,
            closes=job.kind == DELETE,
            header=job,
            steps=job.steps,
            # Without steps somebody must look at the job itself: to do what it asks, or to write its history.
            due=dict.fromkeys(job.steps, READY_DUE_S) or {JOB_LEVEL: 0.0},
            rank=job.created_ms,
            organization=job.organization,
            document=document.model_dump(mode="json"),
            expire_at_ms=_expiry(wanted.request, document),
            events=events,
        )

    def _job(self, wanted: Wanted, now_ms: int) -> Job:
        request = wanted.request
        profile, blueprint, source = self._frozen(wanted)
        ended = isinstance(request, ExpireRequest)
        # Whatever the plan: a deletion is done by sweepers, and another end of life is done with its acceptance.
        first = () if isinstance(request, DeleteRequest | ExpireRequest) else self.first_steps(request)
        return Job(
            id=wanted.id,
            asset=wanted.asset,
            organization=request.organization,
            kind=request.kind,
            priority=getattr(request, "priority", Priority.STANDARD),
            request=_shown(request),
            sealed=self._sealed(wanted),
            profile=profile,
            limits=wanted.limits,
            source=source,
            workers=max(1, wanted.workers),
            blueprint=blueprint,
            status=JobStatus.SUCCEEDED if ended else JobStatus.ACTIVE,
            created_ms=now_ms,
            ended_ms=now_ms if ended else None,
            steps={step.id: replace(step, status=Status.READY) for step in first},
        )

    def _sealed(self, wanted: Wanted) -> str | None:
        """The source's URL where it holds a secret; of a retry what the job before left of it."""
        request = wanted.request
        if wanted.sealed is not None or not isinstance(request, ProcessRequest):
            return wanted.sealed
        if request.upload is not None:  # it lies where it shall
            return ""
        return self.close(request.url, wanted.asset) if documents.holds_secret(request.url) else None

    # -- what is frozen into the job ----------------------------------------------------------------------------------

    def _frozen(self, wanted: Wanted) -> tuple[Mapping[str, object], Blueprint | None, str]:
        """Profile, blueprint and source."""
        match wanted.request:
            case ProcessRequest() as request:
                return self._today(request.profile), None, _place(wanted, request)
            case ReprocessRequest() as request:
                standing = _ready(wanted)
                name = request.profile or str(standing.profile["name"])
                profile = self._today(name) if request.again else standing.profile
                return profile, None, _source(standing)
            case RepackageRequest():
                standing = _ready(wanted)
                return standing.profile, standing.blueprint, standing.source or ""
            case SubtitleRequest():
                standing = _ready(wanted)
                if standing.blueprint is not None and not standing.blueprint.media.audio:
                    raise PipelineError("parameter_invalid", detail=f"the asset {wanted.asset} has no sound")
                return standing.profile, standing.blueprint, _source(standing)
        return {}, None, ""

    def _today(self, name: str) -> Mapping[str, object]:
        profile = self.profiles.get(name)
        if profile is None:
            said = documents.public_url(name)  # a URL in the wrong field
            raise PipelineError("profile_unknown", profile=said, available=", ".join(sorted(self.profiles)))
        return profile.model_dump(mode="json")

    # -- what the document says ---------------------------------------------------------------------------------------

    def _document(self, wanted: Wanted, job: Job, record: AssetRecord | None, now_ms: int) -> AssetDocument:
        request = wanted.request
        if is_there(record) and record.document.get("deleted") is not None:
            raise PipelineError("asset_deleted", asset=wanted.asset)
        if isinstance(request, ProcessRequest) and not wanted.retried:
            if is_there(record):
                raise PipelineError("asset_exists", asset=wanted.asset)
            rungs = request.resolutions or tuple(job.profile["resolutions"])
            first = documents.not_started(request, resolutions=rungs, base_url=self.base_url, now_ms=now_ms)
            return documents.queued(first)
        if not is_there(record):
            raise PipelineError("asset_not_found", asset=wanted.asset)
        document = documents.load(record.document)
        match request:
            case ExpireRequest():
                return documents.expiring(document, request.expire_at)
            case DeleteRequest():
                return document
            case ReprocessRequest():
                return documents.asked(documents.queued(document), _asked(request, job, document))
        return documents.queued(document)


def wanted(
    request: JobRequest,
    *,
    workers: int = 1,
    standing: Standing | None = None,
    limits: Limits = USUAL_LIMITS,
    max_open: int | None = None,
    retried: bool = False,
) -> list[Wanted]:
    """The jobs that a request becomes: one, or one for each asset that is to be deleted."""
    if isinstance(request, DeleteRequest):
        # No caller can bring an id with a dot: they cannot be taken.
        names = [request.id] if len(request.ids) == 1 else [f"{request.id}.{n}" for n in range(1, len(request.ids) + 1)]
        return [
            Wanted(id=name, asset=asset, request=request.model_copy(update={"ids": (asset,)}))
            for name, asset in zip(names, request.ids, strict=True)
        ]
    return [
        Wanted(
            id=request.id,
            asset=request.asset_id,
            request=request,
            workers=workers,
            standing=standing,
            limits=limits,
            max_open=max_open,
            retried=retried,
        )
    ]


@contextmanager
def blaming(index: int | None) -> Iterator[None]:
    """Errors from inside say which of several requests is to blame; None: there is only one."""
    try:
        yield
    except PipelineError as error:
        if index is None:
            raise
        raise PipelineError(error.code, log=error.log, **{**error.params, "index": index}) from None


def same(wanted: Wanted, job: Job) -> bool:
    """The job is what this request became when it came before."""
    named = isinstance(wanted.request, ProcessRequest) and "asset_id" not in wanted.request.model_fields_set
    return job.kind == wanted.request.kind and (job.asset == wanted.asset or named)


def is_there(record: AssetRecord | None) -> TypeGuard[AssetRecord]:
    """Of an asset that nobody made there may be a refusal to tell."""
    return record is not None and record.version > 0


def _ready(wanted: Wanted) -> Standing:
    """What storage says of an asset that plays."""
    standing = wanted.standing
    if standing is None or standing.presentation is None:
        raise PipelineError("asset_not_ready", asset=wanted.asset, detail="nothing of it is published")
    if not standing.profile or standing.blueprint is None:
        raise PipelineError("asset_not_ready", asset=wanted.asset, detail="its first job has not ended")
    return standing


def _place(wanted: Wanted, request: ProcessRequest) -> str:
    """Where the source shall lie; where its URL was erased, it lies somewhere already."""
    if wanted.sealed == "":
        return _source(wanted.standing or Standing(asset=wanted.asset))
    if request.in_place:
        return documents.public_url(request.url)
    return keys.source(wanted.asset, request.url or request.orig_filename or "")


def _source(standing: Standing) -> str:
    if standing.source is None:
        raise PipelineError("asset_not_ready", asset=standing.asset, detail="its source is gone")
    return standing.source


def _shown(request: JobRequest) -> Mapping[str, object]:
    """The request without what is secret in it."""
    said = request.model_dump(mode="json")
    return {**said, "url": documents.public_url(request.url)} if isinstance(request, ProcessRequest) else said


def _asked(request: ReprocessRequest, job: Job, document: AssetDocument) -> tuple[str, ...]:
    """The rungs that the asset is to have from now on."""
    asked = request.resolutions or tuple(job.profile["resolutions"])
    if "transcode" in request.again:
        return asked
    if "audio" in request.again:
        return tuple(document.video.resolutions)
    return tuple(name for name in RESOLUTIONS if name in asked or name in document.video.resolutions)


def _expiry(request: JobRequest, document: AssetDocument) -> int | None:
    """What the store is to remember: said again with every job, because it may have forgotten the asset meanwhile."""
    if isinstance(request, DeleteRequest):
        return 0
    return document.expire_at if isinstance(request, ExpireRequest) else document.expire_at or None
