"""From a request to the commit that saves its job: what is frozen into it, and what the document says of it.

Everything that decides how a job begins lives here. Nothing is read and nothing is saved: the conductor brings what is
known of the asset, and commits. Raises `PipelineError` where the request cannot be accepted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, TypeGuard

from pipeline import cuts, keys
from pipeline import document as documents
from pipeline.document import AssetDocument
from pipeline.errors import PipelineError
from pipeline.events import asset_facts
from pipeline.job import JOB_LEVEL, READY_DUE_S, AssetRecord, Commit, Job, JobStatus, Priority, Status, Step
from pipeline.presentation.model import Presentation, Track
from pipeline.profile import Profile
from pipeline.requests import (
    RESOLUTIONS,
    ClipRequest,
    DeleteRequest,
    DuplicateRequest,
    ExpireRequest,
    ExportRequest,
    JobRequest,
    ProcessRequest,
    Range,
    RepackageRequest,
    ReprocessRequest,
    RevertTrimRequest,
    RollBackRequest,
    SubtitleRequest,
    TrimRequest,
)
from pipeline.standing import Standing
from pipeline.tasks import USUAL_LIMITS, Blueprint, Limits
from pipeline.trims import status_of

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
    """What storage says of the asset; of a clip, of the one that it is cut out of."""
    of: AssetRecord | None = None
    """Of a clip: what is known of the asset that it is cut out of."""
    number: int | None = None
    """Of a trim: `Job.number`."""
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

    def accept(self, wanted: Wanted, record: AssetRecord | None, now_ms: int, *, rival: Job | None = None) -> Commit:
        """The commit that saves the job, with its first events. `rival`: the last open job that it has to wait for."""
        _check_asked(wanted, rival)
        # Their order follows from it, so it must not be that of two machines' clocks.
        job = self._job(wanted, max(now_ms, rival.created_ms + 1) if rival else now_ms)
        draft = self._document(wanted, job, record, now_ms)
        document = documents.stamped(draft, version=(record.version if record else 0) + 1, now_ms=now_ms)
        events = asset_facts(job, "asset.accepted", document, key="accept", trim=status_of(job))
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
        range_ = _range(wanted, blueprint)
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
            number=wanted.number,
            status=JobStatus.SUCCEEDED if ended else JobStatus.ACTIVE,
            created_ms=now_ms,
            ended_ms=now_ms if ended else None,
            steps={step.id: replace(step, status=Status.READY, args={**step.args, **range_}) for step in first},
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
            case RepackageRequest() | RevertTrimRequest() | RollBackRequest() | ExportRequest():
                standing = _ready(wanted)
                return standing.profile, standing.blueprint, standing.source or ""
            case TrimRequest() | DuplicateRequest():
                standing = _ready(wanted)
                # Where the cuts lie at keyframes none is needed; where it is, its step says so.
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
        if isinstance(request, DuplicateRequest) and not wanted.retried:
            if is_there(record):
                raise PipelineError("asset_exists", asset=wanted.asset)
            if not is_there(wanted.of):
                raise PipelineError("asset_not_found", asset=request.asset_id)
            of = documents.load(wanted.of.document)
            return documents.queued(documents.cut_out(request, of, base_url=self.base_url, now_ms=now_ms))
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
        return documents.queued(document, aside=job.aside)


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
            asset=request.new_id if isinstance(request, DuplicateRequest) else request.asset_id,
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
    request = wanted.request
    if isinstance(request, DuplicateRequest) and job.request.get("asset_id") != request.asset_id:
        return False
    # Where it does not bring the id of its new asset, another is made whenever it is read.
    brought = {ProcessRequest: "asset_id", DuplicateRequest: "new_id", ClipRequest: "new_id"}.get(type(request))
    named = brought is not None and brought not in request.model_fields_set
    return job.kind == request.kind and (job.asset == wanted.asset or named)


def is_exclusive(request: JobRequest) -> bool:
    """What it becomes is `Job.exclusive`."""
    if isinstance(request, TrimRequest):
        return not request.preview
    return isinstance(request, RevertTrimRequest | RollBackRequest)


def is_there(record: AssetRecord | None) -> TypeGuard[AssetRecord]:
    """Of an asset that nobody made there may be a refusal to tell."""
    return record is not None and record.version > 0


def _check_asked(wanted: Wanted, rival: Job | None) -> None:
    """Refuse what cannot be made of what is there. Jobs that go before it may change that: then its step says so."""
    match wanted.request:
        case ProcessRequest() as request:
            cuts.check_said(request)
        case RevertTrimRequest():
            presentation = _published(wanted)
            if presentation.edit is None and rival is None:
                raise PipelineError("not_trimmed", asset=wanted.asset)
        case RollBackRequest() as request:
            latest = _published(wanted).version
            if request.version > latest and rival is None:
                raise PipelineError("version_not_found", asset=wanted.asset, version=request.version, latest=latest)
        case ExportRequest() as request:
            check_exported(wanted.asset, request, _published(wanted).tracks)


def check_exported(asset: str, request: ExportRequest, tracks: Sequence[Track]) -> None:
    """Refuse what the asset does not have: a rung, a language, a track."""
    rungs = [track.rung for track in tracks if track.kind == "video" and track.rung]
    if request.resolution is not None and request.resolution not in rungs:
        raise _not_there(asset, "resolution", request.resolution, rungs)
    for field_, kind in (("audio", "audio"), ("captions", "text")):
        names = [name for track in tracks if track.kind == kind for name in track_names(track)]
        for asked in getattr(request, field_):
            if asked.lower() not in names:
                raise _not_there(asset, field_, asked, names)


def track_names(track: Track) -> tuple[str, ...]:
    """What a caller may call a track by: its id, its language, its number."""
    names = (track.id, track.language, str(track.number) if track.number is not None else "")
    return tuple(name.lower() for name in names if name)


def _not_there(asset: str, field_: str, asked: str, names: Sequence[str]) -> PipelineError:
    available = ", ".join(dict.fromkeys(names)) or "nothing: it has none"
    return PipelineError("export_track_not_found", asset=asset, field=field_, current=asked, available=available)


def _range(wanted: Wanted, blueprint: Blueprint | None) -> Mapping[str, Any]:
    """Of a trim or a clip: the part of the source that is asked for, as the step's arguments."""
    request = wanted.request
    if not isinstance(request, TrimRequest | DuplicateRequest):
        return {}
    assert blueprint is not None, "it was asked whether the asset is ready"
    asked = request if isinstance(request, Range) else Range()
    return cuts.as_args(*cuts.settle(asked, blueprint.timeline, _published(wanted).base))


def _published(wanted: Wanted) -> Presentation:
    presentation = _ready(wanted).presentation
    assert presentation is not None
    return presentation


def _ready(wanted: Wanted) -> Standing:
    """What storage says of an asset that plays."""
    standing = wanted.standing
    asset = standing.asset if standing else wanted.asset
    if standing is None or standing.presentation is None:
        raise PipelineError("asset_not_ready", asset=asset, detail="nothing of it is published")
    if not standing.profile or standing.blueprint is None:
        raise PipelineError("asset_not_ready", asset=asset, detail="its first job has not ended")
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
